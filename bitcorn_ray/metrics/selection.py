"""What it costs to choose among many: the best of many trials looks good even where none of them is.

Losses are (N, K): one row a window, successive in time, one column a trial; lower is better. NaN is a trial that was
stopped before it came to that window. `fill_stopped` fills in its losses, so that it counts among the tried.

Probability of backtest overfitting, by combinatorially symmetric cross-validation (CSCV; Bailey, Borwein, Lopez de
Prado and Zhu 2015):
1. The rows are cut into an even number of blocks. Each choice of half of them is past once, the others are its future.
2. The trial with the lowest mean loss of the past has a rank in the future. The probability is how often that rank lies
   below the median; 0.5 where choosing tells nothing.

Superior predictive ability (Hansen 2005): is the best of all K trials better than a baseline, by more than the best of
K trials without skill would be?
1. Each trial's mean difference from the baseline is tested as in `hac`, which knows of overlapping horizons and of
   its own uncertainty. Its Student statistic is brought to the normal scale.
2. `arch.bootstrap.SPA` (stationary bootstrap, blocks of the length of those tests' lag) tells how large the largest of
   K such statistics grows by chance. It compares raw means, so that each trial's difference goes in with the standard
   deviation that gives its bootstrapped mean a variance of one. Merely divided by their standard errors, differences
   make a test at 1 % that finds something in 2 to 9 % of cases where there is nothing; so made, in 1 to 2 %.
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
    """How often what was best in one half of history ranks below the median in the other.

    probability: that share; a rank on the median counts half. blocks: that history was cut into. combinations: of them.
    median_rank: of the chosen in the future, 1 the best and 0 the worst of all trials.
    """

    probability: float
    blocks: int
    combinations: int
    median_rank: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Superiority:
    """Whether the best of the trials beats a baseline, and each trial by itself.

    p_value: that the largest statistic of `tried` trials without skill would be as large as the largest one here: small
    where some trial is better than the baseline. p_best: as large as that of the trial with the lowest mean loss, which
    need not have the largest one. Both None where the windows are too few to tell.
    block: windows a block. pieces: independent ones that all windows are worth.
    differences: of each trial, loss of the baseline less that of the trial: a positive mean is better; their p-values
    are those of a single trial (Diebold and Mariano 1995), which knows nothing of having been chosen.
    """

    p_value: float | None
    p_best: float | None
    tried: int
    block: int
    pieces: float
    differences: tuple[MeanTest, ...]


@dataclass(frozen=True, kw_only=True)
class RankStability:
    """Whether folds agree on which trials are good.

    concordance: Kendall's W, 1 where all folds rank the trials alike. correlation: Spearman's, mean of all pairs of
    folds. p_value: of folds that rank independently of each other (Friedman 1937).
    """

    concordance: float
    correlation: float
    p_value: float


def fill_stopped(losses: Array) -> Float:
    """Losses (N, K) with the missing ones of each trial at its mean distance from the others, in float64.

    The others are the trials that have all their losses or, where there is none, those that have that window's.
    Raises BitcornError where a window has no loss at all, or a trial none.
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
    """Mean loss (F, K) of each fold's windows, NaN where a trial has none; folds (N,): the number of each row's."""
    x = np.asarray(losses, np.float64)
    known = np.isfinite(x)
    numbers, place = np.unique(folds, return_inverse=True)
    member = (place == np.arange(len(numbers))[:, None]).astype(np.float64)
    counts = member @ known
    sums: Float = np.where(counts > 0, member @ np.where(known, x, 0) / np.maximum(counts, 1), np.nan)
    return sums


def rank_stability(means: Array) -> RankStability | None:
    """Agreement of folds on trials with mean losses (F, K); None with one fold or trial, or where nothing differs."""
    folds, trials = np.shape(means)
    if folds < 2 or trials < 2:
        return None
    ranks = rankdata(means, axis=1)
    greatest = folds * ((ranks - (trials + 1) / 2) ** 2).sum()  # of the rank sums, were all folds like each other
    if greatest == 0:
        return None
    concordance = float(((ranks.sum(0) - folds * (trials + 1) / 2) ** 2).sum() / greatest)
    return RankStability(
        concordance=concordance,
        correlation=(folds * concordance - 1) / (folds - 1),
        p_value=float(chdtrc(trials - 1, folds * (trials - 1) * concordance)),
    )


