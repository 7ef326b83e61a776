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


def log_har(history, realised, horizons, fit, test):
    return har.fit_har(history, realised, horizons, fit).variances(history, test)


def strong_har(history, realised, horizons, fit, test):
    return har.fit_har(history, realised, horizons, fit, strong=True).variances(history, test)


class Garch(NamedTuple):
    variances: np.ndarray
    omega: float
    alpha: float
    beta: float
    converged: bool
    message: str


def garch_variance(history, horizons, fit, test):
    fitted = garch.fit_garch(history, fit)
    parameters = (getattr(fitted, name) for name in Garch._fields[1:])
    return Garch(fitted.variances(history, horizons, test), *parameters)


class Ridge(NamedTuple):
    returns: np.ndarray
    variances: np.ndarray
    return_penalties: tuple
    variance_penalties: tuple


def ridge_forecasts(features, outcome, realised, horizons, fit, test):
    fitted = ridge.fit_ridge(features, outcome, realised, horizons, fit)
    penalties = (tuple(fitted.return_penalty.tolist()), tuple(fitted.variance_penalty.tolist()))
    return Ridge(*fitted.predict(features[test]), *penalties)
