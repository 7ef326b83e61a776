"""Computing features in process, beside the bare library calls that they cannot do without."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import talib

from benchmarks.bars import BARS, real_minutes
from benchmarks.timing import Figure, measure
from bitcorn_ray.features.compute import prepare
from bitcorn_ray.features.identity import CHUNK_BARS
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars

_V2, _V4 = SYSTEMS["v2"], SYSTEMS["v4"]


def features() -> list[Figure]:
    """V2 and v4 of 70,000 bars, chunk by chunk as the cache computes them, beside bare library calls."""
    bars = simulate_bars(BARS, seed=0, gaps=0)
    bare_v2 = measure("bare TA-Lib calls for v2's windows", lambda: bare_calls_v2(bars))
    bare_v4 = measure("bare TA-Lib and numpy calls for v4's windows", lambda: bare_calls_v4(bars))
    return [
        measure("v2, cold, in process, chunk by chunk", lambda: by_chunks(bars, _V2), 0.012).beside(bare_v2),
        bare_v2,
        measure("v2's rolling windows alone in pandas", lambda: _pandas_windows(bars)),
        measure("v4, cold, in process, chunk by chunk", lambda: by_chunks(bars, _V4), 0.040).beside(bare_v4),
        bare_v4,
    ]


def minutes() -> list[Figure]:
    """V4 of a million real one-minute bars, chunk by chunk as the cache computes it, without writing."""
    bars = real_minutes()
    if bars is None:
        return []
    bare = measure("bare TA-Lib and numpy calls for v4's windows of these", lambda: bare_calls_v4(bars))
    what = f"v4, {len(bars):,} real one-minute bars, hashed, with quality report, features in memory"
    return [measure(what, lambda: prepare(bars, _V4, None, None), 0.8).beside(bare), bare]


def by_chunks(bars: Bars, system: FeatureSystem) -> None:
    """Compute a system's features chunk by chunk as the cache does, and keep none."""
    for start, stop in pairwise([*range(0, len(bars), CHUNK_BARS), len(bars)]):
        system.matrix(bars.take(slice(max(0, start - system.warmup_bars), stop)))


def bare_calls_v2(bars: Bars) -> None:
    """Call TA-Lib for each of v2's windows, nothing put together."""
    p, log_p = bars.close, np.log(bars.close)
    change = np.diff(p, prepend=p[0])
    talib.SMA(p, 20)
    talib.STDDEV(p, 20)
    talib.STDDEV(np.diff(log_p, prepend=log_p[0]), 10)
    talib.STDDEV(np.diff(log_p, prepend=log_p[0]), 30)
    talib.SMA(np.maximum(change, 0), 14)
    talib.SMA(np.maximum(-change, 0), 14)
    talib.SMA(talib.TRANGE(bars.high, bars.low, p)[1:], 14)
    talib.MAX(bars.high, 50)
    talib.MIN(bars.low, 50)


def bare_calls_v4(bars: Bars) -> None:
    """Call what does most of the same: running sums, recursions and logarithms, no bounds, nothing put together."""
    p, high, low, volume = bars.close, bars.high, bars.low, bars.volume
    opened, log_p, log_high, log_low = (np.log(x) for x in (bars.open, p, high, low))
    r = np.diff(log_p, prepend=log_p[0])
    height, body, overnight = log_high - log_low, log_p - opened, opened - np.roll(log_p, 1)
    for series, windows in (
        (r * r, (6, 24, 168)),
        (height * height, (6, 24, 168)),
        (body * body, (24, 24)),
        (p, (24, 168)),
        (volume, (6, 24, 168)),
        (np.abs(r), (24, 24, 168)),
        (volume * p, (24, 24, 168)),
        (np.sign(r) * volume, (24,)),
    ):
        for window in windows:
            talib.SMA(series, window)
    for series, window in ((overnight, 24), (body, 24), (r, 168), (np.log(volume + 1.0), 168)):
        talib.STDDEV(series, window)
    for window in (14, 24, 168):
        talib.ATR(high, low, p, window)
    talib.ADX(high, low, p, 14)
    talib.MACD(p)
    talib.RSI(p, 14)
    talib.STOCH(high, low, p, 14, 3, slowd_period=3)
    talib.MFI(high, low, p, volume, 14)
    talib.MAX(high, 50)
    talib.MIN(low, 50)
    talib.EMA(p, 9)
    for _ in range(7):
        np.log(height * height + 1e-12)
    for _ in range(4):
        np.exp(-np.abs(r))


def _pandas_windows(bars: Bars) -> None:
    p = pd.Series(bars.close)
    returns, change = pd.Series(np.log(bars.close)).diff(), p.diff()
    p.rolling(20).mean()
    p.rolling(20).std()
    returns.rolling(10).std()
    returns.rolling(30).std()
    change.clip(lower=0).rolling(14).mean()
    (-change).clip(lower=0).rolling(14).mean()
    p.rolling(14).mean()
    pd.Series(bars.high).rolling(50).max()
    pd.Series(bars.low).rolling(50).min()
