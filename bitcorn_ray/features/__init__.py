"""Feature systems, their registry and audit, and the pipeline that computes them through the cache."""
