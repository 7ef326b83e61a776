"""Stretches of time in which nothing was traded: because nobody wanted to trade, or because nobody could.

A silent run is a stretch of the grid whose bars are missing or have no volume. A market that omits bars without a trade
is silent often, and shortly; a market that always trades falls silent only when its exchange, or the feed, is down.
Let m be the number of other silent runs among the 1,000 steps from traded bar to traded bar before a run and the 1,000
after it, and q the share of silent bars among the nearest 100 on each side (other runs count with at most 5 bars each,
and one silent bar is taken for granted). The run is a lack of trade where m is at least 3 and 0.5 % of these steps, and
its length n has a chance of q^n > 1e-6, otherwise an outage. Bars without volume in an outage are invented.

Where no bar has volume, volume was not recorded, and only missing bars are silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.bars import Bars

_FAR, _NEAR, _COUNTED, _CHANCE = 1_000, 100, 5, 1e-6
_FEW, _RARE = 3, 0.005


@dataclass(frozen=True)
class SilentRuns:
    """R silent runs in order of time, each an array (R,).

    start: ms UTC of the first silent bar. length: in bars. missing: how many have no row; the others have no volume.
    outage: see the module.
    """

    start: NDArray[np.int64]
    length: NDArray[np.int64]
    missing: NDArray[np.int64]
    outage: NDArray[np.bool_]

    def silent_bars(self, outage: bool, missing: bool) -> int:
        """Count the silent bars of one kind that are missing, or that are there without volume."""
        bars = self.missing if missing else self.length - self.missing
        return int(bars[self.outage == outage].sum())


def silent_runs(bars: Bars, step: int) -> SilentRuns:
    """Find the silent runs between the first and the last bar; ``bars`` have rising times, on a grid of ``step`` ms.

    Bars without volume at the very beginning or end are runs too.
    """
    times, n = bars.timestamp, len(bars)
    if n == 0 or step <= 0:
        empty = np.zeros(0, np.int64)
        return SilentRuns(empty, empty, empty, np.zeros(0, bool))
    silent = bars.volume == 0 if (bars.volume != 0).any() else np.zeros(n, bool)
    # Bars just outside stand for a market that traded before the first and after the last bar.
    traded = np.r_[times[0] - step, times[~silent], times[-1] + step]
    rows_before = np.r_[-1, np.flatnonzero(~silent), n]
    gaps = -(-np.diff(traded) // step) - 1  # of a gap that is no multiple of the step, what would have fitted
    runs = np.flatnonzero(gaps > 0)
    start, length = traded[runs] + step, gaps[runs]
    there = np.diff(rows_before)[runs] - 1
    return SilentRuns(start, length, np.maximum(length - there, 0), _is_outage(gaps, runs))


def joined_rows(bars: Bars, step: int, runs: SilentRuns) -> NDArray[np.bool_]:
    """Mark the rows (T,) that follow their predecessor with no outage, of missing or invented bars, between them."""
    joined = np.diff(bars.timestamp, prepend=bars.timestamp[0]) == step
    # Where nobody wanted to trade, the market goes on from where it was.
    gaps = np.flatnonzero(np.diff(bars.timestamp) > step)
    run = np.searchsorted(runs.start, bars.timestamp[gaps] + step, side="right") - 1
    joined[gaps[~runs.outage[run]] + 1] = True
    invented = invented_rows(bars, runs, step)
    follows: NDArray[np.bool_] = joined & ~invented & ~np.append(False, invented[:-1])
    return follows


def invented_rows(bars: Bars, runs: SilentRuns, step: int) -> NDArray[np.bool_]:
    """Mark the rows (T,) without volume that lie in an outage."""
    invented = np.zeros(len(bars), bool)
    starts = np.searchsorted(bars.timestamp, runs.start[runs.outage])
    ends = np.searchsorted(bars.timestamp, (runs.start + runs.length * step)[runs.outage])
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        invented[start:end] = True
    return invented


def _is_outage(gaps: NDArray[np.int64], runs: NDArray[np.int64]) -> NDArray[np.bool_]:
    counted = np.concatenate(([0], np.cumsum(np.minimum(gaps, _COUNTED))))
    events = np.concatenate(([0], np.cumsum(gaps > 0)))
    others = _sum_around(events, runs, _FAR) - 1
    silent = _sum_around(counted, runs, _NEAR) - np.minimum(gaps[runs], _COUNTED) + 1
    links = _sum_around(np.arange(len(gaps) + 1), runs, _NEAR)
    # By logarithms: the chance of a long run is below what a float can be.
    impossible = gaps[runs] * np.log(silent / (silent + links)) < np.log(_CHANCE)
    steps = _sum_around(np.arange(len(gaps) + 1), runs, _FAR)
    outage: NDArray[np.bool_] = (others < np.maximum(_FEW, _RARE * steps)) | impossible
    return outage


def _sum_around(running: NDArray[np.int64], places: NDArray[np.int64], reach: int) -> NDArray[np.int64]:
    """Sums over the neighbours of some places, themselves included, out of a running sum that begins with 0."""
    last = len(running) - 1
    return running[np.minimum(places + reach + 1, last)] - running[np.maximum(places - reach, 0)]
