"""Outcomes of the h bars after bar t, from closes alone: the definition for targets, evaluation and watching.

return_h = ln p_{t+h} - ln p_t. With r the h one-bar log returns after t: realised variance = sum r^2, realised
volatility its root, and the return deviation = std(r) with ddof=0, which is zero at h = 1. A bar that was filled in was
not traded: an outcome that reaches over one is unknown, whatever filled it.

Shapes: T bars, N rows, H horizons.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def forward_return(log_close: Array, rows: Rows, horizon: int) -> Array:
    """Return the log return over the ``horizon`` bars after each row: (N,)."""
    return log_close[rows + horizon] - log_close[rows]


def realised_variance(log_close: Array, rows: Rows, horizon: int) -> Array:
    """Return the sum of the squared one-bar log returns in the ``horizon`` bars after each row: (N,)."""
    squares = np.zeros(len(rows))
    for k in range(1, horizon + 1):
        squares += (log_close[rows + k] - log_close[rows + k - 1]) ** 2
    return squares


def realised_volatility(log_close: Array, rows: Rows, horizon: int) -> Array:
    """Return the root of the realised variance after each row: (N,)."""
    return np.sqrt(realised_variance(log_close, rows, horizon))


def return_deviation(log_close: Array, rows: Rows, horizon: int) -> Array:
    """Return the standard deviation (ddof=0) of the one-bar log returns after each row: (N,)."""
    if horizon == 1:
        return np.zeros(len(rows))
    mean = forward_return(log_close, rows, horizon) / horizon
    squares = np.zeros(len(rows))
    for k in range(1, horizon + 1):
        squares += (log_close[rows + k] - log_close[rows + k - 1] - mean) ** 2
    return np.sqrt(squares / horizon)


def outcome_known(
    numbers: Rows, rows: Rows, horizons: Sequence[int], filled: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return True if the outcome after a row (N,) is among the bars (T,): (N, H).

    numbers: the bars' open times divided by the timeframe. filled: (T,) bars that were filled in. An outcome is known
    if the bar at the horizon exists and no bar is missing or filled before it or there.
    """
    ahead, last = rows[:, None] + np.asarray(horizons), len(numbers) - 1
    unbroken = numbers[np.minimum(ahead, last)] - numbers[rows][:, None] == np.asarray(horizons)
    # With missing bars, the last bar can be a horizon ahead in time but fewer rows ahead.
    known: NDArray[np.bool_] = unbroken & (ahead <= last)
    if filled is not None:
        count = np.concatenate(([0], np.cumsum(filled)))
        known &= count[np.minimum(ahead, last) + 1] == count[rows + 1][:, None]
    return known


def known_returns(
    log_close: Array, numbers: Rows, rows: Rows, horizons: Sequence[int], filled: NDArray[np.bool_] | None = None
) -> Array:
    """Return the log returns (N, H) after some rows (N,), NaN if they are not known.

    log_close: (T,). numbers, filled: as `outcome_known` takes them.
    """
    known = outcome_known(numbers, rows, horizons, filled)
    returns = np.full(known.shape, np.nan)
    for column, horizon in enumerate(horizons):
        returns[known[:, column], column] = forward_return(log_close, rows[known[:, column]], horizon)
    return returns


def outcomes(
    close: Array,
    horizons: Sequence[int],
    numbers: Rows | None = None,
    filled: NDArray[np.bool_] | None = None,
) -> tuple[Array, Array]:
    """Return the log returns and realised variances (T, H) after each bar, NaN if they are not known.

    numbers, filled: as `outcome_known` takes them; without numbers the rows are consecutive bars.
    """
    numbers = np.arange(len(close)) if numbers is None else numbers
    with np.errstate(invalid="ignore", divide="ignore"):
        log_close = np.log(np.asarray(close, np.float64))
    returns, variances = np.full((2, len(close), len(horizons)), np.nan)
    for column, horizon in enumerate(horizons):
        rows = np.flatnonzero(outcome_known(numbers, np.arange(len(close)), (horizon,), filled)[:, 0])
        returns[rows, column] = forward_return(log_close, rows, horizon)
        variances[rows, column] = realised_variance(log_close, rows, horizon)
    return returns, variances
