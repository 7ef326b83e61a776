"""Bars of a higher timeframe out of those of a lower one.

open first, high max, low min, close last, volume sum; of further columns those that count something (volumes, trades)
are summed, and of others (open interest, a rate) the last value stays. Boundaries are fixed in time: days from midnight
UTC, weeks from Monday. A higher bar is complete when every lower bar in it is there; one that is cut by where the bars
begin or end, or that has a gap, is not, and is dropped or marked: its open, close and volume are not what the exchange
says.
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

    complete: (N,) all the lower bars are there. dropped: how many incomplete bars were left out.
    """

    bars: Bars
    complete: NDArray[np.bool_]
    dropped: int


def resample_bars(bars: Bars, timeframe: str, to: str, *, incomplete: str = "drop") -> Resampled:
    """Put T bars of ``timeframe`` together to bars of ``to``.

    incomplete: "drop" leaves incomplete bars out, "mark" keeps them, marked in `complete`.
    A missing (NaN) price or volume makes the higher bar's missing too.
    Raises BitcornError for bars without times, out of order, twice or off the grid, and for a timeframe that is no
    multiple of theirs.
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
    _require_grid(bars, times, step, offset, timeframe)
    # Rows are found by the boundaries, of which there are few, not boundaries by the rows.
    first = int(times[0]) - (int(times[0]) - offset) % length
    edges = np.arange(first, int(times[-1]) + length + 1, length, dtype=np.int64)
    rows = np.searchsorted(times, edges)
    counts = np.diff(rows)
    there = counts > 0
    counts = counts[there]
    higher = merge_bars(bars, rows[:-1][there], edges[:-1][there])
    complete = counts == length // step
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


def _require_grid(bars: Bars, times: NDArray[np.int64], step: int, offset: int, timeframe: str) -> None:
    steps = np.diff(times)
    uneven = steps != step
    if (int(times[0]) - offset) % step == 0 and not (steps[uneven] % step).any():
        return
    astray = (times - offset) % step != 0
    row = int(astray.argmax())
    raise BitcornError(
        f"{int(astray.sum())} of {len(bars)} bars are off the {timeframe} grid, first at {bars.describe(row)}: "
        "clean the bars first (clean_bars drops these or snaps them)"
    )


def base_timeframe(stored: Sequence[str], wanted: str) -> str | None:
    """Return the longest stored timeframe of which a wanted one is a whole multiple; None where there is none.

    >>> base_timeframe(["1m", "1h", "1d"], "4h")
    '1h'

    Raises BitcornError where the wanted one is no timeframe.
    """
    length, lengths = timeframe_ms(wanted), dict[int, str]()
    for timeframe in stored:
        try:
            lengths.setdefault(timeframe_ms(timeframe), timeframe)
        except BitcornError:  # stored under a name that is no timeframe, such as a month
            continue
    fitting = [each for each in lengths if each <= length and length % each == 0]
    return lengths[max(fitting)] if fitting else None


def derived_partitions(stored: Iterable[Partition], timeframes: Sequence[str] | None) -> list[Partition]:
    """Partitions of asked timeframes that are not stored but can be put together from stored ones, sorted.

    timeframes: in any spelling; None asks for those that are stored. Raises BitcornError for one that is none.

    >>> [(str(each), each.base) for each in derived_partitions([Partition("BTC", "1h")], ["1h", "4h"])]
    [('BTC 4h', '1h')]
    """
    by_symbol: dict[str, list[Partition]] = {}
    for partition in stored:
        if partition.base is None:
            by_symbol.setdefault(normalise_symbol(partition.symbol), []).append(partition)
    found = set()
    for wanted in timeframes or ():
        for partitions in by_symbol.values():
            if any(same_timeframe(each.timeframe, wanted) for each in partitions):
                continue
            if base := base_timeframe([each.timeframe for each in partitions], wanted):
                symbol = next(each.symbol for each in partitions if each.timeframe == base)
                found.add(Partition(symbol, wanted.strip().lower(), base))
    return sorted(found)
