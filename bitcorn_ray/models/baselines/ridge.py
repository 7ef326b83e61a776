"""Ridge regression on the features: the linear baseline of the network.

One regression a horizon for the return, and one for the log variance, on the features standardised by the fitting rows.
The penalty of each is the one that predicts best the last fifth of the fitting rows when fitted on those before, purged
by the horizon; then all fitting rows are used. exp of a log variance is made a mean as in `har`, and stays within the
range of the fitting rows, as an extreme feature would otherwise make it absurd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, Literal

import numpy as np

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.datasets.folds import holdout
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.baselines.har import log_variance_floor
from bitcorn_ray.models.baselines.history import (
    BaselineConfig,
    Features,
    FitSample,
    Float,
    Forecast,
    Parameters,
    PartitionModel,
    Rows,
    fitting_rows,
)

# In units of a standardised feature's own weight, 1: from next to nothing to next to no regression.
PENALTIES = tuple(float(penalty) for penalty in np.logspace(-6, 3, 19))


@dataclass(frozen=True, kw_only=True)
class RidgeConfig(BaselineConfig):
    """Ridge regressions for each partition."""

    kind: Literal["ridge"] = "ridge"


def fit_ridge(
    features: Features, outcome: Float, realised: Float, horizons: Sequence[int], fit: Rows
) -> dict[str, Float]:
    """Fit the regressions on the rows ``fit``, ascending.

    features: (T, F). outcome, realised: (T, H) log returns and variances, NaN where they are not known; only those
    whose horizon ends within ``fit`` are used. Rows with a feature that is NaN are not fitted on.
    Return mean and scale (H, F) of the features; return_beta and variance_beta (H, F), return_level and variance_level
    (H,) of the return and the log variance; low and high (H,), the range of the log variance; factor (H,) that makes a
    median a mean; and return_penalty and variance_penalty (H,), the selected ones.
    Raises BitcornError if too few rows are left to fit on.
    """
    if features.ndim != 2 or len(features) != len(outcome):
        raise BitcornError(f"features have shape {features.shape}: give one row for each of the {len(outcome)} bars")
    fitted = []
    for j, horizon in enumerate(horizons):
        rows = fitting_rows(fit, horizon, features, outcome[:, j], realised[:, j])
        log_variance = np.log(realised[rows, j] + log_variance_floor(float(realised[rows, j].mean()) / horizon))
        y = np.column_stack([outcome[rows, j], log_variance])
        x, mean, scale = _standardised(features[rows])
        picked = _penalties(x, y, rows, horizon)
        coefficients, levels = _regress(x, y)
        variance_beta, variance_level = coefficients[1, :, picked[1]], levels[1, 0, picked[1]]
        low, high = log_variance.min(), log_variance.max()
        median = np.exp(np.clip(x @ variance_beta + variance_level, low, high))
        fitted.append(
            {
                "mean": mean,
                "scale": scale,
                "return_beta": coefficients[0, :, picked[0]],
                "return_level": levels[0, 0, picked[0]],
                "return_penalty": PENALTIES[picked[0]],
                "variance_beta": variance_beta,
                "variance_level": variance_level,
                "variance_penalty": PENALTIES[picked[1]],
                "low": low,
                "high": high,
                "factor": (realised[rows, j] / median).mean(),
            }
        )
    return {name: np.array([values[name] for values in fitted]) for name in fitted[0]}


def ridge_forecasts(features: Features, parameters: Parameters) -> tuple[Float, Float]:
    """Return the returns and variances (N, H) for the features (N, F) of some rows. parameters: of `fit_ridge`."""
    fitted = SimpleNamespace(**parameters)
    returns, variances = np.empty((2, len(features), len(fitted.mean)))
    for j in range(len(fitted.mean)):
        x = (features.astype(np.float64) - fitted.mean[j]) / fitted.scale[j]
        returns[:, j] = x @ fitted.return_beta[j] + fitted.return_level[j]
        log_variance = np.clip(x @ fitted.variance_beta[j] + fitted.variance_level[j], fitted.low[j], fitted.high[j])
        variances[:, j] = np.exp(log_variance) * fitted.factor[j]
    return returns, variances


class Ridge(PartitionModel):
    """The returns and variances of ridge regressions."""

    Config = RidgeConfig
    title: ClassVar[str] = "ridge"
    compared_on: ClassVar[tuple[str, ...]] = ("returns", "variances")

    def fit_partition(self, sample: FitSample) -> tuple[Parameters, str | None]:
        """Return the regressions of a partition."""
        horizons = self.config.horizons
        return fit_ridge(sample.features, sample.returns, sample.variances, horizons, sample.rows), None

    def predict_partition(self, bars: PartitionBars, features: Features, rows: Rows, fitted: Parameters) -> Forecast:
        """Return the forecasts of the regressions."""
        return ridge_forecasts(features, fitted)


def _standardised(features: Features) -> tuple[Float, Float, Float]:
    x = features.astype(np.float64)
    mean, scale = x.mean(0), x.std(0)
    scale[scale <= 1e-12 * np.abs(mean)] = 1.0  # a constant
    return (x - mean) / scale, mean, scale


def _penalties(x: Float, y: Float, rows: Rows, horizon: int) -> list[int]:
    """Return the indexes of the penalties for the columns of y that do best on the last fifth of the rows."""
    first, last = (np.searchsorted(rows, part) for part in holdout(rows, 0.2, horizon))
    coefficients, levels = _regress(x[first], y[first])
    misses = x[last] @ coefficients + levels - y[last].T[:, :, None]  # (K, N, A)
    best: list[int] = (misses**2).mean(1).argmin(1).tolist()
    return best


def _regress(x: Float, y: Float) -> tuple[Float, Float]:
    """Return ridge regressions of the columns of y (N, K) on x (N, F) with all A penalties, from one decomposition.

    Coefficients (K, F, A) and intercepts (K, 1, A): x @ coefficients + intercepts predicts (K, N, A).
    """
    centre, level = x.mean(0), y.mean(0)
    centred = x - centre
    spread, axes = np.linalg.eigh(centred.T @ centred / len(x))
    moments = axes.T @ (centred.T @ (y - level)) / len(x)
    coefficients = axes @ (moments.T[:, :, None] / (spread[:, None] + np.array(PENALTIES)))
    return coefficients, level[:, None, None] - (centre @ coefficients)[:, None, :]
