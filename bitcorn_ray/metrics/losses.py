"""Losses and metrics of forecasts by horizon, on windows that no training has seen.

Losses are by window, for tests of skill; metrics are means. All computations are in float64. A window whose outcome is
NaN (after a gap or the end of history) is left out and counted. A NaN forecast with a known outcome is refused:
leaving it out would flatter the model.

Outcomes of successive windows overlap; all intervals and p-values use errors that allow for that (see `hac`). The
interval of a share is Wilson's (1927), with the effective number of independent trials of that error.
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
    """Return QLIKE ln v + rv / v of forecast and realised variances, in nats; lowest on average if v is the mean of rv.

    Robust to the noise of rv as a proxy of the true variance (Patton 2011). Same shape as the inputs.
    """
    v = np.asarray(variance, np.float64)
    result: Float = np.log(v) + np.asarray(realised, np.float64) / v
    return result


def gaussian_nll(forecast: Array, volatility: Array, outcome: Array) -> Float:
    """Return the negative log density of the outcome under a normal forecast, in nats; same shape as the inputs."""
    sigma = np.asarray(volatility, np.float64)
    z = (np.asarray(outcome, np.float64) - forecast) / sigma
    result: Float = np.log(sigma) + 0.5 * z**2 + 0.5 * math.log(2 * math.pi)
    return result


def crps(forecast: Array, volatility: Array, outcome: Array) -> Float:
    """Return the continuous ranked probability score of a normal forecast (Gneiting and Raftery 2007)."""
    sigma = np.asarray(volatility, np.float64)
    result: Float = scoringrules.crps_normal(
        np.asarray(outcome, np.float64), np.asarray(forecast, np.float64), sigma, backend="numpy"
    )
    return result


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of windows with its 95 % interval (lower, upper).

    count: windows, or instants if several partitions are averaged. effective_count: equivalent number of independent
    trials.
    """

    count: int
    share: float
    lower: float
    upper: float
    effective_count: float


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Accuracy of the forecast's sign.

    accuracy: of the windows whose forecast and outcome both have a sign; `undecided` windows have none. expected: the
    accuracy of an uninformed forecaster with the same share of ups. p_value: of the accuracy being the expected one;
    p_better: against a higher one. They may indicate skill although `expected` is inside the interval of the accuracy:
    if most forecasts are up, most of the accuracy comes from the drift, which the test removes.
    """

    accuracy: Share
    undecided: int
    expected: float
    p_value: float
    p_better: float


@dataclass(frozen=True, kw_only=True)
class Band:
    """Observed coverage of a band.

    level: nominal coverage. covered: observed, None without bounded bands. width: mean of upper minus lower edge, as
    log return. unbounded: windows with an infinite band, because too few scores were mature; they do not count.
    """

    level: float
    covered: Share | None
    width: float | None
    unbounded: int


@dataclass(frozen=True, kw_only=True)
class Pit:
    """Probability integral transform of normal forecasts: uniform if they are right (Diebold, Gunther, Tay 1998).

    histogram: share of the outcomes in each of 20 equally likely bins, from the lowest. z_mean and z_std: of the errors
    in units of volatility, 0 and 1 if right. p_mean and p_spread: of a mean of 0, and a mean square of 1.
    p_calibrated: of uniformity, by the first four moments (Knüppel 2015). With many windows the smallest deviation is
    significant; the histogram shows its size.
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

    count: scored windows; unknown: windows without a known outcome. Errors of returns are log returns,
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
    """Return the share of hits (N,), booleans successive in time, with an interval for overlapping horizons."""
    return _wilson(np.asarray(hits, np.float64), horizon)


def direction(
    times: Sequence[NDArray[np.int64]], forecasts: Sequence[Array], outcomes: Sequence[Array], horizon: int
) -> Direction | None:
    """Return the directional accuracy of one or several partitions; None if no window has both signs.

    times, forecasts, outcomes: (N_p,) of each partition; several are averaged at each instant. NaN is unknown.
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
    """Return the transform of standardised errors z (N,) = (outcome - forecast) / volatility, successive in time."""
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
    """Return the metrics of the forecasts of successive windows of one partition, by horizon.

    forecast, volatility: (N, H) log return and its standard deviation. outcome, realised: (N, H) log return and its
    realised VARIANCE, NaN if unknown. close: (N,) price at each forecast. widths: (N, K, H)
    half-widths of the bands of K coverages, in units of the volatility, as `rolling_widths` gives them.
    Raises BitcornError if shapes differ, a horizon has no known outcome, or a forecast is not finite (or a volatility
    not above 0) at a window with a known outcome.
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
        mean, sigma, realised_return, variance, price = (np.asarray(column, np.float64)[known] for column in columns)
        if not known.any():
            raise BitcornError(f"no outcome of horizon {horizon} is known: give windows {horizon} bars before the end")
        bad = ~(np.isfinite(mean) & np.isfinite(sigma) & (sigma > 0))
        if bad.any():
            raise BitcornError(
                f"{bad.sum()} of {len(bad)} forecasts of horizon {horizon} are not finite or have a volatility of 0 or "
                "less: every window with a known outcome needs a forecast"
            )
        error = realised_return - mean
        price_error = price * (np.exp(realised_return) - np.exp(mean))
        results.append(
            HorizonMetrics(
                horizon=int(horizon),
                count=int(known.sum()),
                unknown=int((~known).sum()),
                rmse_return=float(np.sqrt(np.mean(error**2))),
                mae_return=float(np.mean(np.abs(error))),
                rmse_price=float(np.sqrt(np.mean(price_error**2))),
                mae_price=float(np.mean(np.abs(price_error))),
                direction=direction([np.flatnonzero(known)], [mean], [realised_return], horizon),
                qlike=float(np.mean(qlike(sigma**2, variance))),
                nll=float(np.mean(gaussian_nll(mean, sigma, realised_return))),
                crps=float(np.mean(crps(mean, sigma, realised_return))),
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
    """Return Wilson's interval of the mean p of hits (N,), with as many trials as give a share of p the same error.

    hits: 0 or 1, or averages of these over several partitions, which count as more trials than there are instants.
    """
    count, p, error = len(hits), float(hits.mean()), mean_test(hits, horizon).standard_error
    # All hits, or none, have no error; then windows without overlap are the trials.
    independent = p * (1 - p) / error**2 if error else count / horizon
    trials = max(independent, 1.0)
    z = float(stdtrit(degrees_of_freedom(count, hac_lag(count, horizon)), 0.975))
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return Share(
        count=count, share=p, lower=max(0.0, centre - half), upper=min(1.0, centre + half), effective_count=trials
    )


def _joint_p_value(x: Float, horizon: int) -> float:
    """Return the p-value of zero means of all K columns of x (N, K): a Wald test with Hotelling's F."""
    count, columns = x.shape
    lag = hac_lag(count, 2 * horizon)  # twice the lags: the bias of Bartlett's weights adds up over the columns
    rest = degrees_of_freedom(count, lag) - columns + 1
    if count <= columns or rest <= 0:
        return 1.0  # too few windows
    mean = x.mean(0)
    wald = count * float(mean @ np.linalg.pinv(long_run_covariance(x, lag), hermitian=True) @ mean)
    return float(fdtrc(columns, rest, wald * rest / (columns * (rest + columns - 1))))
