"""How good forecasts were, horizon by horizon, on windows that no training has seen.

Losses are given window by window, as tests of skill need them, and metrics as their means. All is computed in float64.
A window whose outcome is NaN (a gap or the end of history comes before it) is left out, and counted; a forecast that is
NaN where an outcome is known is refused, as leaving it out would flatter the forecaster.

Windows of one partition follow each other in time and their outcomes overlap, so that every interval and p-value here
comes from errors that allow for that (see `hac`). An interval of a share is Wilson's (1927), with as many effective
independent trials as that error speaks of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scoringrules
from numpy.typing import NDArray
from scipy.special import fdtrc, ndtr, stdtrit

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.hac import (
    average_by_instant,
    degrees_of_freedom,
    hac_lag,
    long_run_covariance,
    mean_test,
)

Array = NDArray[np.floating]
Float = NDArray[np.float64]

_BINS = 20


def qlike(variance: Array, realised: Array) -> Float:
    """QLIKE ln v + rv / v of forecast and realised variances, in nats; lowest on average for v the expectation of rv.

    Robust to the noise of rv as a proxy of the true variance (Patton 2011). Same shape as the inputs.
    """
    v = np.asarray(variance, np.float64)
    result: Float = np.log(v) + np.asarray(realised, np.float64) / v
    return result


def gaussian_nll(forecast: Array, volatility: Array, outcome: Array) -> Float:
    """Negative log density of the outcome under a normal forecast, in nats; same shape as the inputs."""
    sigma = np.asarray(volatility, np.float64)
    z = (np.asarray(outcome, np.float64) - forecast) / sigma
    result: Float = np.log(sigma) + 0.5 * z**2 + 0.5 * math.log(2 * math.pi)
    return result


def crps(forecast: Array, volatility: Array, outcome: Array) -> Float:
    """Continuous ranked probability score of a normal forecast, in units of the outcome (Gneiting and Raftery 2007)."""
    sigma = np.asarray(volatility, np.float64)
    result: Float = scoringrules.crps_normal(
        np.asarray(outcome, np.float64), np.asarray(forecast, np.float64), sigma, backend="numpy"
    )
    return result


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of windows with its 95 % interval (lower, upper).

    count: windows, or instants where several partitions are averaged. effective_count: independent trials that would
    tell as much.
    """

    count: int
    share: float
    lower: float
    upper: float
    effective_count: float


@dataclass(frozen=True, kw_only=True)
class Direction:
    """How often the forecast's sign was right.

    accuracy: of the windows whose forecast and outcome both have a sign; `undecided` windows have none. expected: the
    accuracy of a forecaster who says up as often as this one, without knowing when. p_value: of the accuracy being the
    expected one; p_better: against a higher one. They may tell of skill where `expected` lies inside the interval of
    the accuracy: where most forecasts say up, most is right or wrong by the drift alone, which the test leaves out.
    """

    accuracy: Share
    undecided: int
    expected: float
    p_value: float
    p_better: float


@dataclass(frozen=True, kw_only=True)
class Band:
    """What a band held of its promise.

    level: promised coverage. covered: observed, None where no band was bounded. width: mean of upper less lower edge,
    as log return. unbounded: windows whose band was infinite, as too few scores were mature; they count for neither.
    """

    level: float
    covered: Share | None
    width: float | None
    unbounded: int


@dataclass(frozen=True, kw_only=True)
class Pit:
    """Probability integral transform of normal forecasts: uniform where they are right (Diebold, Gunther, Tay 1998).

    histogram: share of the outcomes in each of 20 equally likely bins, from the lowest. z_mean and z_std: of the errors
    in units of volatility, 0 and 1 where right. p_mean and p_spread: of a mean of 0, and a mean square of 1.
    p_calibrated: of uniformity, by the first four moments (Knüppel 2015). With many windows the smallest departure is
    significant: look at the histogram for its size.
    """

    histogram: tuple[float, ...]
    z_mean: float
    z_std: float
    p_mean: float
    p_spread: float
    p_calibrated: float


