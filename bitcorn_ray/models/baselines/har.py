"""Log-HAR: regressions of log variance on its own past at several speeds (Corsi 2009), the hardest baselines to beat.

1. Inputs at a row: ln of the mean squared one-bar return over the last 1, 4, 24 and 168 bars. `strong_har` adds the
   same of the Parkinson variance, and how busy the hours ahead usually are:
2. the profile of the week is the mean, by slot of the week, of a bar's ln Parkinson variance less that of its last 168
   bars; ahead of a row it is averaged over the slots of the h bars to come.
3. Ordinary least squares of ln of the realised variance, one regression a horizon, on the fitting rows.
4. exp of the fitted line is a median rather than a mean: it is multiplied by the mean ratio of realised variance to it
   over the fitting rows.

The windows are of bars, whatever the timeframe, and one of a whole week is added where that is more than 168 bars. A
slot is a bar's place in the week, 15 minutes at least; from daily bars on there is no profile. Logarithms are of the
variance plus a floor, as a bar may stand still: 1e-9, or a ten-thousandth of the mean variance of the fitting rows'
bars where that is less, so that a quiet market is forecast as well as a wild one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bitcorn_ray.models.baselines.history import History, fitting_rows

__all__ = ["log_har", "log_variance_floor", "strong_har"]

Float = NDArray[np.float64]
Rows = NDArray[np.int64]

_FLOOR, _FLOOR_SHARE = 1e-9, 1e-4
_WEEK_MS, _DAY_MS, _QUARTER_MS = 7 * 86_400_000, 86_400_000, 900_000
_WINDOWS = (1, 4, 24, 168)


def log_har(history: History, realised: Float, horizons: Sequence[int], fit: Rows, test: Rows) -> Float:
    """Forecast the variance (N, H) of the h bars after each of the rows `test` by log-HAR of squared returns.

    realised: (T, H) variances that came, NaN where not known; only those of rows of `fit` whose horizon ends within
    `fit` are looked at. fit, test: rows, ascending. Rows before the longest window is full are not fitted on and have
    NaN forecasts. Raises BitcornError where too few rows are left to fit on.
    """
    floor = _floor(history, fit)
    design = _design(history.returns**2, _windows(history), floor)
    return _each(lambda horizon: design, realised, horizons, fit, test, floor)


def strong_har(history: History, realised: Float, horizons: Sequence[int], fit: Rows, test: Rows) -> Float:
    """Forecast as `log_har`, with Parkinson variances and, within the day, the profile of the week besides."""
    windows, floor = _windows(history), _floor(history, fit)
    design = np.hstack([_design(history.returns**2, windows, floor), _design(history.parkinson, windows, floor)[:, 1:]])
    if history.timeframe_ms >= _DAY_MS:
        return _each(lambda horizon: design, realised, horizons, fit, test, floor)
    ahead = _profile_ahead(history, windows[-1], fit, floor)
    return _each(lambda horizon: np.column_stack([design, ahead(horizon)]), realised, horizons, fit, test, floor)


def log_variance_floor(variance: float) -> float:
    """What is added before a logarithm is taken. variance: mean of one bar, over rows that are fitted on."""
    return max(min(_FLOOR, _FLOOR_SHARE * variance), float(np.finfo(np.float64).tiny))


def _floor(history: History, fit: Rows) -> float:
    return log_variance_floor(float((history.returns[fit] ** 2).mean()) if len(fit) else 0.0)


def _windows(history: History) -> tuple[int, ...]:
    week = _WEEK_MS // history.timeframe_ms
    return (*_WINDOWS, week) if week > _WINDOWS[-1] else _WINDOWS


def _log_mean(x: Float, window: int, floor: float) -> Float:
    # A rolling sum of what is not negative may come out a little below zero.
    result: Float = np.log(np.maximum(pd.Series(x).rolling(window).mean().to_numpy(), 0.0) + floor)
    return result


def _design(variance: Float, windows: Sequence[int], floor: float) -> Float:
    return np.column_stack([np.ones(len(variance)), *(_log_mean(variance, window, floor) for window in windows)])


def _profile_ahead(history: History, window: int, fit: Rows, floor: float) -> Callable[[int], Float]:
    """A function from a horizon to the mean (T,) of the profile over the slots of the h bars after each row."""
    width = max(history.timeframe_ms, _QUARTER_MS)
    slots = -(-_WEEK_MS // width)

    def slot(bars_ahead: int) -> Rows:
        result: Rows = (history.timestamps + bars_ahead * history.timeframe_ms) % _WEEK_MS // width
        return result

    rows = np.arange(fit[0], fit[-1] + 1) if len(fit) else fit
    excess = (np.log(history.parkinson + floor) - _log_mean(history.parkinson, window, floor))[rows]
    known = np.isfinite(excess)
    counts = np.bincount(slot(0)[rows][known], minlength=slots)
    sums = np.bincount(slot(0)[rows][known], weights=excess[known], minlength=slots)
    profile = sums / np.maximum(counts, 1)  # a slot that was never seen is as busy as any other

    def ahead(horizon: int) -> Float:
        total = np.zeros(len(history.close))
        for step in range(1, horizon + 1):
            total += profile[slot(step)]
        return total / horizon

    return ahead


def _each(
    design: Callable[[int], Float], realised: Float, horizons: Sequence[int], fit: Rows, test: Rows, floor: float
) -> Float:
    variances = np.empty((len(test), len(horizons)))
    for j, horizon in enumerate(horizons):
        x, y = design(horizon), realised[:, j]
        rows = fitting_rows(fit, horizon, x, y)
        beta = np.linalg.lstsq(x[rows], np.log(y[rows] + floor), rcond=None)[0]
        bias = (y[rows] / np.exp(x[rows] @ beta)).mean()
        variances[:, j] = np.exp(x[test] @ beta) * bias
    return variances
