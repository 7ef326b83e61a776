"""Bars whose true variance is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from bitcorn_ray.models.baselines.history import History

HOUR = 3_600_000


class Simulated(NamedTuple):
    """Bars, and the variance (T,) of the bar after each row that they were drawn with."""

    history: History
    variance_ahead: np.ndarray


def simulate(rows, seed=0, timeframe_ms=HOUR, omega=2e-6, alpha=0.1, beta=0.88, busy_hours=0.0):
    """GARCH(1,1) bars; with busy_hours, the afternoons' variance is exp(busy_hours) times the mornings'."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((rows, 16)) / 4  # a bar is a walk of 16 steps
    timestamps = 1_600_000_000_000 // timeframe_ms * timeframe_ms + timeframe_ms * np.arange(rows)
    season = np.exp(busy_hours * ((timestamps // HOUR % 24 >= 12) - 0.5))
    variance = omega / (1 - alpha - beta)
    close, high, low = np.empty((3, rows))
    variances = np.empty(rows + 1)
    level = 3.0
    for t in range(rows):
        variances[t] = variance * season[t]
        path = level + np.sqrt(variances[t]) * np.concatenate([[0.0], steps[t].cumsum()])
        high[t], low[t] = path.max(), path.min()
        variance = omega + (alpha * steps[t].sum() ** 2 + beta) * variance
        level = close[t] = path[-1]
    variances[rows] = variance
    history = History(
        timestamps=timestamps, high=np.exp(high), low=np.exp(low), close=np.exp(close), timeframe_ms=timeframe_ms
    )
    return Simulated(history, variances[1:])


@pytest.fixture(scope="session")
def simulated():
    """The function that makes simulated bars."""
    return simulate


@pytest.fixture
def changed_after():
    """A function that returns a history with other prices after a row."""

    def change(history: History, row: int) -> History:
        factor = np.ones(len(history.close))
        factor[row + 1 :] = np.exp(np.random.default_rng(row).normal(0, 0.1, len(factor) - row - 1))
        return History(
            timestamps=history.timestamps,
            high=history.high * factor * np.where(factor == 1, 1, 1.1),
            low=history.low * factor,
            close=history.close * factor,
            timeframe_ms=history.timeframe_ms,
        )

    return change
