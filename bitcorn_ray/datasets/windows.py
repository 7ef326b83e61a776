"""Windows as indices into one (T, F) matrix, and the one rule that says which windows are valid.

A window is named by its end, the row of its last bar. It holds the seq_len rows up to its end, and its targets look at
the longest horizon's rows after it. A window is valid if, over all these rows, no bar is missing, and if every feature
of its own rows is finite and every close from its end on is a positive number. A window that is used for a forecast has
no targets yet: its horizon is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


class WindowOptions(Protocol):
    """The options of a model that decide its windows. Every model configuration has them.

    horizons: bars ahead that are forecast. seq_len: rows of a window. reference_span: bars over which the reference
    volatility decays, that targets are relative to; 0 for none.
    """

    @property
    def horizons(self) -> tuple[int, ...]:
        """Return the horizons in bars."""

    @property
    def seq_len(self) -> int:
        """Return the rows of a window."""

    @property
    def reference_span(self) -> int:
        """Return the decay of the reference volatility in bars, 0 for none."""


@dataclass(frozen=True)
class WindowIndex:
    """The end rows (N,) of valid windows, ascending, and the number of excluded windows by reason."""

    ends: Rows
    left_out: dict[str, int]

    def require_any(self) -> None:
        """Raise BitcornError if no window is valid."""
        if len(self.ends) == 0:
            reasons = ", ".join(f"{count} for {reason}" for reason, count in self.left_out.items() if count)
            raise BitcornError(
                f"no valid window is left ({reasons}): fill the gaps, or use a shorter seq_len or horizons"
            )


def require_lengths(horizons: Sequence[int], seq_len: int) -> None:
    """Raise BitcornError for impossible horizons or an impossible length of a window."""
    if not horizons or min(horizons) < 1 or len(set(horizons)) != len(horizons):
        raise BitcornError(f"horizons are {list(horizons)}: give distinct whole numbers of bars, each at least 1")
    if seq_len < 1:
        raise BitcornError(f"seq_len is {seq_len}: it must be at least 1")


def require_rows(horizons: Sequence[int], seq_len: int, rows: int) -> None:
    """Raise BitcornError for fewer rows than one window and its targets need."""
    need = seq_len + max(horizons)
    if rows < need:
        raise BitcornError(
            f"{rows} rows of features are too few: seq_len {seq_len} and horizon {max(horizons)} need at least {need}"
        )


def gap_before(timestamp: Rows, step: int) -> Mask:
    """Mark each row (T,) that does not follow the previous one by exactly one step, in ms; the first is unmarked."""
    return np.concatenate(([False], np.diff(timestamp) != step))


def window_defects(
    ends: Rows,
    *,
    seq_len: int,
    horizon: int = 0,
    gaps: Mask | None = None,
    excluded: Mask | None = None,
    filled: Mask | None = None,
    finite: Mask | None = None,
    usable_close: Mask | None = None,
) -> dict[str, Mask]:
    """Return, by reason, which of the windows that end at the rows ``ends`` (N,) are invalid for it: (N,) each.

    gaps: (T,) a bar is missing before the row, see `gap_before`; the first row of a window may follow a gap.
    excluded: (T,) rows at which no window may end, as their bars were filled from later ones. filled: (T,) rows whose
    bars were filled in, which are in no target, as they were not traded. finite: (T,) every
    feature of the row is finite. usable_close: (T,) the close is a positive number. A check is left out where its mask
    is None. Every window must lie within the T rows.
    """
    first, last = ends - seq_len + 1, ends + horizon
    defects: dict[str, Mask] = {}
    if gaps is not None:
        defects["gap"] = _any_between(gaps, first + 1, last)
    if excluded is not None:
        defects["end_in_interpolated_gap"] = excluded[ends]
    if filled is not None and horizon:
        defects["filled_outcome"] = _any_between(filled, ends + 1, last)
    if finite is not None:
        defects["non_finite_features"] = _any_between(~finite, first, ends)
    if usable_close is not None:
        defects["unusable_close"] = _any_between(~usable_close, ends, last)
    return defects


def window_index(*, rows: int, seq_len: int, horizon: int, **masks: Mask | None) -> WindowIndex:
    """Find the valid windows among T rows; an excluded window is counted under the first reason that holds.

    masks: as `window_defects` takes them.
    """
    ends = np.arange(seq_len - 1, rows - horizon, dtype=np.int64)
    valid = np.ones(len(ends), dtype=bool)
    left_out = {}
    for reason, defect in window_defects(ends, seq_len=seq_len, horizon=horizon, **masks).items():
        left_out[reason] = int((valid & defect).sum())
        valid &= ~defect
    return WindowIndex(ends[valid], left_out)


def gather_windows(matrix: NDArray[Any], ends: Rows, seq_len: int) -> NDArray[Any]:
    """Return the windows (N, L, F) of a (T, F) matrix: a read-only view if the ends are consecutive, else a copy."""
    consecutive = len(ends) > 0 and ends[-1] - ends[0] + 1 == len(ends)
    if consecutive:
        view: NDArray[Any] = np.lib.stride_tricks.sliding_window_view(matrix, seq_len, axis=0).transpose(0, 2, 1)
        start = int(ends[0]) - seq_len + 1
        return view[start : start + len(ends)]
    gathered: NDArray[Any] = matrix[ends[:, None] + np.arange(1 - seq_len, 1)]
    return gathered


def _any_between(mask: Mask, first: Rows, last: Rows) -> Mask:
    """Return True where any of mask[first..last] is True, both ends included."""
    count = np.concatenate(([0], np.cumsum(mask)))
    return count[last + 1] > count[first]
