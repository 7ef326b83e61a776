"""Closed bars of higher timeframes for each own bar, without look-ahead.

1. The bars are resampled to the higher timeframe on boundaries that are fixed in time: days from midnight UTC, weeks
   from Monday. A missing bar inside is ignored.
2. A higher bar is closed when its period has ended. The own bar with open time t ends at t + step. It sees the higher
   bars that end at or before that, so the newest of them may end together with it. It never sees an open one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.resample import merge_bars
from bitcorn_ray.market.timeframe import period_offset, timeframe_ms, timeframe_of_ms


def require_context(context: Sequence[str], step: int | None) -> None:
    """Raise BitcornError unless a context is a list of different timeframes, each a multiple of the step above it."""
    lengths = [timeframe_ms(timeframe) for timeframe in context]
    if len(set(lengths)) < len(lengths):
        raise BitcornError(f"context {', '.join(context)} names a timeframe twice: name each once")
    for timeframe, length in zip(context, lengths, strict=True):
        if step and (length <= step or length % step):
            raise BitcornError(
                f"context {timeframe} does not fit bars of {timeframe_of_ms(step)}: give a multiple of their timeframe"
            )


def context_name(feature: str, timeframe: str) -> str:
    """Return the name of a feature of a higher timeframe.

    >>> context_name("rsi", "4h")
    'rsi_4h'
    """
    return f"{feature}_{timeframe}"


def context_reach(warmup: int, step: int, timeframe: str) -> int:
    """Return how many own bars contain `warmup` + 1 closed higher bars, wherever they start."""
    return (warmup + 2) * (timeframe_ms(timeframe) // step)


def closed_bars(bars: Bars, step: int, timeframe: str) -> Bars:
    """Return the whole bars of the higher timeframe: they start within these bars and end with the last one at latest.

    Raises BitcornError for bars without times.
    """
    if not bars.timed:
        raise BitcornError("a context of higher timeframes needs the time of each bar: add a timestamp column")
    if (near := np.diff(bars.timestamp) < step).any():
        row = int(near.argmax()) + 1
        raise BitcornError(
            f"the bar at {bars.describe(row)} starts before the previous one has ended: a context needs bars that are "
            f"at least {timeframe_of_ms(step)} apart"
        )
    if len(bars) == 0:
        return replace(bars, extra={})
    length = timeframe_ms(timeframe)
    label = bars.timestamp - (bars.timestamp - period_offset(length)) % length
    starts = np.flatnonzero(np.diff(label, prepend=label[0] - 1))
    opened, last = label[starts], bars.timestamp[-1] + step
    # The first may lack bars from before these, unless these start with it.
    whole = (opened + length <= last) & ((np.arange(len(starts)) > 0) | (bars.timestamp[starts] == opened))
    return merge_bars(replace(bars, extra={}), starts, opened).take(whole)


def last_closed(bars: Bars, higher: Bars, step: int, timeframe: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the row of the newest higher bar that has closed when each bar ends, (T,), and if there is one, (T,)."""
    closes = higher.timestamp + timeframe_ms(timeframe)
    rows = np.searchsorted(closes, bars.timestamp + step, side="right") - 1
    return rows, rows >= 0
