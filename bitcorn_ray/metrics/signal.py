"""Scores of association between forecasts and outcomes by window; their mean is zero for uninformed forecasts.

A loss measures the quality of forecasts. A score measures association alone, whatever their level and spread, and is
therefore more powerful. In volatility the mean score is Spearman's rank correlation, and in direction the share of
right signs minus the expected share of an uninformed forecaster who predicts up as often (Pesaran and Timmermann 1992).
On simulated GARCH markets the ranks of an EWMA are more powerful than its losses in every case: a few extreme bars
dominate a mean loss, but not ranks.

Ranks and means are taken within each fold, so that forecasts that are constant within folds score zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bitcorn_ray.errors import BitcornError

Array = NDArray[np.floating]
Float = NDArray[np.float64]


def rank_scores(forecast: Array, outcome: Array, folds: NDArray[np.int64]) -> Float:
    """Return products of standardised ranks, whose mean is Spearman's correlation.

    forecast: (N, K) of K trials, or (N, H, K), such as variances; outcome: (N,) or (N, H), the realised ones; folds:
    (N,). Returns (N, K), horizons averaged. Raises BitcornError if shapes differ or values are not finite.
    """

    def ranked(x: Float) -> Float:
        ranks: Float = (rankdata(x, axis=0) - (len(x) + 1) / 2) * np.sqrt(12 / max(len(x) ** 2 - 1, 1))
        return ranks

    return _products(forecast, outcome, folds, ranked)


def sign_scores(forecast: Array, outcome: Array, folds: NDArray[np.int64]) -> Float:
    """Return scores of signs, whose mean is the share of right signs minus the share expected by chance.

    Shapes as in `rank_scores`; forecasts and outcomes are returns.
    """

    def signs(x: Float) -> Float:
        sign = np.sign(x)
        centred: Float = (sign - sign.mean(0)) / np.sqrt(2)  # so that twice the covariance of ups is the mean
        return centred

    return _products(forecast, outcome, folds, signs)


def sign_losses(forecast: Array, outcome: Array) -> Float:
    """Return the losses of signs: 0 if right, 1 if wrong, 0.5 if the forecast or the outcome is zero.

    Shapes as in `rank_scores`. The naive baselines are both constant signs, `sign_losses(np.ones((N, 1)), outcome)` and
    that of -1: in a market that rose, "always up" looks good without skill.
    """
    predicted, realised = _aligned(forecast, outcome)
    wrong: Float = (0.5 - 0.5 * np.sign(predicted) * np.sign(realised)).mean(1)
    return wrong


def _products(forecast: Array, outcome: Array, folds: NDArray[np.int64], transform: Callable[[Any], Float]) -> Float:
    predicted, realised = _aligned(forecast, outcome)
    if np.shape(folds) != (len(predicted),):
        raise BitcornError(f"folds have shape {np.shape(folds)}, not ({len(predicted)},): one number a window")
    scores = np.empty((len(predicted), predicted.shape[2]))
    for fold in np.unique(folds):
        rows = folds == fold
        scores[rows] = (transform(predicted[rows]) * transform(realised[rows])).mean(1)
    return scores


def _aligned(forecast: Array, outcome: Array) -> tuple[Float, Float]:
    """Return forecasts (N, H, K) and outcomes (N, H, 1)."""
    predicted, realised = np.asarray(forecast, np.float64), np.asarray(outcome, np.float64)
    if predicted.ndim == 2 and realised.ndim == 1:
        predicted, realised = predicted[:, None], realised[:, None]
    if predicted.ndim != 3 or predicted.shape[:2] != realised.shape:
        raise BitcornError(
            f"forecasts have shape {np.shape(forecast)} and outcomes {np.shape(outcome)}: give (N, K) and (N,), or "
            "(N, H, K) and (N, H)"
        )
    if not (np.isfinite(predicted).all() and np.isfinite(realised).all()):
        raise BitcornError("some forecasts or outcomes are not finite: leave these windows out")
    return predicted, realised[..., None]
