"""Selection bias: the best of many trials looks good even if none of them is.

Losses are (N, K): one row for each window, successive in time, one column for each trial; lower is better. NaN marks
the windows after a trial was stopped. `fill_stopped` fills in its losses, so that it counts among the tried ones.

Probability of backtest overfitting, by combinatorially symmetric cross-validation (CSCV; Bailey, Borwein, Lopez de
Prado and Zhu 2015):
1. Cut the rows into an even number of blocks. Each choice of half of them is a past, and the others are its future.
2. Rank the trial with the lowest mean loss of the past among all trials in the future. The probability is the share of
   ranks below the median; 0.5 if selection is uninformative.

Superior predictive ability (Hansen 2005): is the best of all K trials better than a baseline, by more than the best of
K trials without skill would be?
1. Test each trial's mean difference from the baseline as in `hac`, which accounts for overlapping horizons and for its
   own uncertainty. Transform its Student statistic to the normal scale.
2. Estimate by `arch.bootstrap.SPA` (stationary bootstrap, blocks of the length of those tests' lag) how large the
   largest of K such statistics is by chance. SPA compares raw means, so each trial's difference is scaled by the
   standard deviation that gives its bootstrapped mean a variance of one. With differences divided by their standard
   errors, a test at 1 % rejects a true null in 2 to 9 % of cases; scaled this way, in 1 to 2 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from arch.bootstrap import SPA
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri
from scipy.stats import rankdata

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.hac import MeanTest, degrees_of_freedom, hac_lag, mean_test

Array = NDArray[np.floating]
Float = NDArray[np.float64]

LEAST_PIECES = 10.0
_CHUNK = 1_000  # combinations at a time


@dataclass(frozen=True, kw_only=True)
class Overfitting:
    """Probability that the best trial of one half of history ranks below the median in the other half.

    probability: a rank on the median counts half. blocks: of history. combinations: of the blocks. median_rank: of the
    chosen trials in the future, 1 for the best and 0 for the worst of all trials.
    """

    probability: float
    blocks: int
    combinations: int
    median_rank: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Superiority:
    """Tests of the best trial, and of each single trial, against a baseline.

    p_value: of the largest statistic, if `tried` trials had no skill; small if some trial is better than the baseline.
    p_best: of the statistic of the trial with the lowest mean loss, which need not be the largest one. Both are None
    with too few windows. block: windows in a block. pieces: number of independent windows.
    differences: for each trial, loss of the baseline minus that of the trial; a positive mean is better. Their p-values
    are those of a single trial (Diebold and Mariano 1995), without selection.
    """

    p_value: float | None
    p_best: float | None
    tried: int
    block: int
    pieces: float
    differences: tuple[MeanTest, ...]


@dataclass(frozen=True, kw_only=True)
class RankStability:
    """Agreement of the folds on the ranks of trials.

    concordance: Kendall's W, 1 if all folds rank the trials equally. correlation: Spearman's, mean of all pairs of
    folds. p_value: of folds that rank independently of each other (Friedman 1937).
    """

    concordance: float
    correlation: float
    p_value: float


def fill_stopped(losses: Array) -> Float:
    """Return losses (N, K) in float64, with each trial's missing losses at its mean distance from the other trials.

    The others are the trials with all losses or, if there are none, those with a loss of that window.
    Raises BitcornError if a window or a trial has no loss at all.
    """
    x = np.array(losses, np.float64)
    if x.ndim != 2 or not x.size:
        raise BitcornError(f"losses have shape {x.shape}: one row a window, one column a trial")
    known = np.isfinite(x)
    if known.all():
        return x
    if not known.any(0).all() or not known.any(1).all():
        raise BitcornError(
            f"{np.count_nonzero(~known.any(0))} of {x.shape[1]} trials have no loss and "
            f"{np.count_nonzero(~known.any(1))} of {len(x)} windows: leave these windows out, and these trials, which "
            "still count in `tried`"
        )
    whole = known.all(0)
    others = whole if whole.any() else np.ones_like(whole)
    level = np.nanmean(np.where(known, x, np.nan)[:, others], axis=1)
    excess = np.nanmean(np.where(known, x, np.nan) - level[:, None], axis=0)
    return np.where(known, x, level[:, None] + excess)


def fold_means(losses: Array, folds: NDArray[np.int64]) -> Float:
    """Return the mean loss (F, K) of each fold's windows, NaN if a trial has none. folds: (N,) of the rows."""
    x = np.asarray(losses, np.float64)
    known = np.isfinite(x)
    numbers, index = np.unique(folds, return_inverse=True)
    member = (index == np.arange(len(numbers))[:, None]).astype(np.float64)
    counts = member @ known
    sums: Float = np.where(counts > 0, member @ np.where(known, x, 0) / np.maximum(counts, 1), np.nan)
    return sums


