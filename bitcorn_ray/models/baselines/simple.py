"""The forecasts that a professional compares with, all from the bars and none knowing the future.

    return      random walk (0) · ridge
    variance    constant variance · EWMA · GARCH(1,1) · log-HAR · strong HAR · ridge

Everything that is fitted is fitted on the fitting rows alone, with labels that end within them; at a test row nothing
later than that row is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.baselines.garch import garch_variance
from bitcorn_ray.models.baselines.har import log_har, strong_har
from bitcorn_ray.models.baselines.history import History, fitting_rows
from bitcorn_ray.models.baselines.ridge import ridge_forecasts

__all__ = ["Baselines", "baseline_forecasts", "constant_variance", "ewma_variance"]

Float = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Baselines:
    """Forecasts at N test rows, by the baseline's name; each array is (N, H).

    returns: log returns. variances: of the bars of the horizon together; NaN where a row has too few bars before it.
    remarks: what a reader must know, by the baseline's name: that a fit didn't converge, or could not be made.
    """

    returns: dict[str, Float]
    variances: dict[str, Float]
    remarks: dict[str, str]


def constant_variance(realised: Float, horizons: Sequence[int], fit: Rows, test: Rows) -> Float:
    """Forecast at every test row the mean realised variance of the fitting rows: (N, H)."""
    means = [realised[fitting_rows(fit, h, realised[:, j]), j].mean() for j, h in enumerate(horizons)]
    return np.tile(means, (len(test), 1))


def ewma_variance(history: History, horizons: Sequence[int], test: Rows, alpha: float = 0.06) -> Float:
    """Exponentially weighted mean of the squared returns up to each test row, times the horizon: (N, H).

    alpha: weight of the newest bar; RiskMetrics' 0.06 (J. P. Morgan 1996), which is not fitted to anything here.
    """
    mean = pd.Series(history.returns**2).ewm(alpha=alpha).mean().to_numpy()
    return mean[test, None] * np.asarray(horizons, np.float64)


def baseline_forecasts(
    history: History,
    outcome: Float,
    realised: Float,
    horizons: Sequence[int],
    fit: Rows | slice,
    test: Rows | slice,
    features: NDArray[np.floating] | None = None,
) -> Baselines:
    """Make the forecasts of all baselines at the test rows of one partition.

    outcome, realised: (T, H) log returns and realised variances of the h bars after each row, NaN where not known: see
    `realised_returns` and `realised_variances`, or leave out those that span a gap. fit, test: rows of T, ascending, or
    slices. features: (T, F) for the ridge regression, which is left out without them.
    What cannot be fitted, GARCH or a HAR on a history that is short of its windows, is left out and told in `remarks`,
    and so is a GARCH model whose fit did not converge. Raises BitcornError where shapes differ or too few rows are left
    to fit anything on.
    """
    shape = (len(history.close), len(horizons))
    if outcome.shape != shape or realised.shape != shape:
        raise BitcornError(f"outcome {outcome.shape} and realised {realised.shape} must be {shape}: bars x horizons")
    fitted_on, tested = (np.arange(shape[0])[rows] for rows in (fit, test))
    returns = {"random walk": np.zeros((len(tested), len(horizons)))}
    remarks = {}
    variances = {
        "constant variance": constant_variance(realised, horizons, fitted_on, tested),
        "EWMA": ewma_variance(history, horizons, tested),
    }
    try:
        garch = garch_variance(history, horizons, fitted_on, tested)
    except BitcornError as error:
        remarks["GARCH(1,1)"] = f"left out: {error}"
    else:
        variances["GARCH(1,1)"] = garch.variances
        if not garch.converged:
            remarks["GARCH(1,1)"] = f"its fit did not converge ({garch.message}): don't trust it"
    for name, regression in (("log-HAR", log_har), ("strong HAR", strong_har)):
        try:
            variances[name] = regression(history, realised, horizons, fitted_on, tested)
        except BitcornError as error:
            remarks[name] = f"left out: {error}"
    if features is not None:
        ridge = ridge_forecasts(features, outcome, realised, horizons, fitted_on, tested)
        returns["ridge"], variances["ridge"] = ridge.returns, ridge.variances
    return Baselines(returns=returns, variances=variances, remarks=remarks)
