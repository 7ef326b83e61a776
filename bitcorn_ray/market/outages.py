"""Silent runs: times without a trade, because of an outage or because nobody wanted to trade.

A silent run is a stretch of the grid whose bars are missing or have no volume. A market that omits bars without a trade
has many short ones; a market that always trades has one only when its exchange, or the feed, is down.
Let m be the number of other silent runs among the 1,000 steps from traded bar to traded bar before a run and the 1,000
after it, and q the share of silent bars among the nearest 100 on each side (other runs count with at most 5 bars each,
and one silent bar is always assumed). The run is a lack of trade if m is at least 3 and 0.5 % of these steps, and the
probability q^n of its length n is above 1e-6; otherwise it is an outage. Bars without volume in an outage are invented.

If no bar has volume, volume was not recorded, and only missing bars are silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.bars import Bars, missing_bars

_FAR, _NEAR, _COUNTED, _CHANCE = 1_000, 100, 5, 1e-6
_FEW, _RARE = 3, 0.005

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SilentRuns:
    """R silent runs in order of time; each array is (R,).

    start: ms UTC of the first silent bar. length: in bars. missing: bars without a row; the others have no volume.
    outage: True for an outage, False for a lack of trade.
    """

    start: Rows
    length: Rows
    missing: Rows
    outage: Mask


def silent_runs(bars: Bars, step: int) -> SilentRuns:
    """Return the silent runs between the first and the last bar; ``bars`` have rising times, on a grid of ``step`` ms.

    Bars without volume at the very beginning or end are runs too.
    """
    times, n = bars.timestamp, len(bars)
    if n == 0 or step <= 0:
        empty = np.zeros(0, np.int64)
        return SilentRuns(empty, empty, empty, np.zeros(0, bool))
    silent = bars.volume == 0 if (bars.volume != 0).any() else np.zeros(n, bool)
    # The market is assumed to have traded before the first bar and after the last one.
    traded = np.r_[times[0] - step, times[~silent], times[-1] + step]
    rows_before = np.r_[-1, np.flatnonzero(~silent), n]
    gaps = missing_bars(traded, step)
    runs = np.flatnonzero(gaps > 0)
    length = gaps[runs]
    there = np.diff(rows_before)[runs] - 1
    return SilentRuns(traded[runs] + step, length, np.maximum(length - there, 0), _is_outage(gaps, runs))


def continuous_rows(bars: Bars, step: int, runs: SilentRuns) -> Mask:
    """Mark the rows (T,), T > 0, with no outage between them and the row before that are not invented themselves."""
    steps = np.diff(bars.timestamp)
    continuous: Mask = np.append(False, steps == step)
    # Without demand for trade, the market continues from its last price.
    gaps = np.flatnonzero(steps > step)
    run = np.searchsorted(runs.start, bars.timestamp[gaps] + step, side="right") - 1
    continuous[gaps[~runs.outage[run]] + 1] = True
    invented = invented_rows(bars, runs, step)
    continuous &= ~invented & ~np.append(False, invented[:-1])
    return continuous


def invented_rows(bars: Bars, runs: SilentRuns, step: int) -> Mask:
    """Mark the rows (T,) without volume in an outage."""
    invented = np.zeros(len(bars), bool)
    starts = np.searchsorted(bars.timestamp, runs.start[runs.outage])
    ends = np.searchsorted(bars.timestamp, (runs.start + runs.length * step)[runs.outage])
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        invented[start:end] = True
    return invented


def _is_outage(gaps: Rows, runs: Rows) -> Mask:
    counted = np.concatenate(([0], np.cumsum(np.minimum(gaps, _COUNTED))))
    events = np.concatenate(([0], np.cumsum(gaps > 0)))
    others = _sum_around(events, runs, _FAR) - 1
    silent = _sum_around(counted, runs, _NEAR) - np.minimum(gaps[runs], _COUNTED) + 1
    links = _sum_around(np.arange(len(gaps) + 1), runs, _NEAR)
    # In logarithms, because the probability of a long run underflows.
    improbable = gaps[runs] * np.log(silent / (silent + links)) < np.log(_CHANCE)
    steps = _sum_around(np.arange(len(gaps) + 1), runs, _FAR)
    outage: Mask = (others < np.maximum(_FEW, _RARE * steps)) | improbable
    return outage


def _sum_around(cumulative: Rows, centres: Rows, reach: int) -> Rows:
    """Return sums from `reach` values before to `reach` after each centre. cumulative: sums that start with 0."""
    last = len(cumulative) - 1
    return cumulative[np.minimum(centres + reach + 1, last)] - cumulative[np.maximum(centres - reach, 0)]
