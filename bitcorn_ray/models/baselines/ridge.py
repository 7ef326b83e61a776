"""Ridge regression on the features: what a linear model makes of what the network sees.

One regression a horizon for the return, and one for the log variance, on the features standardised by the fitting rows.
The penalty of each is the one that predicts best the last fifth of the fitting rows when fitted on those before, purged
by the horizon; then all fitting rows are used. exp of a log variance is made a mean as in `har`, and never leaves the
range of the fitting rows, as a far-off feature would otherwise make it absurd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.folds import holdout
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.baselines.har import log_variance_floor
from bitcorn_ray.models.baselines.history import fitting_rows

__all__ = ["PENALTIES", "Ridge", "ridge_forecasts"]

Float = NDArray[np.float64]
Rows = NDArray[np.int64]

# In units of a standardised feature's own weight, 1: from next to nothing to next to no regression.
PENALTIES = tuple(float(penalty) for penalty in np.logspace(-6, 3, 19))


@dataclass(frozen=True, kw_only=True, eq=False)
class Ridge:
    """Forecasts (N, H) of ridge regressions: returns, variances; and the penalties (H) that were chosen for each."""

    returns: Float
    variances: Float
    return_penalties: tuple[float, ...]
    variance_penalties: tuple[float, ...]


def ridge_forecasts(
    features: NDArray[np.floating], outcome: Float, realised: Float, horizons: Sequence[int], fit: Rows, test: Rows
) -> Ridge:
    """Forecast return and variance of the h bars after each of the rows `test` from the features (T, F) of that row.

    outcome, realised: (T, H) log returns and variances that came, NaN where not known; only those of rows of `fit`
    whose horizon ends within `fit` are looked at. Rows with a feature that is NaN are not fitted on, and have NaN
    forecasts. Raises BitcornError where too few rows are left to fit on.
    """
    if features.ndim != 2 or len(features) != len(outcome):
        raise BitcornError(f"features have shape {features.shape}: one row for each of the {len(outcome)} bars")
    returns, variances = np.empty((2, len(test), len(horizons)))
    chosen = []
    for j, horizon in enumerate(horizons):
        rows = fitting_rows(fit, horizon, features, outcome[:, j], realised[:, j])
        log_variance = np.log(realised[rows, j] + log_variance_floor(float(realised[rows, j].mean()) / horizon))
        y = np.column_stack([outcome[rows, j], log_variance])
        x, at_test = _standardised(features, rows, test)
        picked = _penalties(x, y, rows, horizon)
        coefficients, levels = _regress(x, y)
        return_beta, variance_beta = (coefficients[k, :, number] for k, number in enumerate(picked))
        return_level, variance_level = (levels[k, 0, number] for k, number in enumerate(picked))
        returns[:, j] = at_test @ return_beta + return_level
        low, high = log_variance.min(), log_variance.max()
        fitted = np.exp(np.clip(x @ variance_beta + variance_level, low, high))
        predicted = np.exp(np.clip(at_test @ variance_beta + variance_level, low, high))
        variances[:, j] = predicted * (realised[rows, j] / fitted).mean()
        chosen.append([PENALTIES[number] for number in picked])
    return Ridge(
        returns=returns,
        variances=variances,
        return_penalties=tuple(picked[0] for picked in chosen),
        variance_penalties=tuple(picked[1] for picked in chosen),
    )


def _standardised(features: NDArray[np.floating], rows: Rows, test: Rows) -> tuple[Float, Float]:
    x = features[rows].astype(np.float64)
    mean, scale = x.mean(0), x.std(0)
    scale[scale <= 1e-12 * np.abs(mean)] = 1.0  # a constant
    return (x - mean) / scale, (features[test].astype(np.float64) - mean) / scale


def _penalties(x: Float, y: Float, rows: Rows, horizon: int) -> list[int]:
    """Numbers of the penalties for the columns of y that do best on the last fifth of the rows."""
    first, last = (np.searchsorted(rows, part) for part in holdout(rows, 0.2, horizon))
    coefficients, levels = _regress(x[first], y[first])
    misses = x[last] @ coefficients + levels - y[last].T[:, :, None]  # (K, N, A)
    best: list[int] = (misses**2).mean(1).argmin(1).tolist()
    return best


def _regress(x: Float, y: Float) -> tuple[Float, Float]:
    """Ridge regressions of the columns of y (N, K) on x (N, F) with all A penalties, from one decomposition.

    Returns coefficients (K, F, A) and intercepts (K, 1, A): x @ coefficients + intercepts predicts (K, N, A).
    """
    centre, level = x.mean(0), y.mean(0)
    centred = x - centre
    spread, axes = np.linalg.eigh(centred.T @ centred / len(x))
    moments = axes.T @ (centred.T @ (y - level)) / len(x)
    coefficients = axes @ (moments.T[:, :, None] / (spread[:, None] + np.array(PENALTIES)))
    return coefficients, level[:, None, None] - (centre @ coefficients)[:, None, :]
