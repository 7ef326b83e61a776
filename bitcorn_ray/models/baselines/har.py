"""Log-HAR: regressions of log variance on its own past at several speeds (Corsi 2009), the hardest baselines to beat.

1. Inputs at a row: ln of the mean squared one-bar return over the last 1, 4, 24 and 168 bars. The strong HAR adds the
   same of the Parkinson variance, and the usual variance of the hours ahead:
2. the profile of the week is the mean, by slot of the week, of a bar's ln Parkinson variance less that of its last 168
   bars; ahead of a row it is averaged over the slots of the h bars to come.
3. Ordinary least squares of ln of the realised variance, one regression a horizon, on the fitting rows.
4. exp of the fitted line is a median rather than a mean: it is multiplied by the mean ratio of realised variance to it
   over the fitting rows.

The windows are of bars, whatever the timeframe, and one of a whole week is added where that is more than 168 bars. A
slot is a bar's position in the week, at least 15 minutes long; from daily bars on there is no profile. Logarithms are
of the variance plus a floor, as a bar may have no variance: 1e-9, or a ten-thousandth of the mean variance of the
fitting rows' bars where that is less, so that a quiet market is forecast as well as a wild one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.models.baselines.history import (
    BaselineConfig,
    Features,
    FitSample,
    Float,
    Forecast,
    History,
    Parameters,
    PartitionModel,
    Rows,
    fitting_rows,
)

_FLOOR, _FLOOR_SHARE = 1e-9, 1e-4
_WEEK_MS, _DAY_MS, _QUARTER_MS = 7 * 86_400_000, 86_400_000, 900_000
_WINDOWS = (1, 4, 24, 168)


@dataclass(frozen=True, kw_only=True)
class HARConfig(BaselineConfig):
    """A log-HAR for each partition."""

    kind: Literal["har"] = "har"


@dataclass(frozen=True, kw_only=True)
class StrongHARConfig(BaselineConfig):
    """A log-HAR with Parkinson variances and the profile of the week, for each partition."""

    kind: Literal["strong_har"] = "strong_har"


def fit_har(
    history: History, realised: Float, horizons: Sequence[int], fit: Rows, *, strong: bool = False
) -> dict[str, Any]:
    """Fit a log-HAR on the rows ``fit``, ascending.

    realised: (T, H) variances, NaN where they are not known; only those whose horizon ends within ``fit`` are used.
    Rows before the longest window is full are not fitted on.
    Return floor, added before a logarithm; coefficients (H, K); factors (H,) that make a median a mean; and profile, of
    the slots of the week, empty from daily bars on.
    Raises BitcornError if too few rows are left to fit on.
    """
    floor = log_variance_floor(float((history.returns[fit] ** 2).mean()) if len(fit) else 0.0)
    profile = np.empty(0)
    if strong and history.timeframe_ms < _DAY_MS:
        profile = _profile(history, windows_of(history.timeframe_ms)[-1], fit, floor)
    design = _base_design(history, floor, strong)
    coefficients, factors = list[Any](), list[float]()
    for j, horizon in enumerate(horizons):
        x, y = _with_profile(design, history, profile, horizon), realised[:, j]
        rows = fitting_rows(fit, horizon, x, y)
        beta = np.linalg.lstsq(x[rows], np.log(y[rows] + floor), rcond=None)[0]
        coefficients.append(beta)
        factors.append(float((y[rows] / np.exp(x[rows] @ beta)).mean()))
    return {
        "floor": floor,
        "coefficients": np.array(coefficients),
        "factors": np.array(factors),
        "profile": profile,
    }


def har_variances(
    history: History, horizons: Sequence[int], rows: Rows, parameters: Parameters, *, strong: bool = False
) -> Float:
    """Return the variance (N, H) of the h bars after some rows (N,), NaN until the longest window is full.

    parameters: of `fit_har`.
    """
    design = _base_design(history, float(parameters["floor"]), strong)
    result = np.empty((len(rows), len(horizons)))
    for j, horizon in enumerate(horizons):
        x = _with_profile(design, history, parameters["profile"], horizon)
        result[:, j] = np.exp(x[rows] @ parameters["coefficients"][j]) * parameters["factors"][j]
    return result


def log_variance_floor(variance: float) -> float:
    """Return what is added before a logarithm. variance: mean of one bar, over the fitting rows."""
    return max(min(_FLOOR, _FLOOR_SHARE * variance), float(np.finfo(np.float64).tiny))


def windows_of(timeframe_ms: int) -> tuple[int, ...]:
    """Return the windows in bars: 1, 4, 24, 168, and a week if that is longer."""
    week = _WEEK_MS // timeframe_ms
    return (*_WINDOWS, week) if week > _WINDOWS[-1] else _WINDOWS


class HAR(PartitionModel):
    """Returns of zero, and the variance of a log-HAR."""

    Config: ClassVar[Any] = HARConfig
    title: ClassVar[str] = "log-HAR"
    strong: ClassVar[bool] = False

    def fit_partition(self, sample: FitSample) -> tuple[Parameters, str | None]:
        """Return the regressions of a partition."""
        history = History.of(sample.bars)
        return fit_har(history, sample.variances, self.config.horizons, sample.rows, strong=self.strong), None

    def predict_partition(self, bars: PartitionBars, features: Features, rows: Rows, fitted: Parameters) -> Forecast:
        """Return the forecasts of the regressions."""
        return 0.0, har_variances(History.of(bars), self.config.horizons, rows, fitted, strong=self.strong)

    def history_needed(self, step: int) -> int:
        """Return the longest window, and a bar before it for its first return."""
        return windows_of(step)[-1] + 1


class StrongHAR(HAR):
    """The same with Parkinson variances and the profile of the week."""

    Config = StrongHARConfig
    title: ClassVar[str] = "strong HAR"
    strong: ClassVar[bool] = True


def _log_mean(x: Float, window: int, floor: float) -> Float:
    # A rolling sum of non-negative numbers may come out slightly below zero.
    result: Float = np.log(np.maximum(pd.Series(x).rolling(window).mean().to_numpy(), 0.0) + floor)
    return result


def _base_design(history: History, floor: float, strong: bool) -> Float:
    """Return the inputs (T, K) that are the same for all horizons."""
    windows = windows_of(history.timeframe_ms)
    variances = [history.returns**2, *([history.parkinson] if strong else [])]
    columns = [_log_mean(variance, window, floor) for variance in variances for window in windows]
    return np.column_stack([np.ones(len(history.close)), *columns])


def _with_profile(design: Float, history: History, profile: Float, horizon: int) -> Float:
    """Return the inputs with the mean profile of the slots of the h bars after each row, if there is a profile."""
    if len(profile) == 0:
        return design
    total = np.zeros(len(history.close))
    for step in range(1, horizon + 1):
        total += profile[_slots(history, step)]
    return np.column_stack([design, total / horizon])


def _slots(history: History, bars_ahead: int) -> Rows:
    """Return the slot of the week (T,) of the bar so many bars after each row."""
    width = max(history.timeframe_ms, _QUARTER_MS)
    slots: Rows = (history.timestamps + bars_ahead * history.timeframe_ms) % _WEEK_MS // width
    return slots


def _profile(history: History, window: int, fit: Rows, floor: float) -> Float:
    """Return the mean excess of ln Parkinson variance by slot of the week, over the fitting rows."""
    slots = -(-_WEEK_MS // max(history.timeframe_ms, _QUARTER_MS))
    rows = np.arange(fit[0], fit[-1] + 1) if len(fit) else fit
    excess = (np.log(history.parkinson + floor) - _log_mean(history.parkinson, window, floor))[rows]
    known = np.isfinite(excess)
    own = _slots(history, 0)[rows][known]
    sums = np.bincount(own, weights=excess[known], minlength=slots)
    return sums / np.maximum(np.bincount(own, minlength=slots), 1)  # an unseen slot has the mean variance
