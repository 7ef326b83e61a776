"""Defects of single rows: their order, rows of one time, times off the grid, values that cannot be.

Times are int64 milliseconds UTC; T rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.bars import PRICE_COLUMNS, Bars

_ROUNDED_DECIMALS = range(9)

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Duplicates:
    """Rows whose time another row has too, each compared with the last stored row of that time.

    times: (D,) of the rows that are not the last. kind: (D,) as in `KINDS`: equal values; "rounding" (the same to the
    decimals that the coarser row has); "unfinished" (one is the other at an earlier moment: the same open, within its
    range, less volume); "conflict".
    """

    times: Rows
    kind: NDArray[np.str_]

    KINDS = ("equal", "rounding", "unfinished", "conflict")

    def counts(self) -> dict[str, int]:
        """Rows by kind."""
        return {kind: int((self.kind == kind).sum()) for kind in self.KINDS}


def find_order(timestamp: Rows) -> tuple[str, int]:
    """Return how rows are stored, `ascending` or `descending`, and how many stand against that order.

    >>> find_order(np.array([3, 2, 2, 5, 1]))
    ('descending', 1)
    """
    steps = np.diff(timestamp)
    rising, falling = int((steps > 0).sum()), int((steps < 0).sum())
    return ("descending", rising) if falling > rising else ("ascending", falling)


def find_duplicates(bars: Bars) -> Duplicates:
    """Compare rows of equal times; ``bars`` ascend in time, equal times in stored order."""
    times, n = bars.timestamp, len(bars)
    again = np.flatnonzero(np.diff(times) == 0)
    if len(again) == 0:
        return Duplicates(np.zeros(0, np.int64), np.zeros(0, "U10"))
    last_of_time = np.append(np.flatnonzero(np.diff(times) > 0), n - 1)
    kept = last_of_time[np.searchsorted(last_of_time, again)]
    one, other = bars.take(again), bars.take(kept)
    kind = np.full(len(again), "conflict", "U10")
    kind[_is_earlier(one, other) | _is_earlier(other, one)] = "unfinished"
    pairs = [(getattr(one, name), getattr(other, name)) for name in (*PRICE_COLUMNS, "volume")]
    kind[np.logical_and.reduce([_same_but_rounded(a, b) for a, b in pairs])] = "rounding"
    kind[np.logical_and.reduce([(a == b) | (np.isnan(a) & np.isnan(b)) for a, b in pairs])] = "equal"
    return Duplicates(times[again], kind)


def grid_phase(timestamp: Rows, step: int) -> int:
    """Return the most frequent place of times within a step: 0 for most, Monday for weeks, 8:00 for some days.

    >>> grid_phase(np.array([0, 3_600_000, 7_260_000]), 3_600_000)
    0
    """
    if len(timestamp) == 0 or step <= 0:
        return 0
    places, counts = np.unique(timestamp % step, return_counts=True)
    return int(places[counts.argmax()])


def value_defects(bars: Bars) -> dict[str, Mask]:
    """Mark the rows (T,) of which a value cannot be, by kind.

    missing_values: a value is no finite number. non_positive_prices: a price of 0 or less. negative_volume.
    ohlc_violations: high below, or low above, another price; a missing price violates nothing.
    """
    prices = [getattr(bars, name) for name in PRICE_COLUMNS]
    body_high, body_low = np.fmax(bars.open, bars.close), np.fmin(bars.open, bars.close)
    return {
        "missing_values": ~np.logical_and.reduce([np.isfinite(column) for column in (*prices, bars.volume)]),
        "non_positive_prices": np.logical_or.reduce([column <= 0 for column in prices]),
        "negative_volume": bars.volume < 0,
        "ohlc_violations": (bars.high < body_high) | (bars.low > body_low) | (bars.high < bars.low),
    }


def _is_earlier(one: Bars, other: Bars) -> Mask:
    """Tell where a row is another one at an earlier moment."""
    same_open = np.abs(one.open - other.open) <= 1e-6 * np.abs(other.open)
    earlier: Mask = same_open & (one.high <= other.high) & (one.low >= other.low) & (one.volume < 0.99 * other.volume)
    return earlier


def _same_but_rounded(one: NDArray[np.float64], other: NDArray[np.float64]) -> Mask:
    same: Mask = (one == other) | (np.isnan(one) & np.isnan(other))
    scale = 1e-12 * np.maximum(np.abs(one), np.abs(other))
    for decimals in _ROUNDED_DECIMALS:
        for coarse, fine in ((one, other), (other, one)):
            # The coarser of the two has no more decimals than it is rounded to, and half a unit away is both.
            is_coarse = np.abs(np.round(coarse, decimals) - coarse) <= scale
            near = np.abs(fine - coarse) <= 0.5000001 * 10.0**-decimals + scale
            same |= is_coarse & near & (np.abs(fine - coarse) <= 1e-2 * np.abs(fine))
    return same
