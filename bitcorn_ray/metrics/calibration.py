"""Calibrated intervals: conformal prediction (Vovk et al. 2005; Lei et al. 2018).

A score is the error of a forecast in units of its own volatility, |return - forecast| / volatility, on windows that the
weights were not fitted on. The finite-sample quantile of n scores at level c covers a new exchangeable score with a
probability of at least c.

A market is not exchangeable with its past. `rolling_widths` therefore takes the quantile of recent scores:

1. The score of a forecast made at bar t for horizon h is mature when bar t + h has closed. Bars are numbers on the grid
   of the timeframe, so that missing bars count as time.
2. The band of the forecast made at bar t comes from the last `window` scores that are mature at t, for each horizon.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

COVERAGES = (0.5, 0.8, 0.95)
SCORE_WINDOW = 4_000
"""Number of mature scores of each horizon that a band comes from."""

Array = NDArray[np.floating]
Rows = NDArray[np.int64]


def conformal_scores(forecast: Array, volatility: Array, outcome: Array) -> Array:
    """Return absolute errors in units of the predicted volatility, NaN for unknown outcomes; shape as the inputs."""
    return np.abs(outcome - forecast) / volatility


def conformal_quantile(scores: Array, coverage: float) -> Array:
    """Return the half-width of the band in units of volatility: the ceil((n + 1) coverage)-th smallest of n scores.

    scores: (n, H) -> (H,). With too few scores for the level the band is infinite.
    """
    _require_coverage(coverage)
    rank = _rank(len(scores), coverage)
    if rank > len(scores):
        return np.full(scores.shape[1:], np.inf)
    quantile: Array = np.partition(scores, rank - 1, axis=0)[rank - 1]
    return quantile


def rolling_widths(
    bars: Rows,
    scores: Array,
    requested: Rows,
    horizons: Sequence[int],
    coverages: Sequence[float] = COVERAGES,
    window: int = SCORE_WINDOW,
) -> NDArray[np.float32]:
    """Return the half-widths (N, K, H), in units of volatility, of the forecasts made at the requested bars (N,).

    The band of a forecast made at bar t and horizon h is the conformal quantile of the last `window` scores of
    forecasts made no later than bar t - h. It is infinite if these are too few for the level.
    bars: (M,) numbers on the timeframe's grid, ascending. scores: (M, H) of the forecasts made there, NaN for unknown
    ones, which do not count. requested: ascending numbers too. coverages: (K,) levels between 0 and 1.
    Raises BitcornError for bars that do not ascend, scores that are negative, infinite or of another shape, and invalid
    options.
    """
    if not horizons or min(horizons) < 1 or window < 1:
        raise BitcornError(f"horizons {tuple(horizons)} and window {window}: give horizons and a window of 1 or more")
    for coverage in coverages:
        _require_coverage(coverage)
    for name, numbers in (("bars", bars), ("requested bars", requested)):
        if (len(numbers) and not np.issubdtype(numbers.dtype, np.integer)) or (np.diff(numbers) <= 0).any():
            raise BitcornError(f"{name} of type {numbers.dtype} do not ascend: give ascending whole numbers")
    scores = np.asarray(scores, np.float32)
    if scores.shape != (len(bars), len(horizons)):
        raise BitcornError(f"scores have shape {scores.shape}, not {(len(bars), len(horizons))}: bars x horizons")
    if (invalid := np.isinf(scores) | (scores < 0)).any():
        raise BitcornError(
            f"{np.count_nonzero(invalid)} scores are infinite or negative: a score is |return - forecast| / volatility "
            "with a volatility above 0, or NaN if the return is unknown"
        )
    widths = np.full((len(requested), len(coverages), len(horizons)), np.inf, np.float32)
    for j, horizon in enumerate(horizons):
        known = ~np.isnan(scores[:, j])
        mature = np.searchsorted(bars[known] + horizon, requested, side="right").tolist()
        _roll(scores[known, j].tolist(), mature, coverages, window, widths[:, :, j])
    return widths


def _roll(
    scores: list[float], mature: list[int], coverages: Sequence[float], window: int, out: NDArray[np.float32]
) -> None:
    """Write the widths (N, K) of one horizon. mature: for each forecast the number of scores that are mature."""
    added = mature[0] if mature else 0
    # Bisection keeps a list of Python floats sorted faster than an array.
    ordered, ranks = sorted(scores[max(added - window, 0) : added]), list[tuple[int, int]]()
    size = 0
    for row, count in enumerate(mature):
        for index in range(added, count):
            insort(ordered, scores[index])
            if len(ordered) > window:
                del ordered[bisect_left(ordered, scores[index - window])]
        added = count
        if len(ordered) != size:
            size = len(ordered)
            ranks = [(k, _rank(size, coverage)) for k, coverage in enumerate(coverages)]
        for k, rank in ranks:
            if rank <= size:
                out[row, k] = ordered[rank - 1]


def _rank(count: int, coverage: float) -> int:
    # Rounded, because 100 x 0.55 is a little more than 55 in floating point.
    return math.ceil(round((count + 1) * coverage, 9))


def _require_coverage(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise BitcornError(f"coverage is {coverage}: it must lie between 0 and 1")
