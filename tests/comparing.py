"""Comparisons that several tests make."""

from __future__ import annotations


def assert_same_bytes(one, other):
    """Two results with `columns` hold the same features, byte by byte."""
    assert list(one.columns) == list(other.columns)
    for name in one.columns:
        assert one.columns[name].tobytes() == other.columns[name].tobytes(), name
