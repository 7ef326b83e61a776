"""Rows that seem to be bars of one partition, and are of several, told apart by a column that is none of ours.

A table without a symbol (or timeframe) column is taken for one symbol's (timeframe's). Where a column of another name
says it, rows of several markets stand at the same times, and one of them at random would win. So such a column is
looked for where 1 % of the rows stand at a time of another row:

1. It holds text or whole numbers, in fewer different values than there are rows for two each, and of the rows at one
   time hardly any share its value.
2. Of numbers the rows of one value follow each other, as those of a market do and those of a count (of trades) don't;
   and at most of these times there is a value of which a quarter of the rows stand beside others, as do those of a
   market, but not those of a page of a download that overlaps the next.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.sources.numbers import parse_numbers

_REPEATED, _LEFT, _BESIDE = 0.01, 0.1, 0.25
_SHOWN = 3


def repeats(times: NDArray[np.int64] | None) -> bool:
    """Tell whether so many of T times occur again that they may be those of several partitions."""
    if times is None:
        return False
    in_order = np.sort(times, kind="stable")  # linear where they are in order, as most are
    return bool(np.count_nonzero(in_order[1:] == in_order[:-1]) > _REPEATED * len(times))


def mixture(places: NDArray[np.int64], columns: Mapping[str, pa.Array | pa.ChunkedArray], where: str) -> str | None:
    """Say in an error's words which column tells T rows apart that stand at one place; None where none does.

    places: (T,) equal for rows of one time, and of one symbol and timeframe as far as these are known. columns: (T,)
    further columns by name; those of other types than text and integers count for nothing. where: the rows are, for
    the message.
    """
    _, places, rows_at = np.unique(places, return_inverse=True, return_counts=True)
    repeated = len(places) - len(rows_at)
    for name, column in columns.items() if repeats(places) else ():
        encoded = pc.dictionary_encode(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
        values = encoded.dictionary
        if not _may_be_names(values.type) or not 2 <= len(values) <= len(places) // 2:
            continue
        codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False) + 1
        left = len(places) - len(np.unique(places * (len(values) + 1) + codes))
        if left > _LEFT * repeated:
            continue
        if parse_numbers(values)[1].any() or (_follow(places, codes) and _beside(places, codes, rows_at > 1)):
            shown = ", ".join(map(repr, values[:_SHOWN].to_pylist()))
            return (
                f"{repeated:,} of {len(places):,} rows of {where} stand at the time of another row, and column {name} "
                f"({shown}, ...) tells them apart: say what it is by --map symbol={name} or timeframe={name}, keep the "
                "rows of one value, or, where they are of one market, say which one counts by --clean duplicates=last"
            )
    return None


def _may_be_names(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))


def _follow(places: NDArray[np.int64], codes: NDArray[np.int64]) -> bool:
    """Tell whether most of the rows (T,) that have a value stand at the place after another one's of the same value."""
    places, codes = places[codes > 0], codes[codes > 0]
    order = np.lexsort((places, codes))
    next_one = (np.diff(codes[order]) == 0) & (np.diff(places[order]) == 1)
    return 2 * int(next_one.sum()) >= len(places)


def _beside(places: NDArray[np.int64], codes: NDArray[np.int64], several: NDArray[np.bool_]) -> bool:
    """Tell whether most of the places with several rows have one of a value that often stands at such places."""
    of_value = np.bincount(codes, several[places]) >= _BESIDE * np.bincount(codes)
    there = np.unique(places[several[places] & of_value[codes]])
    return 2 * len(there) >= int(several.sum())
