"""Baselines fitted and asked in one call, for tests of their forecasts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.market.outcomes import outcomes
from bitcorn_ray.models.baselines import garch, har, ridge, simple


def bars_of(history, name="X"):
    """Return a history as the bars of a partition."""
    return PartitionBars(
        symbol=name,
        timeframe="1h",
        timestamp=history.timestamps,
        step=history.timeframe_ms,
        close=history.close,
        high=history.high,
        low=history.low,
    )


def realised_returns(close, horizons):
    return outcomes(close, horizons)[0]


def realised_variances(close, horizons):
    return outcomes(close, horizons)[1]


def constant_variance(realised, horizons, fit, test):
    return np.tile(simple.constant_variance(realised, horizons, fit), (len(test), 1))


def log_har(history, realised, horizons, fit, test, strong=False):
    return har.har_variances(
        history, horizons, test, har.fit_har(history, realised, horizons, fit, strong=strong), strong=strong
    )


def strong_har(history, realised, horizons, fit, test):
    return log_har(history, realised, horizons, fit, test, strong=True)


class Garch(NamedTuple):
    variances: np.ndarray
    omega: float
    alpha: float
    beta: float
    problem: str | None


def garch_variance(history, horizons, fit, test):
    fitted, problem = garch.fit_garch(history, fit)
    variances = garch.garch_variances(history, horizons, test, fitted)
    return Garch(variances, fitted["omega"], fitted["alpha"], fitted["beta"], problem)


class Ridge(NamedTuple):
    returns: np.ndarray
    variances: np.ndarray
    return_penalties: tuple
    variance_penalties: tuple


def ridge_forecasts(features, outcome, realised, horizons, fit, test):
    fitted = ridge.fit_ridge(features, outcome, realised, horizons, fit)
    penalties = (tuple(fitted[name].tolist()) for name in ("return_penalty", "variance_penalty"))
    return Ridge(*ridge.ridge_forecasts(features[test], fitted), *penalties)
