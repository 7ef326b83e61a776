"""Find the column that tells apart rows of one time, where a file or table holds several markets as if they were one.

A table without a symbol (or timeframe) column is taken for one symbol (timeframe). If a column with an unknown name
holds it, rows of several markets share their times, and a random one of them would win. If 1 % of the rows share
their time with another row, such a column is searched for:

1. It holds text or whole numbers, with fewer different values than half the rows, and of the rows at one time hardly
   any share its value.
2. If it holds numbers, the rows of one value follow each other in time, as those of a market do, and those of a count
   of trades do not. And most of the shared times have a value of which a quarter of the rows share their time, as those
   of a market do, and those of overlapping pages of a download do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import PRICE_COLUMNS, Bars, show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.numbers import parse_numbers

_REPEATED, _LEFT, _SHARED = 0.01, 0.1, 0.25
_EXAMPLES = 3


def require_agreement(partition: Partition, parts: Sequence[tuple[str, Bars]]) -> None:
    """Raise BitcornError if files of one partition have different prices at one time.

    parts: each file, as shown, with its bars, ascending in time.
    """
    parts = sorted((part for part in parts if len(part[1])), key=lambda part: int(part[1].timestamp[0]))
    for index, (shown, bars) in enumerate(parts):
        for other, others in parts[:index]:
            if others.timestamp[-1] < bars.timestamp[0]:
                continue
            _, ours, theirs = np.intersect1d(bars.timestamp, others.timestamp, return_indices=True)
            differ = np.zeros(len(ours), bool)
            for name in PRICE_COLUMNS:
                differ |= getattr(bars, name)[ours] != getattr(others, name)[theirs]
            if differ.any():
                row = int(differ.argmax())
                raise BitcornError(
                    f"{other} and {shown} both hold {partition} at {show_time(bars.timestamp[ours[row]])}, and "
                    f"{int(differ.sum()):,} of {len(ours):,} common bars differ (close {others.close[theirs[row]]:g} "
                    f"and {bars.close[ours[row]]:g}): keep one of them, or, if they are of one market, choose one row "
                    "by --clean duplicates=last"
                )


def has_repeated_times(times: NDArray[np.int64] | None) -> bool:
    """Return True if so many of T times occur again that they may belong to several partitions."""
    if times is None:
        return False
    in_order = np.sort(times, kind="stable")  # linear if they are in order, as most are
    return bool(np.count_nonzero(in_order[1:] == in_order[:-1]) > _REPEATED * len(times))


def find_key_column(
    slots: NDArray[np.int64], columns: Mapping[str, pa.Array | pa.ChunkedArray], where: str
) -> str | None:
    """Return an error message that names the column which tells apart T rows of one slot; None if there is none.

    slots: (T,) equal for rows of one time, and of one symbol and timeframe as far as these are known. columns: (T,)
    further columns by name; only text and integers count. where: name of the file or table.
    """
    _, slots, rows_of_slot = np.unique(slots, return_inverse=True, return_counts=True)
    repeated = len(slots) - len(rows_of_slot)
    for name, column in columns.items() if has_repeated_times(slots) else ():
        encoded = pc.dictionary_encode(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
        values = encoded.dictionary
        if not _may_be_names(values.type) or not 2 <= len(values) <= len(slots) // 2:
            continue
        codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False) + 1
        left = len(slots) - len(np.unique(slots * (len(values) + 1) + codes))
        if left > _LEFT * repeated:
            continue
        are_names = parse_numbers(values)[1].any()
        if are_names or (_form_series(slots, codes) and _share_slots(slots, codes, rows_of_slot > 1)):
            shown = ", ".join(map(repr, values[:_EXAMPLES].to_pylist()))
            return (
                f"{repeated:,} of {len(slots):,} rows of {where} have the time of another row, and column {name} "
                f"({shown}, ...) tells them apart: say what it is by --map symbol={name} or timeframe={name}, keep the "
                "rows of one value, or, if they are of one market, choose one row by --clean duplicates=last"
            )
    return None


def _may_be_names(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))


def _form_series(slots: NDArray[np.int64], codes: NDArray[np.int64]) -> bool:
    """Return True if most of the rows (T,) that have a value follow a row of the same value in the slot before."""
    slots, codes = slots[codes > 0], codes[codes > 0]
    order = np.lexsort((slots, codes))
    follows = (np.diff(codes[order]) == 0) & (np.diff(slots[order]) == 1)
    return 2 * int(follows.sum()) >= len(slots)


def _share_slots(slots: NDArray[np.int64], codes: NDArray[np.int64], shared: NDArray[np.bool_]) -> bool:
    """Return True if most shared slots have a row of a value that is often in shared slots."""
    often = np.bincount(codes, shared[slots]) >= _SHARED * np.bincount(codes)
    explained = np.unique(slots[shared[slots] & often[codes]])
    return 2 * len(explained) >= int(shared.sum())
