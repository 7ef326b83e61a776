"""The speed tables: `python -m benchmarks`."""
