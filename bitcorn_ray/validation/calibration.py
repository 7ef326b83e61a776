"""Intervals that hold what they promise: split conformal prediction (Vovk et al. 2005; Lei et al. 2018).

A score is how far off a forecast was in units of its own volatility, |return - forecast| / volatility, on windows that
the weights were not fitted on. The finite-sample quantile of n scores at level c covers a new exchangeable score with a
probability of at least c.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

__all__ = ["COVERAGES", "conformal_quantile", "conformal_scores"]

COVERAGES = (0.8, 0.95)

Array = NDArray[np.floating]


def conformal_scores(forecast: Array, volatility: Array, outcome: Array) -> Array:
    """Absolute errors in units of the predicted volatility; same shape as the inputs."""
    return np.abs(outcome - forecast) / volatility


def conformal_quantile(scores: Array, coverage: float) -> Array:
    """Half-width of the band, in units of volatility: the ceil((n + 1) coverage)-th smallest of (n, H) scores -> (H,).

    With too few scores for the level the band is infinite, as nothing narrower could be promised.
    """
    if not 0 < coverage < 1:
        raise BitcornError(f"coverage is {coverage}: it must lie between 0 and 1")
    rank = math.ceil((len(scores) + 1) * coverage)
    if rank > len(scores):
        return np.full(scores.shape[1:], np.inf)
    quantile: Array = np.partition(scores, rank - 1, axis=0)[rank - 1]
    return quantile
