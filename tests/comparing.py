"""Comparisons that several tests make, and what they do to a cache."""

from __future__ import annotations

import os
import time


def assert_same_bytes(one, other):
    """Two results with `columns` hold the same features, byte by byte."""
    assert list(one.columns) == list(other.columns)
    for name in one.columns:
        assert one.columns[name].tobytes() == other.columns[name].tobytes(), name


def age_entry(cache, key, seconds):
    """Let an entry of a cache in a folder have been made and used so long ago, and its chunks as well."""
    then = time.time() - seconds
    chunks = [f"features/{chunk['key']}.parquet" for chunk in cache.manifest(key)["chunks"]]
    for name in (f"features/{key}.meta.json", f"uses/{key}", *chunks):
        path = f"{cache.storage.address}/{name}"
        if os.path.exists(path):
            os.utime(path, (then, then))