def rank_stability(means: Array) -> RankStability | None:
    """Return the agreement of folds on mean losses (F, K); None with one fold or trial, or without differences."""
    folds, trials = np.shape(means)
    if folds < 2 or trials < 2:
        return None
    ranks = rankdata(means, axis=1)
    greatest = folds * ((ranks - (trials + 1) / 2) ** 2).sum()  # of the rank sums, if all folds were equal
    if greatest == 0:
        return None
    concordance = float(((ranks.sum(0) - folds * (trials + 1) / 2) ** 2).sum() / greatest)
    return RankStability(
        concordance=concordance,
        correlation=(folds * concordance - 1) / (folds - 1),
        p_value=float(chdtrc(trials - 1, folds * (trials - 1) * concordance)),
    )


def backtest_overfitting(losses: Array, horizon: int = 1, blocks: int = 16) -> Overfitting | None:
    """Return the probability of backtest overfitting by mean loss (N, K): see the module; None with one trial.

    horizon: windows that a label spans. The last horizon - 1 windows of each block are left out, because their labels
    reach into the next one. blocks: maximum; fewer, in even number, if a block would have fewer than two horizons.
    Raises BitcornError for too few windows for two blocks.
    """
    x = fill_stopped(losses)
    count = min(blocks, len(x) // max(2 * horizon, 2)) // 2 * 2
    if count < 2:
        raise BitcornError(f"{len(x)} windows of horizon {horizon} are too few for two blocks: give more windows")
    if x.shape[1] < 2:
        return None
    # Differences from the mean trial keep their digits in sums over long histories.
    parts = [part[: len(part) - horizon + 1] for part in np.array_split(x - x.mean(1, keepdims=True), count)]
    sums = np.stack([part.sum(0) for part in parts])
    sizes = np.array([len(part) for part in parts], np.float64)
    ranks = np.concatenate([_future_ranks(halves, sums, sizes) for halves in _halves(count)])
    below = np.count_nonzero(ranks < 0.5 - 1e-12) + 0.5 * np.count_nonzero(abs(ranks - 0.5) <= 1e-12)
    return Overfitting(
        probability=float(below / len(ranks)),
        blocks=count,
        combinations=len(ranks),
        median_rank=float(np.median(ranks)),
    )


def superior_ability(
    baseline: Array, losses: Array, horizon: int, tried: int | None = None, reps: int = 2_000, seed: int = 0
) -> Superiority:
    """Test the best of K trials, losses (N, K), against a baseline's (N,), windows successive in time.

    horizon: windows that a label spans. tried: number of all trials, if some have no losses here: the p-value is then
    that of tried / K groups. reps: bootstrap samples; the p-value is at least 1 / (reps + 1).
    Raises BitcornError if shapes differ, a loss of the baseline is not finite, or `tried` is below K.
    """
    x = fill_stopped(losses)
    base, trials = np.asarray(baseline, np.float64), x.shape[1]
    if base.shape != (len(x),) or not np.isfinite(base).all():
        raise BitcornError(
            f"the baseline has losses {base.shape}, not all finite or not ({len(x)},), as the trials have"
        )
    tried = trials if tried is None else tried
    if tried < trials:
        raise BitcornError(f"tried is {tried}, but there are losses of {trials} trials: count all")
    better = base[:, None] - x
    differences = tuple(mean_test(column, horizon) for column in better.T)
    lag = hac_lag(len(x), horizon)
    pieces = degrees_of_freedom(len(x), lag)
    p_value = p_best = None
    if pieces >= LEAST_PIECES:
        p_values = np.array([test.p_positive for test in differences])
        z = -ndtri(np.clip(p_values, 1e-300, 1 - 1e-16))
        of_best = float(z[better.mean(0).argmax()])
        p_value = p_best = _sidak(_bootstrapped(better, z, lag + 1, reps, seed), tried / trials)
        if of_best < z.max():
            capped = np.minimum(z, of_best)  # which makes its statistic the largest
            p_best = _sidak(_bootstrapped(better, capped, lag + 1, reps, seed), tried / trials)
    return Superiority(
        p_value=p_value, p_best=p_best, tried=tried, block=lag + 1, pieces=pieces, differences=differences
    )


def _sidak(p_value: float, groups: float) -> float:
    """Return the p-value of the smallest p-value of several independent groups (Šidák 1967)."""
    return float(-math.expm1(groups * math.log1p(-p_value))) if p_value < 1 else 1.0


def _bootstrapped(better: Float, z: Float, block: int, reps: int, seed: int) -> float:
    """Return the p-value of the largest of the statistics z (K,) of the means of `better` (N, K)."""
    if z.max() <= 0:
        return 1.0  # Hansen's statistic is never below zero: no trial is better
    # Average a few neighbours to save time; blocks are much longer.
    most = int(np.clip(400_000 // better.shape[1], 250, 1_000))
    cell = max(1, min(len(better) // most, block // 4))
    count = len(better) // cell
    x = better[len(better) - count * cell :].reshape(count, cell, -1).mean(1)
    x -= x.mean(0)
    length = math.ceil(block / cell)
    deviation = np.sqrt(_bootstrap_variance(x, length))
    deviation[deviation <= 1e-14 * np.abs(better).max()] = np.inf  # a trial equal to the baseline
    y = x / deviation + z / math.sqrt(count)
    test = SPA(np.zeros(count), -y, block_size=length, reps=reps, seed=seed)
    test.compute()
    return float((1 + reps * test.pvalues["consistent"]) / (1 + reps))


def _bootstrap_variance(x: Float, block: int) -> Float:
    """Return the variance of sqrt(N) times the stationary-bootstrap mean of centred x (N, K) (Politis, Romano 1994)."""
    count = len(x)
    spectrum = np.abs(np.fft.rfft(x, 2 * count, axis=0)) ** 2
    gamma = np.fft.irfft(spectrum, 2 * count, axis=0)[:count] / count
    k = np.arange(count)
    stay = 1 - 1 / block
    weights = (1 - k / count) * stay**k + (k / count) * stay ** (count - k)
    weights[0] = 0.5
    variance: Float = 2 * (weights[:, None] * gamma).sum(0)
    return np.maximum(variance, 0)


def _halves(blocks: int) -> Iterator[NDArray[np.float64]]:
    """Yield all choices of half of the blocks as rows of zeros and ones, in chunks."""
    every = combinations(range(blocks), blocks // 2)
    while chosen := list(islice(every, _CHUNK)):
        rows = np.zeros((len(chosen), blocks))
        np.put_along_axis(rows, np.array(chosen), 1, axis=1)
        yield rows


def _future_ranks(past: Float, sums: Float, sizes: Float) -> Float:
    """Return the rank (C,) in the future, 1 for the best and 0 for the worst, of the best trial of each past."""
    before = (past @ sums) / (past @ sizes)[:, None]
    after = ((1 - past) @ sums) / ((1 - past) @ sizes)[:, None]
    chosen = before.argmin(1)
    own = np.take_along_axis(after, chosen[:, None], axis=1)
    worse, even = (after > own).sum(1), (after == own).sum(1) - 1
    ranks: Float = (worse + 0.5 * even) / (sums.shape[1] - 1)
    return ranks