def backtest_overfitting(losses: Array, horizon: int = 1, blocks: int = 16) -> Overfitting | None:
    """Probability of backtest overfitting of choosing by mean loss (N, K): see the module; None with one trial.

    horizon: windows that a label spans: from each block the last horizon - 1 are left out, whose labels reach into the
    next. blocks: at most; fewer, in even number, where a block would have fewer than two horizons.
    Raises BitcornError where there are too few windows for two blocks.
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
    places = np.concatenate([_future_places(halves, sums, sizes) for halves in _halves(count)])
    below = np.count_nonzero(places < 0.5 - 1e-12) + 0.5 * np.count_nonzero(abs(places - 0.5) <= 1e-12)
    return Overfitting(
        probability=float(below / len(places)),
        blocks=count,
        combinations=len(places),
        median_rank=float(np.median(places)),
    )


def superior_ability(
    baseline: Array, losses: Array, horizon: int, tried: int | None = None, reps: int = 2_000, seed: int = 0
) -> Superiority:
    """Test the best of K trials, losses (N, K), against a baseline's (N,), windows successive in time.

    horizon: windows that a label spans. tried: how many trials were made, where not all of them have losses here: the
    p-value is then that of as many more groups of K. reps: bootstrap samples; the p-value is at least 1 / (reps + 1).
    Raises BitcornError where shapes differ, a loss of the baseline is not finite, or `tried` is below K.
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
        chances = np.array([test.p_positive for test in differences])
        z = -ndtri(np.clip(chances, 1e-300, 1 - 1e-16))
        of_best = float(z[better.mean(0).argmax()])
        p_value = p_best = _counting(_bootstrapped(better, z, lag + 1, reps, seed), tried / trials)
        if of_best < z.max():
            capped = np.minimum(z, of_best)  # which makes its statistic the largest
            p_best = _counting(_bootstrapped(better, capped, lag + 1, reps, seed), tried / trials)
    return Superiority(
        p_value=p_value, p_best=p_best, tried=tried, block=lag + 1, pieces=pieces, differences=differences
    )


def _counting(p_value: float, groups: float) -> float:
    """P-value of the smallest of so many independent groups' p-values (Šidák 1967)."""
    return float(-math.expm1(groups * math.log1p(-p_value))) if p_value < 1 else 1.0


def _bootstrapped(better: Float, z: Float, block: int, reps: int, seed: int) -> float:
    """P-value of the largest of the statistics z (K,) of the means of `better` (N, K)."""
    if z.max() <= 0:
        return 1.0  # Hansen's statistic is never below zero: nothing is better, whatever chance may do
    # Means of a few neighbours stand for them: blocks are much longer, and time is saved.
    most = int(np.clip(400_000 // better.shape[1], 250, 1_000))
    cell = max(1, min(len(better) // most, block // 4))
    count = len(better) // cell
    x = better[len(better) - count * cell :].reshape(count, cell, -1).mean(1)
    x -= x.mean(0)
    length = math.ceil(block / cell)
    deviation = np.sqrt(_bootstrap_variance(x, length))
    deviation[deviation <= 1e-14 * np.abs(better).max()] = np.inf  # what never differs has nothing to bootstrap
    y = x / deviation + z / math.sqrt(count)
    test = SPA(np.zeros(count), -y, block_size=length, reps=reps, seed=seed)
    test.compute()
    return float((1 + reps * test.pvalues["consistent"]) / (1 + reps))


def _bootstrap_variance(x: Float, block: int) -> Float:
    """Variance of sqrt(N) times the stationary bootstrap's mean of x (N, K), centred (Politis and Romano 1994)."""
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
    """All choices of half of the blocks as rows of zeros and ones, some at a time."""
    every = combinations(range(blocks), blocks // 2)
    while chosen := list(islice(every, _CHUNK)):
        rows = np.zeros((len(chosen), blocks))
        np.put_along_axis(rows, np.array(chosen), 1, axis=1)
        yield rows


def _future_places(past: Float, sums: Float, sizes: Float) -> Float:
    """Place (C,) in the future, 1 the best and 0 the worst trial, of what was best in the past (C, blocks)."""
    before = (past @ sums) / (past @ sizes)[:, None]
    after = ((1 - past) @ sums) / ((1 - past) @ sizes)[:, None]
    chosen = before.argmin(1)
    own = np.take_along_axis(after, chosen[:, None], axis=1)
    worse, even = (after > own).sum(1), (after == own).sum(1) - 1
    places: Float = (worse + 0.5 * even) / (sums.shape[1] - 1)
    return places
