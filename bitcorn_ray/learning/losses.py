"""Losses of a forecast (mu, sigma) against what happened: the return r and the realised volatility v.

All are (B, H) to (B, H), in units of each horizon's typical volatility.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["LOSS_FUNCTIONS", "Loss", "gaussian_nll", "hybrid", "mean_squared_error"]

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

_SMALLEST_SIGMA = 1e-3


def gaussian_nll(mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> Tensor:
    """Gaussian negative log likelihood with the realised variance in place of the squared return.

    (r - mu)^2 = r^2 - 2 r mu + mu^2. The realised variance v^2, a sum of squared one-bar returns, has nearly the mean
    of r^2 and far less noise, so it takes its place; at a horizon of one bar both are the same. The sum is kept at 0 or
    more, and sigma at 0.001 or more. Without the constant ln(2 pi) / 2.
    """
    sigma_BH = sigma_BH.clamp_min(_SMALLEST_SIGMA)
    square_BH = (realised_BH.square() - 2 * return_BH * mu_BH + mu_BH.square()).clamp_min(0)
    return sigma_BH.log() + 0.5 * square_BH / sigma_BH.square()


def mean_squared_error(mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> Tensor:
    """Squared error of the return plus squared error of the volatility."""
    return (return_BH - mu_BH).square() + (realised_BH - sigma_BH).square()


def hybrid(mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> Tensor:
    """Mean of the Gaussian negative log likelihood and the squared errors."""
    likelihood_BH = gaussian_nll(mu_BH, sigma_BH, return_BH, realised_BH)
    return torch.lerp(likelihood_BH, mean_squared_error(mu_BH, sigma_BH, return_BH, realised_BH), 0.5)


LOSS_FUNCTIONS: dict[str, Loss] = {"gaussian_nll": gaussian_nll, "mse": mean_squared_error, "hybrid": hybrid}
