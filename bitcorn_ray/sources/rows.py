"""Rows as a file has them, before anything is known of what its columns mean: what every format gives.

A format is a function that opens a file as `RawRows`; `formats` finds the one that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from bitcorn_ray.sources.layouts import UNORDERED, ordered_prices

Read = Callable[[Sequence[str], Sequence[str]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class RawRows:
    """Rows as a file has them. names: of its columns.

    read: yields batches that have at least the given columns; call it once. Its first argument names those that have to
    be numbers, its second those that are wanted as they stand there, as text where the format is text.
    is_columnar: reading few columns costs less than reading all. ends: the number of rows, with the smallest and the
    largest value of a column, where the file says them without its rows being read, else None.
    """

    names: list[str]
    read: Read
    is_columnar: bool = False
    ends: Callable[[str], tuple[int, pa.Array] | None] = lambda name: None


def named_rows(names: list[str], read: Read, where: str) -> RawRows:
    """Rows whose names may be places; of the six of `UNORDERED`, the prices get the order that they turn out to have.

    names, read: as of `RawRows`; `layouts.named_places` names places. where: the file, for messages.
    """
    if names != list(UNORDERED):
        return RawRows(names, read)

    def ordered(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return ordered_prices(read(UNORDERED[1:], UNORDERED[:1]), where)

    return RawRows(["timestamp", "open", "high", "low", "close", "volume"], ordered)
