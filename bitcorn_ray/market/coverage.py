"""How much of each day and month is covered by bars, between the first and the last one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DAY = 86_400_000


@dataclass(frozen=True)
class DayCoverage:
    """D days in a row, UTC.

    first_day: days since 1970. expected: (D,) bars that begin on each day. there: (D,) how many of them are there and
    not invented.
    """

    first_day: int
    expected: NDArray[np.int64]
    there: NDArray[np.int64]


def cover_days(times: NDArray[np.int64], counts: NDArray[np.bool_], step: int) -> DayCoverage:
    """Count bars a day. times: (T,) rising, on a grid of ``step`` ms. counts: (T,) which of them are real bars."""
    if len(times) == 0 or step <= 0:
        return DayCoverage(0, np.zeros(0, np.int64), np.zeros(0, np.int64))
    first, last = int(times[0]) // _DAY, int(times[-1]) // _DAY
    edges = np.arange(first, last + 2) * _DAY
    # How many places of the grid lie before each midnight, from the first bar to the last one.
    before = np.clip(-(-(edges - times[0]) // step), 0, (int(times[-1]) - int(times[0])) // step + 1)
    there = np.bincount(times[counts] // _DAY - first, minlength=len(edges) - 1)
    return DayCoverage(first, np.diff(before), np.minimum(there, np.diff(before)))


def cover_months(days: DayCoverage) -> list[dict[str, Any]]:
    """Sum days to months: `month` (YYYY-MM), `expected`, `there` and `share` of each that expects bars."""
    if len(days.expected) == 0:
        return []
    dates = np.arange(days.first_day, days.first_day + len(days.expected)).view("M8[D]").astype("M8[M]")
    first = dates[0].astype(np.int64)
    index = dates.astype(np.int64) - first
    expected = np.bincount(index, weights=days.expected).astype(np.int64).tolist()
    there = np.bincount(index, weights=days.there).astype(np.int64).tolist()
    return [
        {"month": str(np.datetime64(int(first + n), "M")), "expected": e, "there": t, "share": round(t / e, 4)}
        for n, (e, t) in enumerate(zip(expected, there, strict=True))
        if e
    ]