@dataclass(frozen=True, kw_only=True)
class HorizonMetrics:
    """Metrics of the forecasts of one horizon.

    count: windows scored; unknown: those left out as their outcome is not known. Errors of returns are log returns,
    those of prices in the unit of the close; qlike and nll in nats; crps as log return.
    """

    horizon: int
    count: int
    unknown: int
    rmse_return: float
    mae_return: float
    rmse_price: float
    mae_price: float
    direction: Direction | None
    qlike: float
    nll: float
    crps: float
    bands: tuple[Band, ...]
    pit: Pit


def share(hits: NDArray[np.bool_], horizon: int) -> Share:
    """Share of hits (N,), booleans successive in time, with the interval that overlapping horizons leave."""
    return _wilson(np.asarray(hits, np.float64), horizon)


def direction(
    times: Sequence[NDArray[np.int64]], forecasts: Sequence[Array], outcomes: Sequence[Array], horizon: int
) -> Direction | None:
    """Directional accuracy of one or several partitions; None where no window has both signs.

    times, forecasts, outcomes: (N_p,) of each partition; several are averaged at each instant. NaN is not known.
    The test of Pesaran and Timmermann (1992) on the accuracy in excess of the expected one, with an error that respects
    overlapping horizons: the excess is the mean of 2 (f - mean f) (y - mean y), with f and y 1 for up and 0 for down.
    """
    terms, undecided = [], 0
    for forecast, outcome in zip(forecasts, outcomes, strict=True):
        known = np.isfinite(forecast) & np.isfinite(outcome)
        decided = known & (forecast != 0) & (outcome != 0)
        undecided += int((known & ~decided).sum())
        up, rose = np.where(decided, forecast > 0, np.nan), np.where(decided, outcome > 0, np.nan)
        if decided.any():
            excess = 2 * (up - np.nanmean(up)) * (rose - np.nanmean(rose))
            terms.append(np.column_stack([np.where(decided, up == rose, np.nan), excess]))
        else:
            terms.append(np.full((len(up), 2), np.nan))
    averages = average_by_instant(times, terms)
    if not len(averages):
        return None
    accuracy, excess_test = _wilson(averages[:, 0], horizon), mean_test(averages[:, 1], horizon)
    return Direction(
        accuracy=accuracy,
        undecided=undecided,
        expected=accuracy.share - excess_test.mean,
        p_value=excess_test.p_value,
        p_better=excess_test.p_positive,
    )


def pit(z: Array, horizon: int) -> Pit:
    """Transform of standardised errors z (N,) = (outcome - forecast) / volatility, successive in time."""
    u = ndtr(np.asarray(z, np.float64))
    counts = np.bincount(np.minimum((u * _BINS).astype(int), _BINS - 1), minlength=_BINS)
    y = math.sqrt(12) * (u - 0.5)
    moments = np.stack([y, y**2 - 1, y**3, y**4 - 9 / 5], axis=1)  # each zero on average for a uniform u
    return Pit(
        histogram=tuple((counts / len(u)).tolist()),
        z_mean=float(np.mean(z)),
        z_std=float(np.std(z)),
        p_mean=mean_test(z, horizon).p_value,
        p_spread=mean_test(np.asarray(z, np.float64) ** 2 - 1, horizon).p_value,
        p_calibrated=_joint_p_value(moments, horizon),
    )


