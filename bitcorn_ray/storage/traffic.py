"""Counts of this process's reads and writes of the cache, for monitoring.

hits, misses: chunks that were needed and were, or were not, in the cache. bytes_read, bytes_written: of chunks.
"""

from __future__ import annotations

import threading
from collections import Counter

_total = Counter[str]()
_lock = threading.Lock()


def traffic() -> Counter[str]:
    """Return the counts of this process since it started."""
    with _lock:
        return _total.copy()


def count_traffic(**counts: int) -> None:
    """Add to the counts of this process."""
    with _lock:
        _total.update(counts)
