"""Whether forecasts know anything: scores, window by window, whose mean is zero for whoever doesn't.

A loss asks whether forecasts are good. A score here asks less, and so hears more: whether they go along with what
happened, whatever their level and their spread. In volatility the score's mean is Spearman's rank correlation, and in
direction the share of right signs beyond that of a forecaster who says up as often without knowing when (Pesaran and
Timmermann 1992). On simulated GARCH markets the ranks of an EWMA tell more than its losses in every case: a few extreme
bars decide over a mean loss, and none over ranks.

Ranks and means are those of each fold, so that forecasts that are constant within folds score zero.
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
    """Score forecasts by how they are ordered: products of standardised ranks, with Spearman's correlation as mean.

    forecast: (N, K) of K trials, or (N, H, K), such as variances; outcome: (N,) or (N, H), the realised ones; folds:
    (N,). Returns (N, K), horizons averaged. Raises BitcornError where shapes differ or values are not finite.
    """

    def ranked(x: Float) -> Float:
        ranks: Float = (rankdata(x, axis=0) - (len(x) + 1) / 2) * np.sqrt(12 / max(len(x) ** 2 - 1, 1))
        return ranks

    return _products(forecast, outcome, folds, ranked)


def sign_scores(forecast: Array, outcome: Array, folds: NDArray[np.int64]) -> Float:
    """Score forecasts by their signs: the mean is the share of right ones beyond what chance would give.

    Shapes as in `rank_scores`; forecasts and outcomes are returns.
    """

    def signs(x: Float) -> Float:
        sign = np.sign(x)
        centred: Float = (sign - sign.mean(0)) / np.sqrt(2)  # so that twice the covariance of ups is the mean
        return centred

    return _products(forecast, outcome, folds, signs)


def sign_losses(forecast: Array, outcome: Array) -> Float:
    """How often a forecast's sign was wrong: 0 where right, 1 where wrong, 0.5 where either has none.

    Shapes as in `rank_scores`. Baselines that know nothing always say one sign, `sign_losses(np.ones((N, 1)), outcome)`
    and of -1; both are needed, as a market that rose in the test makes "always up" good without any knowledge.
    """
    said, happened = _aligned(forecast, outcome)
    wrong: Float = (0.5 - 0.5 * np.sign(said) * np.sign(happened)).mean(1)
    return wrong


def _products(forecast: Array, outcome: Array, folds: NDArray[np.int64], brought: Callable[[Any], Float]) -> Float:
    said, happened = _aligned(forecast, outcome)
    if np.shape(folds) != (len(said),):
        raise BitcornError(f"folds have shape {np.shape(folds)}, not ({len(said)},): one number a window")
    scores = np.empty((len(said), said.shape[2]))
    for fold in np.unique(folds):
        rows = folds == fold
        scores[rows] = (brought(said[rows]) * brought(happened[rows])).mean(1)
    return scores


def _aligned(forecast: Array, outcome: Array) -> tuple[Float, Float]:
    """Forecasts (N, H, K) and outcomes (N, H, 1)."""
    said, happened = np.asarray(forecast, np.float64), np.asarray(outcome, np.float64)
    if said.ndim == 2 and happened.ndim == 1:
        said, happened = said[:, None], happened[:, None]
    if said.ndim != 3 or said.shape[:2] != happened.shape:
        raise BitcornError(
            f"forecasts have shape {np.shape(forecast)} and outcomes {np.shape(outcome)}: give (N, K) and (N,), or "
            "(N, H, K) and (N, H)"
        )
    if not (np.isfinite(said).all() and np.isfinite(happened).all()):
        raise BitcornError("some forecasts or outcomes are not finite: leave these windows out")
    return said, happened[..., None]
