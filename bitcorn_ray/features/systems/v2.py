"""Feature system v2: 14 features of close, high and low.

p is the close, r_k = ln p_t - ln p_{t-k}. All windows are trailing and full. Standard deviations have ddof=1.

- log_ret_1, log_ret_5: r_1, r_5
- momentum_10: p_t / p_{t-10} - 1
- log_ret_accel: r_1,t - r_1,t-1
- ma_ratio_20: (p - sma20) / sma20
- bb_width: 4 std20(p) / sma20, the width of the bands; Bollinger (2001)
- bb_std_pct: std20(p) / p
- rsi_14: 100 - 100 / (1 + mean14(gains) / (mean14(losses) + 1e-12)), with Cutler's simple means; Wilder (1978)
- atr_pct: mean14(true range) / p, where the first true range is high - low; Wilder (1978)
- raw_vol_10, raw_vol_30: std of r_1
- fib_composite: sum(w_f sign(d_f)) / sum(w_f), w_f = 1 / (1 + |d_f|), of the distances to eight Fibonacci levels,
  d_f = (p - (lo + f (hi - lo))) / (hi - lo), f in 0.236, 0.382, 0.5, 0.618, 0.786, 1.272, 1.618, 2; hi and lo are the
  extremes of 50 bars, NaN where they are equal
- td_buy_setup: number of consecutive bars, ending here, with a close below the close four bars before; DeMark (1994)
- td_sell_setup: the same with a close above; DeMark (1994)

All windows but those of the setups have at most 50 bars. A setup counts back to the start of its run, which has no
bound: `halo` returns it.
"""

from __future__ import annotations

import numpy as np
import talib
from numpy.typing import NDArray

from bitcorn_ray.features.rolling import change, lagged, rolling_mean, rolling_mean_std, run_length, true_range
from bitcorn_ray.market.bars import Bars

VERSION = 1
WARMUP = 49  # the 50-bar range of fib_composite
FEATURES = (
    "log_ret_1",
    "log_ret_5",
    "momentum_10",
    "log_ret_accel",
    "ma_ratio_20",
    "bb_width",
    "bb_std_pct",
    "rsi_14",
    "atr_pct",
    "raw_vol_10",
    "raw_vol_30",
    "fib_composite",
    "td_buy_setup",
    "td_sell_setup",
)
_FIB_LEVELS = (0.236, 0.382, 0.5, 0.618, 0.786, 1.272, 1.618, 2.0)

Array = NDArray[np.float64]


def compute(bars: Bars) -> dict[str, NDArray[np.floating] | NDArray[np.int64]]:
    """Return the 14 features of T bars, each (T,), NaN where a window is not full."""
    p, log_p = bars.close, np.log(bars.close)
    r_1 = change(log_p, 1)
    mean_20, std_20 = rolling_mean_std(p, 20)
    moved = change(p, 1)
    gains, losses = np.maximum(moved, 0.0), np.maximum(-moved, 0.0)
    return {
        "log_ret_1": r_1,
        "log_ret_5": change(log_p, 5),
        "momentum_10": change(p, 10) / lagged(p, 10),
        "log_ret_accel": change(r_1, 1),
        "ma_ratio_20": (p - mean_20) / mean_20,
        "bb_width": 4.0 * std_20 / mean_20,
        "bb_std_pct": std_20 / p,
        "rsi_14": 100.0 - 100.0 / (1.0 + rolling_mean(gains, 14) / (rolling_mean(losses, 14) + 1e-12)),
        "atr_pct": rolling_mean(true_range(bars), 14) / p,
        "raw_vol_10": rolling_mean_std(r_1, 10)[1],
        "raw_vol_30": rolling_mean_std(r_1, 30)[1],
        "fib_composite": _fib_composite(bars),
        "td_buy_setup": run_length(p < lagged(p, 4)),
        "td_sell_setup": run_length(p > lagged(p, 4)),
    }


def halo(bars: Bars, row: int) -> int:
    """Return the first row that the features from ``row`` on need: the warm-up back, or the start of a TD run."""
    first = row - WARMUP
    if row > 4:
        for sign in (1.0, -1.0):
            # Search in blocks of doubling length: runs are usually short, but may be as long as the series.
            start, length = row, 64
            while start > 4:
                low = max(start - length, 4)
                broken = np.flatnonzero(sign * (bars.close[low:start] - bars.close[low - 4 : start - 4]) <= 0)
                if len(broken):
                    start = low + int(broken[-1]) + 1
                    break
                start, length = low, 2 * length
            first = min(first, start - 4)
    return max(first, 0)


def _fib_composite(bars: Bars) -> Array:
    """sum_f w_f sign(d_f) / sum_f w_f with d_f = (p - (lo + f (hi - lo))) / (hi - lo), w_f = 1 / (1 + |d_f|).

    hi and lo are the extremes of 50 bars; NaN where they are equal. The order of operations is part of the definition:
    an algebraically equal expression gives another sign where d_f is zero.
    """
    low = talib.MIN(bars.low, 50)
    span = talib.MAX(bars.high, 50) - low
    signs, weights = np.zeros(len(bars)), np.zeros(len(bars))
    with np.errstate(invalid="ignore", divide="ignore"):
        for level in _FIB_LEVELS:
            distance = (bars.close - (low + level * span)) / span
            weight = 1.0 / (1.0 + np.abs(distance))
            signs += weight * np.sign(distance)
            weights += weight
        return np.where(span > 0, signs / weights, np.nan)
