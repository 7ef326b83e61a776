"""Feature system vol: 87 scale-free features for forecasts of volatility, for intraday bars.

Every feature is free of scale or relative to the recent level of volatility, so that one model serves calm and volatile
times and all symbols. The level itself is left out, because a model would learn the years of its training by it. The
windows are the heterogeneous ones of Corsi (2009), from one bar to sixteen weeks.

p is the close, r its one-bar log return, s the reference volatility of one bar (`market.reference_volatility` with a
span of one week), k = ln(high / low)^2 / (4 ln 2) Parkinson's (1980) variance, v the volume, mean_w a mean over the
last w bars.
The parameter `day` is the number of bars per day D, at least 12: 24 for one hour, the default, or `vol:day=96` for 15
minutes. A week is W = 7 D.

Level of variance, w in 1, 2, 4, 8, D, 3D, W, 3W, 8W
- rv_<w>: ln(mean_w(r^2) / s^2 + 0.01)
- range_<w>: ln(mean_w(k) / s^2 + 0.003); Parkinson (1980)

The same, robust against single bars, which separates jumps from steady volatility; w from 2, and 16W
- abs_<w>: ln(mean_w(|r|) / s + 0.03)
- log_range_<w>: mean_w(ln(k / s^2 + 0.003))

Returns in units of volatility, k in 1, 2, 4, 8, D, 3D, W, 3W
- ret_<k>: ln(p_t / p_{t-k}) / (s sqrt(k)), bounded
- signed_<w>: mean_w(r |r|) / (mean_w(r^2) + 0.0001 s^2), in [-1, 1], w in 4, D, W, 8W; Barndorff-Nielsen et al. (2010)
- from_high, from_low: ln(p / highest high), ln(p / lowest low) of a week / (s sqrt(W)), bounded
- gap: ln(|ln(open / close before)| / s + 0.01)
- close_place: (2 p - high - low) / (high - low + 0.1 s p), in (-1, 1)

Bounded means x / sqrt(1 + (x / 6)^2), within 6.

Volume
- volume_<w>: ln(mean_w(v) / mean_W(v) + 0.01), w in 1, 2, 4, 8, D, 3D; for w in W, 3W the same to mean_8W(v)

Profiles: how much more than usual the bars ahead moved in the past, in logarithms of k; Andersen & Bollerslev (1997)
- of_week_<n>, of_day_<n>, of_recent_day_<n>: mean over the last 24 weeks at the same time of the week, over the last 84
  days at the same time of the day, and over the last 28 days; n = 0: at this bar; n = 1, 4, 12, D: mean over the n bars
  after this one. Usual is the mean of k over the week around a past bar; for the days, over the week before it.

Clock
- hour_sin<i>, hour_cos<i>, week_sin<i>, week_cos<i>: i waves over the UTC day, over the week from Monday, i = 1, 2, 3
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import talib
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.rolling import change, lagged, rolling_means
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.reference_volatility import reference_volatility
from bitcorn_ray.market.timeframe import UNIT_MS, period_offset

VERSION = 1

_WEEKS, _DAYS, _RECENT_DAYS = 24, 84, 28
_FEWEST = 12  # bars per day: the profile of as many bars ahead must lie within the day before
_TINY = 1e-30
_BOUND = 6.0

Array = NDArray[np.float64]


def warmup(*, day: int = 24) -> int:
    """Return the number of first bars without a complete row. Raises BitcornError for too few bars per day."""
    if not isinstance(day, int) or day < _FEWEST:
        raise BitcornError(
            f"vol is for intraday bars: day is {day!r} bars per day, give a whole number of at least {_FEWEST}"
        )
    week = 7 * day
    return _WEEKS * week + week // 2 + 1


def compute(bars: Bars, *, day: int = 24) -> dict[str, Array]:
    """Return the features of T bars, each (T,), NaN where a window is not full.

    day: bars per day. Raises BitcornError for bars without times.
    """
    if not bars.timed:
        raise BitcornError("vol needs the time of each bar: add a timestamp column")
    log_p = np.log(bars.close)
    r, s = change(log_p, 1), reference_volatility(log_p, 7 * day)
    parkinson = np.log(bars.high / bars.low) ** 2 / (4 * np.log(2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            **_variances(r, s, parkinson, day),
            **_returns(bars, log_p, r, s, day),
            **_volumes(bars.volume, day),
            **_profiles(bars.timestamp, parkinson, day, bars.grid_step()),
            **_clock(bars.timestamp),
        }


def _variances(r: Array, s: Array, parkinson: Array, day: int) -> dict[str, Array]:
    week, square = 7 * day, s * s
    windows = (1, 2, 4, 8, day, 3 * day, week, 3 * week, 8 * week)
    longer = (*windows[1:], 16 * week)
    squares, ranges = rolling_means(r * r, *windows), rolling_means(parkinson, *windows)
    absolute = rolling_means(np.abs(r), *longer)
    logarithms = rolling_means(np.log(parkinson / square + 0.003), *longer)
    return {
        **{f"rv_{w}": np.log(mean / square + 0.01) for w, mean in zip(windows, squares, strict=True)},
        **{f"range_{w}": np.log(mean / square + 0.003) for w, mean in zip(windows, ranges, strict=True)},
        **{f"abs_{w}": np.log(mean / s + 0.03) for w, mean in zip(longer, absolute, strict=True)},
        **{f"log_range_{w}": mean for w, mean in zip(longer, logarithms, strict=True)},
    }


def _returns(bars: Bars, log_p: Array, r: Array, s: Array, day: int) -> dict[str, Array]:
    week = 7 * day
    p, high, low = bars.close, bars.high, bars.low
    signed = (4, day, week, 8 * week)
    moved, squares = rolling_means(r * np.abs(r), *signed), rolling_means(r * r, *signed)
    unit = s * np.sqrt(week)
    return {
        **{
            f"ret_{k}": _bounded(change(log_p, k) / (s * np.sqrt(k)))
            for k in (1, 2, 4, 8, day, 3 * day, week, 3 * week)
        },
        **{f"signed_{w}": a / (b + 1e-4 * s * s) for w, a, b in zip(signed, moved, squares, strict=True)},
        "from_high": _bounded(np.log(p / talib.MAX(high, week)) / unit),
        "from_low": _bounded(np.log(p / talib.MIN(low, week)) / unit),
        "gap": np.log(np.abs(np.log(bars.open) - lagged(log_p, 1)) / s + 0.01),
        "close_place": (2.0 * p - high - low) / (high - low + 0.1 * s * p),
    }


def _bounded(x: Array) -> Array:
    return x / np.sqrt(1.0 + (x / _BOUND) ** 2)


def _volumes(volume: Array, day: int) -> dict[str, Array]:
    week = 7 * day
    short, long = (1, 2, 4, 8, day, 3 * day), (week, 3 * week)
    means = dict(zip((*short, *long, 8 * week), rolling_means(volume, *short, *long, 8 * week), strict=True))
    ratio = {w: means[w] / (means[week] + _TINY) for w in short} | {
        w: means[w] / (means[8 * week] + _TINY) for w in long
    }
    return {f"volume_{w}": np.log(value + 0.01) for w, value in ratio.items()}


def _profiles(timestamp: NDArray[np.int64], parkinson: Array, day: int, step: int) -> dict[str, Array]:
    """Return features of the past at the same times of the week and of the day; missing bars are left out there."""
    week, ahead = 7 * day, (1, 4, 12, day)
    row = (timestamp - timestamp[0]) // max(step, 1)
    length = int(row[-1]) + 1 + day

    def on_grid(x: Array) -> Array:
        out = np.full(length, np.nan)
        out[row] = x
        return out

    usual = rolling_means(parkinson, week)[0]
    of_days = on_grid(np.log(parkinson / (usual + _TINY) + 0.003))
    grid = on_grid(parkinson)
    of_weeks = np.log(grid / (_around(grid, week) + _TINY) + 0.003)
    recent, days = _trailing(of_days, day, (_RECENT_DAYS, _DAYS))
    (weeks,) = _trailing(of_weeks, week, (_WEEKS,))
    out = {}
    for name, profile in (("of_week", weeks), ("of_day", days), ("of_recent_day", recent)):
        out[f"{name}_0"] = profile[row]
        for n, mean in zip(ahead, rolling_means(profile, *ahead), strict=True):
            out[f"{name}_{n}"] = mean[row + n]
    return out


def _around(grid: Array, week: int) -> Array:
    """Return the mean over the week around each bar, NaN if less than half of it exists. It is used a week later."""
    half = week // 2
    width, there = 2 * half + 1, np.isfinite(grid)
    total, count = (rolling_means(x, width)[0] for x in (np.where(there, grid, 0.0), there.astype(np.float64)))
    mean = np.where(count * width >= half, total / np.where(count > 0, count, 1.0), np.nan)
    out = np.full(len(grid), np.nan)
    out[: len(grid) - half] = mean[half:]
    return out


def _trailing(x: Array, lag: int, counts: tuple[int, ...]) -> Iterator[Array]:
    """Yield the mean of the values lag, 2 lag, ... bars before, for each ascending count; 0 if none exists."""
    there = np.isfinite(x)
    known, weight = np.where(there, x, 0.0), there.astype(np.float64)
    total, count = np.zeros(len(x)), np.zeros(len(x))
    for k in range(1, counts[-1] + 1):
        if lag * k < len(x):
            total[lag * k :] += known[: -lag * k]
            count[lag * k :] += weight[: -lag * k]
        if k in counts:
            yield total / np.maximum(count, 1.0)


def _clock(timestamp: NDArray[np.int64]) -> dict[str, Array]:
    turns = {}
    for name, length in (("hour", UNIT_MS["d"]), ("week", UNIT_MS["w"])):
        turns[name] = 2.0 * np.pi / length * ((timestamp - period_offset(length)) % length)
    waves = {}
    for i in (1, 2, 3):
        for name, turn in turns.items():
            waves[f"{name}_sin{i}"], waves[f"{name}_cos{i}"] = np.sin(i * turn), np.cos(i * turn)
    return waves
