"""Windows as indices into one (T, F) matrix.

A window is named by the row of its last bar, its end: it holds the seq_len rows up to there, and its targets look at
the longest horizon's rows after it. It is valid where, over all these rows, no bar is missing, every feature is finite
and every close is a positive number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

__all__ = ["WindowIndex", "gather_windows", "require_horizons", "window_index"]

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class WindowIndex:
    """Valid windows by their end rows (N,), ascending, and how many were left out for which reason."""

    ends: Rows
    left_out: dict[str, int]

    def require_any(self) -> None:
        """Raise BitcornError where no window is left."""
        if len(self.ends) == 0:
            reasons = ", ".join(f"{count} for {reason}" for reason, count in self.left_out.items() if count)
            raise BitcornError(f"no valid window is left ({reasons}): fill the gaps or take a shorter seq_len")


def require_horizons(horizons: list[int] | tuple[int, ...], seq_len: int, rows: int) -> None:
    """Raise BitcornError for impossible lengths, and for fewer rows than one window and its targets need."""
    if seq_len < 1:
        raise BitcornError(f"seq_len is {seq_len}: it must be at least 1")
    if not horizons or min(horizons) < 1 or len(set(horizons)) != len(horizons):
        raise BitcornError(f"horizons are {list(horizons)}: give different whole numbers of bars, each at least 1")
    need = seq_len + max(horizons)
    if rows < need:
        raise BitcornError(
            f"{rows} rows of features are too few: seq_len {seq_len} and horizon {max(horizons)} need at least {need}"
        )


def window_index(
    *,
    finite: Mask,
    usable_close: Mask,
    gap_before: Mask | None,
    seq_len: int,
    horizon: int,
    barred_ends: Mask | None = None,
) -> WindowIndex:
    """Find the valid windows among T rows; those left out are counted under the first reason that holds.

    finite: (T,) every feature of the row is finite. usable_close: (T,) the close is positive.
    gap_before: (T,) a bar is missing between the row and the one before; None treats rows as neighbours.
    barred_ends: (T,) rows at which no window may end, as they were interpolated from a later bar.
    """
    ends = np.arange(seq_len - 1, len(finite) - horizon, dtype=np.int64)
    first, last = ends - seq_len + 1, ends + horizon
    reasons: dict[str, Mask] = {}
    if gap_before is not None:
        # The first row of a window may follow a gap; any later row, to the end of the target, may not.
        reasons["gap"] = _any_in(gap_before, first + 1, last)
    if barred_ends is not None:
        reasons["end_in_interpolated_gap"] = barred_ends[ends]
    reasons["non_finite_features"] = _any_in(~finite, first, ends)
    reasons["unusable_close"] = _any_in(~usable_close, ends, last)
    valid = np.ones(len(ends), dtype=bool)
    left_out = {}
    for reason, hit in reasons.items():
        left_out[reason] = int((valid & hit).sum())
        valid &= ~hit
    return WindowIndex(ends[valid], left_out)


def gather_windows(matrix: NDArray[Any], ends: Rows, seq_len: int) -> NDArray[Any]:
    """Windows (N, L, F) of a (T, F) matrix: a read-only view where the ends follow one another, else one gather."""
    consecutive = len(ends) > 0 and ends[-1] - ends[0] + 1 == len(ends)
    if consecutive:
        view: NDArray[Any] = np.lib.stride_tricks.sliding_window_view(matrix, seq_len, axis=0).transpose(0, 2, 1)
        start = int(ends[0]) - seq_len + 1
        return view[start : start + len(ends)]
    gathered: NDArray[Any] = matrix[ends[:, None] + np.arange(1 - seq_len, 1)]
    return gathered


def _any_in(mask: Mask, first: Rows, last: Rows) -> Mask:
    """Tell whether any of mask[first..last] is true, both ends included."""
    count = np.concatenate(([0], np.cumsum(mask)))
    return count[last + 1] > count[first]
