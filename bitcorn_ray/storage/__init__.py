"""Files on any file system: a folder or a URI, by one set of calls, and each there whole or not at all."""
