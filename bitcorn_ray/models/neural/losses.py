"""Losses of a forecast (mu, sigma) against the outcome: the return r and the realised volatility v.

All are (B, H) to (B, H), in units of each horizon's typical volatility. `Objective` turns them into one number.
A new loss is a function here, a row in `_PLAIN`, and its name in `config.LOSSES`.

(r - mu)^2 = r^2 - 2 r mu + mu^2. The realised variance v^2, a sum of squared one-bar returns, has nearly the mean of
r^2 and far less noise, so all likelihoods use it in its place: q = v^2 - 2 r mu + mu^2, at least 0. At a horizon of
one bar both are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.config import TrainingConfig

_SMALLEST_SIGMA = 1e-3
_SMALLEST_FREEDOM = 2.01  # a Student-t has a variance only above 2
_ROBUST_FREEDOM = 12.0


def gaussian_nll(mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> Tensor:
    """Gaussian negative log likelihood, ln sigma + q / (2 sigma^2); sigma at least 0.001. Without ln(2 pi) / 2."""
    sigma_BH = sigma_BH.clamp_min(_SMALLEST_SIGMA)
    return sigma_BH.log() + 0.5 * _square(mu_BH, return_BH, realised_BH) / sigma_BH.square()


def robust_nll(mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor, freedom_H: Tensor) -> Tensor:
    """Gaussian likelihood with the tails of a Student-t, ln sigma + (nu + 1) / 2 ln(1 + q / (nu sigma^2)).

    The worst hour of a year cannot dominate the fit: however far q is beyond sigma^2, its gradient in ln sigma is at
    most nu. It is a quasi-likelihood: the realised variance of a whole horizon replaces one squared return, and the
    best sigma is below the root mean square of the outcomes, by a factor that the trainer corrects after the training.
    freedom_H: nu.
    """
    sigma_BH = sigma_BH.clamp_min(_SMALLEST_SIGMA)
    excess_BH = _square(mu_BH, return_BH, realised_BH) / (freedom_H * sigma_BH.square())
    return sigma_BH.log() + 0.5 * (freedom_H + 1) * torch.log1p(excess_BH)


def student_t_nll(
    mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor, freedom_H: Tensor, horizon_H: Tensor
) -> Tensor:
    """Student-t negative log likelihood of the path of one-bar returns, for each of its h bars.

    In a Student-t the variance itself is drawn (inverse gamma), and a realised variance depends on that draw. Using it
    in the one-return density in place of r^2 would bias sigma, whose best value is then sqrt(nu / (nu - 2)) times too
    large. The h one-bar returns that share a draw are a multivariate t (Kotz & Nadarajah 2004) of h dimensions, whose
    density depends only on the sum of their squares q: with variance sigma^2 for the whole horizon,
    ((nu + h) / 2 ln(1 + h q / ((nu - 2) sigma^2)) + h ln sigma + c) / h. At h = 1 it is the usual one; as nu grows it
    becomes the Gaussian one. freedom_H: nu, above 2. horizon_H: h in bars. Without ln(2 pi / h) / 2.
    """
    sigma_BH = sigma_BH.clamp_min(_SMALLEST_SIGMA)
    square_BH = horizon_H * _square(mu_BH, return_BH, realised_BH)
    spread_BH = 0.5 * (freedom_H + horizon_H) * torch.log1p(square_BH / ((freedom_H - 2) * sigma_BH.square()))
    constant_H = torch.lgamma(freedom_H / 2) - torch.lgamma((freedom_H + horizon_H) / 2)
    return spread_BH / horizon_H + sigma_BH.log() + 0.5 * (freedom_H / 2 - 1).log() + constant_H / horizon_H


def mean_squared_error(mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> Tensor:
    """Return the squared error of the return plus the squared error of the volatility."""
    return (return_BH - mu_BH).square() + (realised_BH - sigma_BH).square()


def hybrid(mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> Tensor:
    """Return the mean of the Gaussian negative log likelihood and the squared errors."""
    likelihood_BH = gaussian_nll(mu_BH, sigma_BH, return_BH, realised_BH)
    return torch.lerp(likelihood_BH, mean_squared_error(mu_BH, sigma_BH, return_BH, realised_BH), 0.5)


def directional_penalty(mu_BH: Tensor, return_BH: Tensor) -> Tensor:
    """Return a smooth penalty for a wrong direction, ln(1 + exp(-mu tanh r)): it falls as mu moves to the side of r.

    A count of wrong signs has no gradient. tanh keeps one huge return from dominating the batch.
    """
    return nn.functional.softplus(-mu_BH * return_BH.tanh())


class Objective(nn.Module):
    """The loss of a training configuration, and the parameters that are learned with it.

    horizons: bars ahead. Learned degrees of freedom are nu = 2.01 + exp(log_freedom) for each horizon. Learned weights
    follow Kendall, Gal & Cipolla (2018), sum_h exp(-s_h) loss_h + s_h, which needs losses that are never negative: a
    likelihood enters as its excess over the likelihood of the best sigma in hindsight. The weight of a horizon becomes
    one over its mean excess, so that noisy ones do not dominate.
    Raises BitcornError if weights are given for another number of horizons.
    """

    weights: Tensor
    horizons: Tensor

    def __init__(self, config: TrainingConfig, horizons: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        given = config.horizon_weights
        weights = torch.ones(len(horizons))
        if not isinstance(given, str):
            if len(given) != len(horizons):
                raise BitcornError(f"{len(given)} horizon_weights for {len(horizons)} horizons: give one for each")
            weights = torch.tensor(given, dtype=torch.float32)
        self.register_buffer("weights", weights / weights.mean(), persistent=False)
        self.register_buffer("horizons", torch.tensor(horizons, dtype=torch.float32), persistent=False)
        learned = config.loss == "student_t" and not config.degrees_of_freedom
        self.log_freedom = nn.Parameter(torch.full((len(horizons),), math.log(4.0))) if learned else None
        self.log_noise = nn.Parameter(torch.zeros(len(horizons))) if given == "learned" else None

    def by_window(self, mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> Tensor:
        """Return the loss of each window and horizon, (B, H), as validation uses it."""
        if self.config.loss == "student_t":
            return student_t_nll(mu_BH, sigma_BH, return_BH, realised_BH, self.freedom(), self.horizons)
        if self.config.loss == "robust_nll":
            return robust_nll(mu_BH, sigma_BH, return_BH, realised_BH, self.freedom())
        return _PLAIN[self.config.loss](mu_BH, sigma_BH, return_BH, realised_BH)

    def forward(self, mu_BH: Tensor, sigma_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum over the batch that training minimises, and the losses (B, H) in it."""
        loss_BH = self.by_window(mu_BH, sigma_BH, return_BH, realised_BH)
        total_BH = loss_BH
        if self.log_noise is not None:
            with torch.no_grad():
                least_BH = self._least(mu_BH, return_BH, realised_BH)
            total_BH = (-self.log_noise).exp() * (loss_BH - least_BH) + self.log_noise
        if self.config.directional_penalty:
            total_BH = total_BH + self.config.directional_penalty * directional_penalty(mu_BH, return_BH)
        return (total_BH * self.weights).mean(1).sum(), loss_BH.detach()

    def overall(self, by_horizon_H: Tensor) -> Tensor:
        """Return the weighted mean of the horizons' mean losses (H,)."""
        return (by_horizon_H * self.weights.to(by_horizon_H)).mean()

    def freedom(self) -> Tensor:
        """Return the degrees of freedom (H,) of the Student-t or the robust loss."""
        if self.log_freedom is None:
            return torch.full_like(self.horizons, self.config.degrees_of_freedom or _ROBUST_FREEDOM)
        return _SMALLEST_FREEDOM + self.log_freedom.exp()

    def learned(self) -> dict[str, list[float]]:
        """Return the learned parameters of the loss as plain values."""
        found = {}
        if self.config.loss == "student_t":
            found["degrees_of_freedom"] = self.freedom().tolist()
        if self.log_noise is not None:
            found["horizon_weights"] = (-self.log_noise).exp().tolist()
        return found

    def _least(self, mu_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> Tensor:
        """Return the losses of the best sigma in hindsight, or a lower bound of the loss."""
        best_BH = _square(mu_BH, return_BH, realised_BH).clamp_min(1e-4).sqrt()
        match self.config.loss:
            case "mse":
                return torch.zeros_like(best_BH)
            case "hybrid":
                return 0.5 * gaussian_nll(mu_BH, best_BH, return_BH, realised_BH)
            case "student_t":
                freedom_H = self.freedom()
                best_BH = best_BH * (freedom_H / (freedom_H - 2)).sqrt()
        return self.by_window(mu_BH, best_BH, return_BH, realised_BH)


def _square(mu_BH: Tensor, return_BH: Tensor, realised_BH: Tensor) -> Tensor:
    return (realised_BH.square() - 2 * return_BH * mu_BH + mu_BH.square()).clamp_min(0)


_PLAIN: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "gaussian_nll": gaussian_nll,
    "mse": mean_squared_error,
    "hybrid": hybrid,
}
