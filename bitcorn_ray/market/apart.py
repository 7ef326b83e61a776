"""Rows that seem to be bars of one partition, and are of several, told apart by a column that is none of ours.

A table without a symbol (or timeframe) column is taken for one symbol's (timeframe's). Where a column of another name
says it, rows of several markets stand at the same times, and one of them at random would win. So such a column is
looked for where 1 % of the rows stand at a time of another row: it holds text, in fewer different values than there are
rows for two each, and of the rows at one time hardly any share its value.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.market.numbers import parse_numbers

__all__ = ["mixture", "repeats"]

_REPEATED, _LEFT = 0.01, 0.1
_SHOWN = 3


def repeats(times: NDArray[np.int64]) -> bool:
    """Tell whether so many of T times occur again that they may be those of several partitions."""
    in_order = np.sort(times, kind="stable")  # linear where they are in order, as most are
    return bool(np.count_nonzero(in_order[1:] == in_order[:-1]) > _REPEATED * len(times))


def mixture(places: NDArray[np.int64], columns: Mapping[str, pa.Array | pa.ChunkedArray], where: str) -> str | None:
    """Say in an error's words which column tells T rows apart that stand at one place; None where none does.

    places: (T,) equal for rows of one time, and of one symbol and timeframe as far as these are known. columns: (T,)
    further columns by name; those that are no text count for nothing. where: the rows are, for the message.
    """
    _, places = np.unique(places, return_inverse=True)
    repeated = len(places) - 1 - int(places.max(initial=-1))
    for name, column in columns.items() if repeats(places) else ():
        encoded = pc.dictionary_encode(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
        values = encoded.dictionary
        is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
        if not is_text or not 2 <= len(values) <= len(places) // 2:
            continue
        codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False) + 1
        left = len(places) - len(np.unique(places * (len(values) + 1) + codes))
        if left <= _LEFT * repeated and parse_numbers(values)[1].any():
            shown = ", ".join(map(repr, values[:_SHOWN].to_pylist()))
            return (
                f"{repeated:,} of {len(places):,} rows of {where} stand at the time of another row, and column {name} "
                f"({shown}, ...) tells them apart: say what it is by --map symbol={name} or timeframe={name}, or keep "
                "the rows of one value"
            )
    return None
