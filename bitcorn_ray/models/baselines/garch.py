"""GARCH(1,1) (Bollerslev 1986): s_{t+1} = omega + alpha r_t^2 + beta s_t, fitted once and filtered on.

1. omega, alpha and beta are fitted by `arch` to the one-bar returns of the fitting rows, by quasi maximum likelihood
   (normal, of mean zero), in units of their standard deviation, in which the likelihood is well scaled.
2. With these fixed, the recursion runs through all bars: the variance at a row depends on no later bar.
3. Further ahead E s_{t+k+1} = omega + (alpha + beta) E s_{t+k}. The variance of a horizon is the sum of its bars'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.signal import lfilter

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.errors import BitcornError
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
)


@dataclass(frozen=True, kw_only=True)
class GARCHConfig(BaselineConfig):
    """A GARCH(1,1) for each partition."""

    kind: Literal["garch"] = "garch"


def fit_garch(history: History, fit: Rows) -> tuple[dict[str, float], str | None]:
    """Fit a GARCH(1,1) to the returns from the first to the last of the rows ``fit``.

    Return omega (squared log return), alpha, beta and `start`, the variance of the first return; and the optimiser's
    message if it did not converge.
    Raises BitcornError if there are fewer than 100 returns to fit on, or these are all zero.
    """
    from arch import arch_model

    returns = history.returns[1:]  # the return of row t is number t - 1
    sample = returns[max(0, fit[0] - 1) : fit[-1]] if len(fit) else returns[:0]
    scale = float(sample.std()) if len(sample) else 0.0
    if len(sample) < 100 or scale == 0:
        raise BitcornError(f"a GARCH model needs 100 returns that move: {len(sample)} have a deviation of {scale}")
    model = arch_model(sample / scale, mean="Zero", vol="GARCH", p=1, q=1, dist="normal", rescale=False)
    fitted = model.fit(disp="off", show_warning=False)
    omega, alpha, beta = (float(fitted.params[name]) for name in ("omega", "alpha[1]", "beta[1]"))
    converged = fitted.convergence_flag == 0 and all(map(math.isfinite, (omega, alpha, beta)))
    parameters = {"omega": omega * scale**2, "alpha": alpha, "beta": beta, "start": float(np.mean(sample**2))}
    return parameters, None if converged else str(fitted.optimization_result.message)


def garch_variances(history: History, horizons: Sequence[int], rows: Rows, parameters: Parameters) -> Float:
    """Return the variance (N, H) of the h bars after some rows (N,). parameters: of `fit_garch`."""
    omega, alpha, beta, start = (float(parameters[name]) for name in ("omega", "alpha", "beta", "start"))
    # filtered[0] = start is the variance of the first return; filtered[t] that of the bar after row t.
    driven = np.concatenate([[start], omega + alpha * history.returns[1:] ** 2])
    variance = lfilter([1.0], [1.0, -beta], driven)[rows]
    total, sums = np.zeros(len(rows)), {}
    for ahead in range(1, max(horizons) + 1):
        total = total + variance
        sums[ahead] = total
        variance = omega + (alpha + beta) * variance
    return np.column_stack([sums[horizon] for horizon in horizons])


class GARCH(PartitionModel):
    """Returns of zero, and the variance of a GARCH(1,1)."""

    Config = GARCHConfig
    title: ClassVar[str] = "GARCH(1,1)"

    def fit_partition(self, sample: FitSample) -> tuple[Parameters, str | None]:
        """Return the parameters, and a note if the fit did not converge."""
        parameters, problem = fit_garch(History.of(sample.bars), sample.rows)
        return parameters, problem and f"its fit did not converge ({problem}): don't trust it"

    def predict_partition(self, bars: PartitionBars, features: Features, rows: Rows, fitted: Parameters) -> Forecast:
        """Return the filtered variance at each row."""
        return 0.0, garch_variances(History.of(bars), self.config.horizons, rows, fitted)
