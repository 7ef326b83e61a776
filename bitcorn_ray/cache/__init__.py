"""A content-addressed Parquet store: bytes by key, on any storage."""
