"""Standard errors and tests of means of dependent series.

Forecasts of horizon h made at every bar share h - 1 bars with their neighbours, and volatility clusters: the terms of a
mean are far from independent, and the usual error s / sqrt(n) is too small. Here the variance of the mean is the
long-run variance over n, heteroskedasticity and autocorrelation consistent (Newey and West 1987):

    lrv = gamma_0 + 2 sum_{k=1..lag} (1 - k / (lag + 1)) gamma_k

1. The lag is the larger of 1.3 sqrt(n) (Lazarus, Lewis, Stock and Watson 2018) and 4 (h - 1): with h - 1, the order of
   the overlap, Bartlett's falling weights would miss a third of the variance; with four times that, a twelfth.
2. Autocovariances about an estimated mean are too small. The sum is divided by its factor on white noise,
   1 - 1/n - 2 sum w_k (n - k) / n^2: the correction of Harvey, Leybourne and Newbold (1997), for this kernel instead of
   their rectangular one.
3. The error is an estimate from about 1.5 n / (lag + 1) independent pieces: these are the degrees of freedom of the
   Student distribution of the statistic, instead of their n - 1.

Partitions of one market move together: the terms of several partitions are first averaged at each instant
(`average_by_instant`), and the averages are the series.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from bitcorn_ray.errors import BitcornError

Array = NDArray[np.floating]
Float = NDArray[np.float64]


def hac_lag(count: int, horizon: int) -> int:
    """Return the number of autocovariances for `count` overlapping terms: see 1 above; at most half of all terms."""
    return max(0, min(count // 2, max(4 * (horizon - 1), math.ceil(1.3 * math.sqrt(count)))))


def degrees_of_freedom(count: int, lag: int) -> float:
    """Return the number of independent pieces of a long-run variance: see 3 above."""
    return 1.5 * count / (lag + 1)


def long_run_covariance(x: Array, lag: int) -> Float:
    """Return the long-run covariance (K, K) of the columns of x (N, K), successive in time: see 1 and 2 above.

    It is positive semi-definite. Divided by N it is the covariance of the columns' means.
    """
    count = len(x)
    centred = np.asarray(x, np.float64)
    centred = centred - centred.mean(0)
    total = centred.T @ centred / count
    lags = np.arange(1, lag + 1)
    weights = 1 - lags / (lag + 1)
    for k, weight in zip(lags, weights, strict=True):
        gamma = centred[k:].T @ centred[:-k] / count
        total += weight * (gamma + gamma.T)
    short = 1 - 1 / count - 2 * float((weights * (count - lags)).sum()) / count**2
    result: Float = total / short if short > 0 else total
    return result


def average_by_instant(times: Sequence[NDArray[np.int64]], values: Sequence[Array]) -> Float:
    """Return the means of K series over the partitions with values at each instant: (M, K), in time order.

    times, values: (N_p,) and (N_p, K) of each partition; rows with a value that is not finite are left out.
    Raises BitcornError if lengths differ.
    """
    lengths = [len(own) for own in times], [len(own) for own in values]
    if lengths[0] != lengths[1] or not lengths[0]:
        raise BitcornError(f"{lengths[0]} times and {lengths[1]} values of each partition: give as many of both")
    instants, rows = np.concatenate(times), np.concatenate(values).astype(np.float64)
    known = np.isfinite(rows).all(1)
    different, index, counts = np.unique(instants[known], return_inverse=True, return_counts=True)
    sums = np.zeros((len(different), rows.shape[1]))
    np.add.at(sums, index, rows[known])
    averages: Float = sums / counts[:, None]
    return averages


@dataclass(frozen=True, kw_only=True)
class MeanTest:
    """A test of a zero mean.

    count: terms. lag: autocovariances. standard_error: of the mean; None for fewer than two terms. statistic:
    mean / standard_error, 0 if undefined. p_value: two-sided; p_negative and p_positive: against a mean below or above
    zero.
    """

    count: int
    lag: int
    mean: float
    standard_error: float | None
    statistic: float
    p_value: float
    p_negative: float
    p_positive: float


def mean_test(x: Array, horizon: int) -> MeanTest:
    """Test whether the mean of a series (N,), successive in time and finite, of forecasts `horizon` bars ahead is zero.

    A series of zeros has p-values of 1; another constant has p-values of 0 and 1. With fewer than 2 terms all p-values
    are 1. Raises BitcornError for values that are not finite.
    """
    x = np.asarray(x, np.float64)
    if not np.isfinite(x).all():
        raise BitcornError(f"{np.count_nonzero(~np.isfinite(x))} of {len(x)} values are not finite: leave them out")
    count, lag = len(x), hac_lag(len(x), horizon)
    mean = float(x.mean()) if count else 0.0
    error: float | None = None
    statistic, below, above = 0.0, 1.0, 1.0
    if count >= 2:
        error = math.sqrt(max(float(long_run_covariance(x[:, None], lag)[0, 0]), 0.0) / count)
        # By rounding, a constant series has a variance of a few units in the last place of its level.
        if error <= 1e-14 * np.abs(x).max():
            error, below, above = 0.0, float(mean >= 0), float(mean <= 0)
        else:
            statistic = mean / error
            pieces = degrees_of_freedom(count, lag)
            below, above = float(stdtr(pieces, statistic)), float(stdtr(pieces, -statistic))
    return MeanTest(
        count=count,
        lag=lag,
        mean=mean,
        standard_error=error,
        statistic=statistic,
        p_value=min(1.0, 2 * min(below, above)),
        p_negative=below,
        p_positive=above,
    )