def forecast_metrics(
    horizons: Sequence[int],
    forecast: Array,
    volatility: Array,
    outcome: Array,
    realised: Array,
    close: Array,
    coverages: Sequence[float],
    widths: Array,
) -> list[HorizonMetrics]:
    """Score the forecasts of successive windows of one partition, horizon by horizon.

    forecast, volatility: (N, H) log return and its standard deviation. outcome, realised: (N, H) log return and its
    realised VARIANCE, NaN where not known. close: (N,) price at which each forecast was made. widths: (N, K, H)
    half-widths of the bands of K coverages, in units of the volatility, as `rolling_widths` gives them.
    Raises BitcornError where shapes differ, a horizon has no known outcome, or a forecast isn't finite (or a volatility
    not above 0) where the outcome is known.
    """
    shape = (len(close), len(horizons))
    given_arrays = {"forecast": forecast, "volatility": volatility, "outcome": outcome, "realised": realised}
    for name, given in given_arrays.items():
        if given.shape != shape:
            raise BitcornError(f"{name} has shape {given.shape}, not {shape}: one row a window, one column a horizon")
    if widths.shape != (shape[0], len(coverages), shape[1]):
        raise BitcornError(f"widths have shape {widths.shape}, not {(shape[0], len(coverages), shape[1])}")
    results = []
    for j, horizon in enumerate(horizons):
        columns = (forecast[:, j], volatility[:, j], outcome[:, j], realised[:, j], close)
        known = np.isfinite(outcome[:, j]) & np.isfinite(realised[:, j])
        mean, sigma, happened, variance, price = (np.asarray(column, np.float64)[known] for column in columns)
        if not known.any():
            raise BitcornError(f"no outcome of horizon {horizon} is known: give windows {horizon} bars before the end")
        bad = ~(np.isfinite(mean) & np.isfinite(sigma) & (sigma > 0))
        if bad.any():
            raise BitcornError(
                f"{bad.sum()} of {len(bad)} forecasts of horizon {horizon} are not finite or have a volatility of 0 or "
                "less: a forecaster must answer at every window whose outcome is known"
            )
        error = happened - mean
        price_error = price * (np.exp(happened) - np.exp(mean))
        results.append(
            HorizonMetrics(
                horizon=int(horizon),
                count=int(known.sum()),
                unknown=int((~known).sum()),
                rmse_return=float(np.sqrt(np.mean(error**2))),
                mae_return=float(np.mean(np.abs(error))),
                rmse_price=float(np.sqrt(np.mean(price_error**2))),
                mae_price=float(np.mean(np.abs(price_error))),
                direction=direction([np.flatnonzero(known)], [mean], [happened], horizon),
                qlike=float(np.mean(qlike(sigma**2, variance))),
                nll=float(np.mean(gaussian_nll(mean, sigma, happened))),
                crps=float(np.mean(crps(mean, sigma, happened))),
                bands=tuple(
                    _band(float(level), np.asarray(widths[known, k, j], np.float64), sigma, error, horizon)
                    for k, level in enumerate(coverages)
                ),
                pit=pit(error / sigma, horizon),
            )
        )
    return results


def _band(level: float, width: Float, sigma: Float, error: Float, horizon: int) -> Band:
    bounded = np.isfinite(width)
    half = width[bounded] * sigma[bounded]
    return Band(
        level=level,
        covered=share(np.abs(error[bounded]) <= half, horizon) if bounded.any() else None,
        width=float(2 * half.mean()) if bounded.any() else None,
        unbounded=int((~bounded).sum()),
    )


def _wilson(hits: Float, horizon: int) -> Share:
    """Wilson's interval of the mean p of hits (N,), of as many trials as would give a share of p the same error.

    hits: 0 or 1, or averages of these over several partitions, which are worth more trials than there are instants.
    """
    count, p, error = len(hits), float(hits.mean()), mean_test(hits, horizon).standard_error
    # All hits, or none, have no error; then windows that don't overlap are the trials.
    independent = p * (1 - p) / error**2 if error else count / horizon
    trials = max(independent, 1.0)
    z = float(stdtrit(degrees_of_freedom(count, hac_lag(count, horizon)), 0.975))
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return Share(
        count=count, share=p, lower=max(0.0, centre - half), upper=min(1.0, centre + half), effective_count=trials
    )


def _joint_p_value(x: Float, horizon: int) -> float:
    """Of the means of all K columns of x (N, K) being zero: a Wald test, Hotelling's F for the pieces there are."""
    count, columns = x.shape
    lag = hac_lag(count, 2 * horizon)  # what Bartlett's weights miss adds up over the columns: twice the lags
    rest = degrees_of_freedom(count, lag) - columns + 1
    if count <= columns or rest <= 0:
        return 1.0  # too few to tell
    mean = x.mean(0)
    wald = count * float(mean @ np.linalg.pinv(long_run_covariance(x, lag), hermitian=True) @ mean)
    return float(fdtrc(columns, rest, wald * rest / (columns * (rest + columns - 1))))
