"""A simulated market for demonstrations and tests, with the difficulties of real markets.

The variance of the log price follows GARCH(1,1) (Bollerslev 1986) with Student-t shocks: volatility clusters, and there
are extremes. Each bar consists of finer steps, so that its prices agree; volume rises with volatility; some stretches
of bars are missing, as after an outage.
"""

from __future__ import annotations

import numpy as np

from bitcorn_ray.market.bars import Bars

_FIRST_TIME = 1_672_531_200_000  # 2023-01-01T00:00:00Z
_STEPS_PER_BAR = 12


def simulate_bars(bars: int, *, seed: int, step_ms: int = 3_600_000, price: float = 100.0, gaps: int = 6) -> Bars:
    """Simulate ``bars`` bars on a grid of ``step_ms`` and remove ``gaps`` stretches of 1 to 24 bars.

    Fewer than 300 bars get no gaps. price: the first open.
    The unconditional volatility is 0.8 % a bar, with alpha 0.08 and beta 0.90.
    The same arguments give the same bars.
    """
    rng = np.random.default_rng(seed)
    alpha, beta, daily = 0.08, 0.90, 0.008**2
    shocks = rng.standard_t(6, bars) * np.sqrt(4 / 6)
    variance = np.empty(bars)
    variance[0] = daily
    for t in range(1, bars):
        variance[t] = daily * (1 - alpha - beta) + (alpha * shocks[t - 1] ** 2 + beta) * variance[t - 1]
    sigma = np.sqrt(variance)
    # A bridge inside each bar ends at the bar's return; its extremes are the bar's high and low.
    noise = rng.standard_normal((bars, _STEPS_PER_BAR)) * (sigma / np.sqrt(_STEPS_PER_BAR))[:, None]
    path = np.cumsum(noise - noise.mean(1, keepdims=True), 1)
    returns = sigma * shocks
    path += returns[:, None] * np.arange(1, _STEPS_PER_BAR + 1) / _STEPS_PER_BAR
    opened = np.log(price) + np.concatenate(([0.0], np.cumsum(returns[:-1])))
    whole = np.exp(opened[:, None] + np.column_stack([np.zeros(bars), path]))
    whole[:, -1] = np.exp(opened + returns)
    volume = np.exp(rng.normal(4.0, 0.4, bars)) * sigma / np.sqrt(daily)
    keep = np.ones(bars, dtype=bool)
    for start in rng.choice(np.arange(bars // 10, bars - 200), size=gaps) if bars >= 300 else ():
        keep[start : start + rng.integers(1, 25)] = False
    simulated = Bars(
        timestamp=_FIRST_TIME + step_ms * np.arange(bars, dtype=np.int64),
        open=whole[:, 0],
        high=whole.max(1),
        low=whole.min(1),
        close=whole[:, -1],
        volume=volume,
    )
    return simulated.take(keep)
