"""Resample bars to a higher timeframe.

open first, high max, low min, close last, volume sum; further columns that count events (volumes, trades) are summed,
others (open interest, a rate) keep the last value. Periods are fixed in time: days start at midnight UTC, weeks on
Monday. A higher bar is complete if all its lower bars exist. An incomplete one, at either end or with a gap, has
another open, close or volume than the exchange reports: it is dropped or marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, require_chronology
from bitcorn_ray.market.clean import is_summed
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import period_offset, same_timeframe, timeframe_ms


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """N bars of the higher timeframe.

    complete: (N,) mask of bars with all lower bars. dropped: number of dropped incomplete bars.
    """

    bars: Bars
    complete: NDArray[np.bool_]
    dropped: int


def resample_bars(bars: Bars, timeframe: str, to: str, *, incomplete: str = "drop") -> Resampled:
    """Resample T bars of ``timeframe`` to bars of ``to``.

    incomplete: "drop" drops incomplete bars, "mark" keeps them, marked in `complete`.
    A missing (NaN) price or volume makes the higher bar's missing too.
    Raises BitcornError for bars without times, for times out of order, repeated or off the grid, and if ``to`` is no
    multiple of ``timeframe``.
    """
    if incomplete not in ("drop", "mark"):
        raise BitcornError(f"incomplete is {incomplete!r}: use 'drop' or 'mark'")
    step, length = timeframe_ms(timeframe), timeframe_ms(to)
    if length % step:
        raise BitcornError(f"{to} bars cannot be made of {timeframe} bars: give a multiple of {timeframe}")
    if not bars.timed:
        raise BitcornError("bars without times cannot be resampled: add a timestamp column")
    times = bars.timestamp
    require_chronology(times)
    if len(bars) == 0:
        return Resampled(bars=bars, complete=np.zeros(0, bool), dropped=0)
    offset = period_offset(length)
    off_grid = (times - offset) % step != 0
    if off_grid.any():
        raise BitcornError(
            f"{int(off_grid.sum())} of {len(bars)} bars are off the {timeframe} grid, first at "
            f"{bars.describe(int(off_grid.argmax()))}: clean the bars first (clean_bars drops these or snaps them)"
        )
    # Search the few edges among the rows, not each row's edge.
    first = int(times[0]) - (int(times[0]) - offset) % length
    edges = np.arange(first, int(times[-1]) + length + 1, length, dtype=np.int64)
    rows = np.searchsorted(times, edges)
    counts = np.diff(rows)
    filled = counts > 0
    higher = merge_bars(bars, rows[:-1][filled], edges[:-1][filled])
    complete = counts[filled] == length // step
    if incomplete == "mark":
        return Resampled(bars=higher, complete=complete, dropped=0)
    return Resampled(bars=higher.take(complete), complete=complete[complete], dropped=int((~complete).sum()))


def merge_bars(bars: Bars, starts: NDArray[np.int64], opened: NDArray[np.int64]) -> Bars:
    """Merge T bars, all of them, into N higher bars.

    starts: (N,) row of the first bar of each, ascending from 0. opened: (N,) time at which each opens, in ms.
    """
    last = np.append(starts[1:], len(bars)) - 1
    return Bars(
        timestamp=opened,
        open=bars.open[starts],
        high=np.maximum.reduceat(bars.high, starts),
        low=np.minimum.reduceat(bars.low, starts),
        close=bars.close[last],
        volume=np.add.reduceat(bars.volume, starts),
        extra={
            name: np.add.reduceat(column, starts) if is_summed(name) else column[last]
            for name, column in bars.extra.items()
        },
    )


def base_timeframe(stored: Sequence[str], wanted: str) -> str | None:
    """Return the longest stored timeframe that divides the wanted one, or None.

    >>> base_timeframe(["1m", "1h", "1d"], "4h")
    '1h'

    Raises BitcornError if the wanted one is no timeframe.
    """
    length, lengths = timeframe_ms(wanted), dict[int, str]()
    for timeframe in stored:
        try:
            lengths.setdefault(timeframe_ms(timeframe), timeframe)
        except BitcornError:  # not a fixed length, such as a month
            continue
    divisors = [divisor for divisor in lengths if length % divisor == 0]
    return lengths[max(divisors)] if divisors else None


def derived_partitions(stored: Iterable[Partition], timeframes: Sequence[str] | None) -> list[Partition]:
    """Return the partitions of requested timeframes that are not stored but can be resampled from stored ones, sorted.

    timeframes: in any spelling; None requests the stored ones. Raises BitcornError for an unknown timeframe.

    >>> [(str(derived), derived.base) for derived in derived_partitions([Partition("BTC", "1h")], ["1h", "4h"])]
    [('BTC 4h', '1h')]
    """
    by_symbol: dict[str, list[Partition]] = {}
    for partition in stored:
        if partition.base is None:
            by_symbol.setdefault(normalise_symbol(partition.symbol), []).append(partition)
    found = set()
    for wanted in timeframes or ():
        for partitions in by_symbol.values():
            if any(same_timeframe(partition.timeframe, wanted) for partition in partitions):
                continue
            if base := base_timeframe([partition.timeframe for partition in partitions], wanted):
                symbol = next(partition.symbol for partition in partitions if partition.timeframe == base)
                found.add(Partition(symbol, wanted.strip().lower(), base))
    return sorted(found)
