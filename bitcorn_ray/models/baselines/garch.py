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
from numpy.typing import NDArray
from scipy.signal import lfilter

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import ModelConfig
from bitcorn_ray.models.baselines.history import Float, History, Parameters, PartitionModel, Rows


@dataclass(frozen=True, kw_only=True)
class GARCHConfig(ModelConfig):
    """A GARCH(1,1) for each partition."""

    kind: Literal["garch"] = "garch"
    seq_len: int = 1


@dataclass(frozen=True, kw_only=True)
class GarchFit:
    """A fitted GARCH(1,1).

    omega (squared log return), alpha, beta: its parameters. start: variance of the first return. converged: True if the
    optimiser reports the best parameters; otherwise `message` says why it stopped.
    """

    omega: float
    alpha: float
    beta: float
    start: float
    converged: bool = True
    message: str = ""

    def variances(self, history: History, horizons: Sequence[int], rows: Rows) -> Float:
        """Return the variance (N, H) of the h bars after some rows (N,)."""
        # filtered[0] = start is the variance of the first return; filtered[t] that of the bar after row t.
        driven = np.concatenate([[self.start], self.omega + self.alpha * history.returns[1:] ** 2])
        variance = lfilter([1.0], [1.0, -self.beta], driven)[rows]
        total, sums = np.zeros(len(rows)), {}
        for ahead in range(1, max(horizons) + 1):
            total = total + variance
            sums[ahead] = total
            variance = self.omega + (self.alpha + self.beta) * variance
        return np.column_stack([sums[horizon] for horizon in horizons])


def fit_garch(history: History, fit: Rows) -> GarchFit:
    """Fit a GARCH(1,1) to the returns from the first to the last of the rows ``fit``.

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
    return GarchFit(
        omega=omega * scale**2,
        alpha=alpha,
        beta=beta,
        start=float(np.mean(sample**2)),
        converged=bool(fitted.convergence_flag == 0 and all(map(math.isfinite, (omega, alpha, beta)))),
        message=str(fitted.optimization_result.message),
    )


class GARCH(PartitionModel):
    """Returns of zero, and the variance of a GARCH(1,1)."""

    Config = GARCHConfig
    title: ClassVar[str] = "GARCH(1,1)"

    def fit_partition(
        self, bars: PartitionBars, features: NDArray[np.floating], outcome: Float, realised: Float, rows: Rows
    ) -> tuple[Parameters, str | None]:
        """Return the parameters, and a note if the fit did not converge."""
        fitted = fit_garch(History.of(bars), rows)
        note = None if fitted.converged else f"its fit did not converge ({fitted.message}): don't trust it"
        names = ("omega", "alpha", "beta", "start")
        return {name: np.array(getattr(fitted, name)) for name in names}, note

    def predict_partition(
        self, bars: PartitionBars, features: NDArray[np.floating], parameters: Parameters, rows: Rows
    ) -> tuple[Float, Float]:
        """Return the filtered variance at each row."""
        omega, alpha, beta, start = (float(parameters[name]) for name in ("omega", "alpha", "beta", "start"))
        fitted = GarchFit(omega=omega, alpha=alpha, beta=beta, start=start)
        variances = fitted.variances(History.of(bars), self.config.horizons, rows)
        return np.zeros_like(variances), variances
