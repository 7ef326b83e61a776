"""The benchmark book: each figure beside a reference that is measured in the same run.

    python -m benchmarks [NAME ...] [--json] [--write]

A figure is the median of several runs, with the fastest and the slowest; on a noisy machine the ratios matter.
`--write` keeps results in benchmarks/results, from which `benchmarks.page` makes the tables of docs/benchmarks.md.
"""
