"""The speed tables: each figure beside a reference that is measured in the same run.

    python -m benchmarks [NAME ...] [--json]

Times are medians of five runs, with the fastest and the slowest; what matters on a noisy machine are the ratios.
"""
