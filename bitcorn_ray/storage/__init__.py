"""Files and folders at a path or URI, published atomically."""
