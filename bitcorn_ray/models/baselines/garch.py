"""GARCH(1,1) (Bollerslev 1986): s_{t+1} = omega + alpha r_t^2 + beta s_t, fitted once and filtered on.

1. omega, alpha and beta are fitted by `arch` to the one-bar returns of the fitting rows, by quasi maximum likelihood
   (normal, of mean zero), in units of their standard deviation, in which the likelihood is well scaled.
2. With these fixed, the recursion goes through all bars: the variance at a row depends on no later bar.
3. Further ahead E s_{t+k+1} = omega + (alpha + beta) E s_{t+k}; the variance of a horizon is the sum of its bars'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from arch import arch_model
from numpy.typing import NDArray
from scipy.signal import lfilter

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.baselines.history import History

__all__ = ["Garch", "garch_variance"]

Float = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Garch:
    """Variances (N, H) that a fitted GARCH(1,1) forecasts.

    omega (squared log return), alpha, beta: its parameters. converged: whether the optimiser says that these are the
    best; where it doesn't, `message` says why, and the forecasts are of where it stopped.
    """

    variances: Float
    omega: float
    alpha: float
    beta: float
    converged: bool
    message: str


def garch_variance(history: History, horizons: Sequence[int], fit: Rows, test: Rows) -> Garch:
    """Fit a GARCH(1,1) to the returns from the first to the last of the rows `fit`, and forecast at the rows `test`.

    Raises BitcornError where there are fewer than 100 returns to fit on, or these are all zero.
    """
    returns = history.returns[1:]  # that of row t is number t - 1
    sample = returns[max(0, fit[0] - 1) : fit[-1]] if len(fit) else returns[:0]
    scale = float(sample.std()) if len(sample) else 0.0
    if len(sample) < 100 or scale == 0:
        raise BitcornError(f"a GARCH model needs 100 returns that move: {len(sample)} have a deviation of {scale}")
    model = arch_model(sample / scale, mean="Zero", vol="GARCH", p=1, q=1, dist="normal", rescale=False)
    fitted = model.fit(disp="off", show_warning=False)
    omega, alpha, beta = (float(fitted.params[name]) for name in ("omega", "alpha[1]", "beta[1]"))
    converged = fitted.convergence_flag == 0 and all(map(math.isfinite, (omega, alpha, beta)))
    omega *= scale**2
    return Garch(
        variances=_forecast(returns, float(np.mean(sample**2)), (omega, alpha, beta), horizons, test),
        omega=omega,
        alpha=alpha,
        beta=beta,
        converged=bool(converged),
        message=str(fitted.optimization_result.message),
    )


def _forecast(
    returns: Float, start: float, parameters: tuple[float, float, float], horizons: Sequence[int], test: Rows
) -> Float:
    omega, alpha, beta = parameters
    # s[0] = start is the variance of the first return; s[t] that of the bar after row t.
    driven = np.concatenate([[start], omega + alpha * returns**2])
    variance = lfilter([1.0], [1.0, -beta], driven)[test]
    total = np.zeros(len(test))
    sums = {}
    for ahead in range(1, max(horizons) + 1):
        total = total + variance
        sums[ahead] = total
        variance = omega + (alpha + beta) * variance
    return np.column_stack([sums[horizon] for horizon in horizons])
