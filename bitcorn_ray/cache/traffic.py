"""What this process has had from the cache and put into it since it began: for whoever watches, not for any result."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields

__all__ = ["Traffic", "count_traffic", "traffic"]


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """hits, misses: chunks that entries needed and the cache had, or had not. bytes: of chunks, as they are stored."""

    hits: int = 0
    misses: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(**{each.name: getattr(self, each.name) - getattr(other, each.name) for each in fields(self)})


_total = Traffic()
_lock = threading.Lock()


def traffic() -> Traffic:
    """Return the sums of this process; of two such, the difference is what came between them."""
    return _total


def count_traffic(more: Traffic) -> None:
    """Add to the sums of this process."""
    global _total
    with _lock:
        _total += more
