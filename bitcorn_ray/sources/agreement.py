"""Checks of bars against what names say of them: the order of prices, and the distance of times."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import PRICE_COLUMNS, Bars, modal_step
from bitcorn_ray.market.timeframe import UNIT_MS, stored_step, timeframe_of_ms

_FEW_ROWS, _FEW_STEPS, _MANY_STEPS = 3, 4, 20


def require_ordered_prices(bars: Bars, columns: Mapping[str, str], mapping: Mapping[str, str], where: str) -> None:
    """Raise BitcornError if in most bars the high is not the highest or the low not the lowest price.

    Bars without a high or low are left out. columns: our names to the stored ones. mapping: the user's; prices in it
    are believed. where: the source.
    """
    if not {*PRICE_COLUMNS}.isdisjoint(mapping):
        return
    open, high, low, close = (bars.columns()[name] for name in PRICE_COLUMNS)
    # Zeros stand for prices that do not exist, as in candles of funding rates; `quality` reports them.
    known = np.isfinite(open + close + high) & (low > 0) & (high > 0)
    wrong = known & ((high < np.maximum(open, close)) | (low > np.minimum(open, close)))
    if known.sum() < _FEW_ROWS or 2 * wrong.sum() <= known.sum():
        return
    row = int(wrong.argmax())
    shown = ", ".join(f"{columns[name]} {bars.columns()[name][row]:g}" for name in PRICE_COLUMNS)
    confirmed = ",".join(f"{name}={columns[name]}" for name in PRICE_COLUMNS)
    raise BitcornError(
        f"the prices of {where} contradict their columns in {int(wrong.sum()):,} of {int(known.sum()):,} rows, as in "
        f"{shown}: say which column is which, or confirm these by --map {confirmed}"
    )


def require_steps(times: NDArray[np.int64], timeframe: str, where: str) -> None:
    """Raise BitcornError if bars are closer together than their timeframe, or all on the grid of a longer one.

    times: (T,) ms, in any order. where: what is named for the timeframe. Outages and closed markets leave distances
    that are multiples of the timeframe, of which some are odd.
    """
    times = np.unique(times)
    steps, length = np.diff(times), stored_step(timeframe)
    if length is None or len(steps) < _FEW_STEPS:
        return
    too_close = np.mean(steps <= length // 2) > 0.5
    if too_close or (len(steps) >= _MANY_STEPS and np.gcd.reduce(steps) >= 2 * length):
        step = modal_step(times)
        shown = timeframe_of_ms(step) if step % UNIT_MS["m"] == 0 else f"{step / 1000:g} s"
        raise BitcornError(
            f"{where} is named for {timeframe} bars, but most of its bars are {shown} apart: rename it, or ingest it "
            f"with --timeframe {shown}"
        )
