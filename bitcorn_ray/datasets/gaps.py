"""Filling short gaps with bars that were never traded, on the timeframe's grid.

"forward" repeats the bar before the gap. "linear" interpolates between the bars around it: its values know the bar
after the gap, so a window that ended on one of them would look ahead; `interpolated` marks them for `window_index`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

__all__ = ["FilledRows", "fill_gaps", "gap_before"]

STRATEGIES = ("forward", "linear")


@dataclass(frozen=True)
class FilledRows:
    """Rows with short gaps filled.

    timestamp (T,) int64 ms; values (T, C); source_row (T,): the given row, or for a filled one the row before its gap;
    filled (T,): the row was made here.
    """

    timestamp: NDArray[np.int64]
    values: NDArray[np.float64]
    source_row: NDArray[np.int64]
    filled: NDArray[np.bool_]


def gap_before(timestamp: NDArray[np.int64], step: int) -> NDArray[np.bool_]:
    """Mark each row that does not lie one step after the row before: (T,). One closer by is off the grid."""
    return np.concatenate(([False], np.diff(timestamp) != step))


def fill_gaps(
    timestamp: NDArray[np.int64],
    values: NDArray[np.float64],
    step: int,
    strategy: str,
    max_gap_size: int | None = None,
) -> FilledRows:
    """Fill gaps of at most ``max_gap_size`` missing bars (None: all) in ascending rows.

    timestamp: (T,) int64 ms; values: (T, C); step: the timeframe in ms.
    Raises BitcornError for an unknown strategy or a size below 1.
    """
    if strategy not in STRATEGIES:
        raise BitcornError(f"fill_gaps_strategy is {strategy!r}: use None, 'forward' or 'linear'")
    if max_gap_size is not None and max_gap_size < 1:
        raise BitcornError(f"max_gap_size is {max_gap_size}: it must be at least 1, or None for any size")
    distance = np.diff(timestamp)
    missing = np.where(distance % step == 0, distance // step - 1, 0)
    if max_gap_size is not None:
        missing[missing > max_gap_size] = 0
    copies = np.concatenate((1 + missing, [1]))  # each row stands for itself and for the bars missing after it
    source_row = np.repeat(np.arange(len(timestamp)), copies)
    position = np.arange(len(source_row)) - np.repeat(np.cumsum(copies) - copies, copies)
    filled = position > 0
    out = values[source_row]
    if strategy == "linear" and filled.any():
        before = source_row[filled]
        share = (position[filled] / (missing[before] + 1))[:, None]
        out[filled] = values[before] + share * (values[before + 1] - values[before])
    return FilledRows(timestamp[source_row] + position * step, out, source_row, filled)
