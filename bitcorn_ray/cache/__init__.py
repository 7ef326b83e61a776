"""The shared Parquet feature cache: the identity of an entry, the store."""
