"""Feature system v4: 46 smooth, bounded, regime-aware features of open, high, low, close, volume and time.

p is the close, r its one-bar log return, r_k = ln p_t - ln p_{t-k}, tr the true range, tp = (high + low + close) / 3.
All windows are trailing, full and finite. s, m, l are the parameters `short`, `medium` and `long` (6, 24 and 168 bars:
a quarter of a day, a day and a week of one-hour bars), o is `oscillator` (14), f is `fib` (50). rms_k is the root mean
square of r over k bars, sma_k the mean of p, atr_k the mean of tr. Variances inside logarithms have a floor of
(1e-6)^2. The infinite recursions of Wilder and of the EMA are cut off at 99.985 % of their weight, see `decaying_mean`.

Bounds follow from the formulas, without clipping. A ratio with a zero denominator is 0, the neutral value.

Returns of the close
- ret_1, ret_short, ret_medium: r_k / (sqrt(k) rms_l) for k = 1, s, m; within sqrt(l) by Cauchy-Schwarz

HAR, the heterogeneous autoregressive terms, the short ones floored at a tenth of the long one; Corsi (2009)
- har_1, har_short, har_medium: ln sqrt(mean_k(r^2) + (0.1 rms_l)^2) for k = 1, s, m
- har_long: ln rms_l

Volatility
- parkinson: ln sqrt(mean_m(h^2) / (4 ln 2)), h = ln(high / low); Parkinson (1980)
- garman_klass: ln sqrt(mean_m(max(h^2 / 2 - (2 ln 2 - 1) c^2, 0))), c = ln(p / open); Garman & Klass (1980)
- yang_zhang: ln sqrt(var_m(ln(open / close before)) + w var_m(c) + (1 - w) mean_m(max(rs, 0))), w = 0.34 / (1.34 +
  (m + 1) / (m - 1)), rs = ln(high / p) ln(high / open) + ln(low / p) ln(low / open); Yang & Zhang (2000)
- vol_ratio: ln of the root mean square of ln(high / low) over s bars, less the same over l bars
- vol_of_vol: standard deviation of har_short over l bars

Trend
- sma_dist_medium, sma_dist_long: (p - sma_k) / (sqrt(k) atr_k), k = m, l; within sqrt(k)
- efficiency: r_m / sum_m |r|, in [-1, 1]; Kaufman (1995)
- adx: W(|P - M| / (P + M)), in [0, 1]; W is Wilder's mean of o bars, P and M are W of the rise of the high and of the
  fall of the low, each where it is the larger one; Wilder (1978)
- macd_hist: x / sqrt(1 + (x / 10)^2), within 10, of x = (macd - signal) / Wilder's ATR of o bars; macd of 12, 26 and 9
  bars; Appel (1979)

Oscillators
- rsi: (G - L) / (G + L), in [-1, 1], of Wilder's mean gain and loss of o bars; Wilder (1978)
- stoch: sma_3(sma_3((2p - hi - lo) / (hi - lo + atr_o))), in (-1, 1), hi and lo of o bars: the slow %D; Lane (1984)
- mfi: W(f) / W(|f|), in [-1, 1], of the money flow f = tp v sign(tp - tp before); Quong & Soudack (1989)

Fibonacci
- fib_position: (2p - hi - lo) / (hi - lo + atr_o), in (-1, 1); hi and lo are the extremes of f bars
- fib_236, fib_382, fib_500, fib_618, fib_786: membership 1 / (1 + ((x - level) / 0.06)^2), a generalised bell, of the
  retracement x = (hi - p) / (hi - lo), 0.5 where hi = lo; Jang (1993)

TD
- td_pressure: EMA of 9 bars of x / sqrt(1 + x^2), x = (p_t - p_{t-4}) / (2 atr_o), a fuzzy setup;
  DeMark (1994)

Candle
- candle_body, candle_upper, candle_lower: p - open, the upper and the lower shadow, each / (high - low + atr_o)
- candle_range: tr / (tr + atr_o)

Volume
- volume_z: z-score over l bars of ln(v + 0.001 mean_l(v)), within (l - 1) / sqrt(l); Samuelson (1968)
- volume_ratio: (V_s - V_l) / (V_s + V_l) of the mean volumes
- obv_slope: sum_m(sign(r) v) / sum_m(v), in [-1, 1]; Granville (1963)
- amihud: (A_m - A_l) / (A_m + A_l), in [-1, 1], of A_k = sum_k |r| / sum_k(v p); Amihud (2002)
- vwap_dist: (p - vwap_m) / (sqrt(m) atr_m), within sqrt(m); vwap of tp

Regime, logistic memberships; each group sums to 1
- regime_vol_low, regime_vol_mid, regime_vol_high: of har_medium less the equally floored har_long, around -0.35 and
  0.35, width 0.25
- regime_trend_down, regime_trend_flat, regime_trend_up: of r_m / (sqrt(m) rms_m) around -1 and 1, width 0.3

Time
- hour_sin, hour_cos, weekday_sin, weekday_cos: time of the bar's open in the UTC day, and in the week from Monday
"""

from __future__ import annotations

import numpy as np
import talib
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.rolling import (
    change,
    decaying_mean,
    decaying_span,
    lagged,
    rolling_mean,
    rolling_mean_std,
    rolling_means,
    true_range,
)
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.timeframe import UNIT_MS, period_offset

VERSION = 1
FAMILIES: dict[str, tuple[str, ...]] = {
    "returns": ("ret_1", "ret_short", "ret_medium"),
    "har": ("har_1", "har_short", "har_medium", "har_long"),
    "volatility": ("parkinson", "garman_klass", "yang_zhang", "vol_ratio", "vol_of_vol"),
    "trend": ("sma_dist_medium", "sma_dist_long", "efficiency", "adx", "macd_hist"),
    "oscillators": ("rsi", "stoch", "mfi"),
    "fibonacci": ("fib_position", "fib_236", "fib_382", "fib_500", "fib_618", "fib_786"),
    "td": ("td_pressure",),
    "candle": ("candle_body", "candle_upper", "candle_lower", "candle_range"),
    "volume": ("volume_z", "volume_ratio", "obv_slope", "amihud", "vwap_dist"),
    "regime": (
        "regime_vol_low",
        "regime_vol_mid",
        "regime_vol_high",
        "regime_trend_down",
        "regime_trend_flat",
        "regime_trend_up",
    ),
    "time": ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos"),
}
FEATURES = tuple(name for family in FAMILIES.values() for name in family)

_FLOOR = 1e-6  # log return; the resolution of a price of eight digits
_TD_LAG, _TD_EMA = 4, 9
_MACD_FAST, _MACD_SLOW, _MACD_SIGNAL = 12, 26, 9
_DAY, _WEEK = (UNIT_MS[unit] // UNIT_MS["m"] for unit in ("d", "w"))  # minutes

Array = NDArray[np.float64]


def warmup(*, short: int = 6, medium: int = 24, long: int = 168, oscillator: int = 14, fib: int = 50) -> int:
    """Return the number of first bars without a complete row. Raises BitcornError for windows that are too short."""
    windows = (short, medium, long, oscillator, fib)
    if not all(isinstance(n, int) for n in windows) or not 2 <= short < medium < long or min(oscillator, fib) < 2:
        raise BitcornError(
            f"v4 needs whole numbers 2 <= short < medium < long and oscillator, fib >= 2: got short={short}, "
            f"medium={medium}, long={long}, oscillator={oscillator}, fib={fib}"
        )
    wilder = decaying_span(_wilder(oscillator))
    macd = decaying_span(_ema(_MACD_SLOW)) + decaying_span(_ema(_MACD_SIGNAL)) - 2
    td = max(_TD_LAG, oscillator) + decaying_span(_ema(_TD_EMA)) - 1
    return max(2 * long - 1, 2 * wilder - 1, macd, td, oscillator + 4, fib - 1)


def bounds(
    *, short: int = 6, medium: int = 24, long: int = 168, oscillator: int = 14, fib: int = 50
) -> dict[str, float]:
    """Return the magnitude that each feature cannot exceed, by its formula: 20 at most with the default windows.

    A value within a millionth of its bound is saturated. The bound of a logarithm is its floor: no price in double
    precision moves by more than a factor of e^1420.
    """
    own = {
        **dict.fromkeys(("ret_1", "ret_short", "ret_medium", "sma_dist_long"), long**0.5),
        **dict.fromkeys((*FAMILIES["har"], *FAMILIES["volatility"]), -float(np.log(_FLOOR))),
        **dict.fromkeys(("sma_dist_medium", "vwap_dist"), medium**0.5),
        "macd_hist": 10.0,
        "volume_z": (long - 1) / long**0.5,
    }
    return {name: own.get(name, 1.0) for name in FEATURES}


def compute(
    bars: Bars, *, short: int = 6, medium: int = 24, long: int = 168, oscillator: int = 14, fib: int = 50
) -> dict[str, Array]:
    """Return the features of T bars, each (T,), NaN where a window is not full.

    short, medium, long, oscillator, fib: windows in bars, 2 <= short < medium < long.
    Raises BitcornError for bars without times.
    """
    if not bars.timed:
        raise BitcornError("v4 needs the time of each bar: add a timestamp column")
    r = change(np.log(bars.close), 1)
    variances = rolling_means(r * r, short, medium, long)
    tr = true_range(bars)
    atr, atr_medium, atr_long = rolling_means(tr, oscillator, medium, long)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            **_volatility(bars, r, variances, short, medium, long),
            **_trend(bars, r, variances, atr_medium, atr_long, short, medium, long),
            **_directional(bars, tr, oscillator),
            **_oscillators(bars, atr, oscillator),
            **_fibonacci(bars, atr, fib),
            "td_pressure": _td_pressure(bars.close, atr),
            **_candle(bars, tr, atr),
            **_volume(bars, r, atr_medium, short, medium, long),
            **_time(bars.timestamp),
        }


def _volatility(bars: Bars, r: Array, variances: list[Array], short: int, medium: int, long: int) -> dict[str, Array]:
    variance_short, variance_medium, variance_long = variances
    floor = 0.01 * variance_long
    opened, high, low, log_p = np.log(bars.open), np.log(bars.high), np.log(bars.low), np.log(bars.close)
    height, body = high - low, log_p - opened
    height_short, height_medium, height_long = rolling_means(height * height, short, medium, long)
    garman_klass = rolling_mean(np.maximum(0.5 * height**2 - (2.0 * np.log(2.0) - 1.0) * body**2, 0.0), medium)
    rogers_satchell = rolling_mean(
        np.maximum((high - log_p) * (high - opened) + (low - log_p) * (low - opened), 0.0), medium
    )
    weight = 0.34 / (1.34 + (medium + 1) / (medium - 1))
    overnight = rolling_mean_std(opened - lagged(log_p, 1), medium)[1]
    yang_zhang = overnight**2 + weight * rolling_mean_std(body, medium)[1] ** 2 + (1.0 - weight) * rogers_satchell
    har_short = 0.5 * np.log(variance_short + floor + _FLOOR**2)
    # The memberships of the regimes sum to 1.
    regime_low, regime_high = _memberships(
        0.5 * np.log((variance_medium + floor + _FLOOR**2) / (variance_long + floor + _FLOOR**2)), 0.35, 0.25
    )
    return {
        "har_1": 0.5 * np.log(r * r + floor + _FLOOR**2),
        "har_short": har_short,
        "har_medium": 0.5 * np.log(variance_medium + floor + _FLOOR**2),
        "har_long": 0.5 * np.log(variance_long + _FLOOR**2),
        "parkinson": 0.5 * np.log(height_medium / (4.0 * np.log(2.0)) + _FLOOR**2),
        "garman_klass": 0.5 * np.log(garman_klass + _FLOOR**2),
        "yang_zhang": 0.5 * np.log(yang_zhang + _FLOOR**2),
        "vol_ratio": 0.5 * np.log((height_short + _FLOOR**2) / (height_long + _FLOOR**2)),
        "vol_of_vol": rolling_mean_std(har_short, long)[1],
        "regime_vol_low": regime_low,
        "regime_vol_mid": 1.0 - regime_low - regime_high,
        "regime_vol_high": regime_high,
    }


def _trend(
    bars: Bars,
    r: Array,
    variances: list[Array],
    atr_medium: Array,
    atr_long: Array,
    short: int,
    medium: int,
    long: int,
) -> dict[str, Array]:
    p, log_p = bars.close, np.log(bars.close)
    rms_medium, rms_long = np.sqrt(variances[1]), np.sqrt(variances[2])
    r_medium = change(log_p, medium)
    mean_medium, mean_long = rolling_means(p, medium, long)
    regime_down, regime_up = _memberships(_ratio(r_medium, np.sqrt(medium) * rms_medium), 1.0, 0.3)
    return {
        "ret_1": _ratio(r, rms_long),
        "ret_short": _ratio(change(log_p, short), np.sqrt(short) * rms_long),
        "ret_medium": _ratio(r_medium, np.sqrt(medium) * rms_long),
        "sma_dist_medium": _ratio(p - mean_medium, np.sqrt(medium) * atr_medium),
        "sma_dist_long": _ratio(p - mean_long, np.sqrt(long) * atr_long),
        "efficiency": _ratio(r_medium, medium * rolling_mean(np.abs(r), medium)),
        "regime_trend_down": regime_down,
        "regime_trend_flat": 1.0 - regime_down - regime_up,
        "regime_trend_up": regime_up,
    }


def _directional(bars: Bars, tr: Array, n: int) -> dict[str, Array]:
    up, down = change(bars.high, 1), -change(bars.low, 1)
    decay = _wilder(n)
    # The true range cancels out of DX, because Wilder divides both movements by it.
    plus = decaying_mean(np.where((up > down) & (up > 0), up, 0.0), decay)
    minus = decaying_mean(np.where((down > up) & (down > 0), down, 0.0), decay)
    fast, slow = decaying_mean(bars.close, _ema(_MACD_FAST)), decaying_mean(bars.close, _ema(_MACD_SLOW))
    macd = fast - slow
    histogram = _ratio(macd - decaying_mean(macd, _ema(_MACD_SIGNAL)), decaying_mean(tr, decay))
    return {
        "adx": decaying_mean(_ratio(np.abs(plus - minus), plus + minus), decay),
        "macd_hist": histogram / np.sqrt(1.0 + (0.1 * histogram) ** 2),
    }


def _oscillators(bars: Bars, atr: Array, n: int) -> dict[str, Array]:
    moved, decay = change(bars.close, 1), _wilder(n)
    high, low = talib.MAX(bars.high, n), talib.MIN(bars.low, n)
    position = _ratio(2.0 * bars.close - high - low, high - low + atr)
    typical = (bars.high + bars.low + bars.close) / 3.0
    direction = np.sign(change(typical, 1))
    flow = typical * bars.volume * direction
    return {
        "rsi": _ratio(decaying_mean(moved, decay), decaying_mean(np.abs(moved), decay)),
        "stoch": rolling_mean(rolling_mean(position, 3), 3),
        "mfi": _ratio(decaying_mean(flow, decay), decaying_mean(np.abs(flow), decay)),
    }


def _fibonacci(bars: Bars, atr: Array, n: int) -> dict[str, Array]:
    high, low, p = talib.MAX(bars.high, n), talib.MIN(bars.low, n), bars.close
    span = high - low
    retracement = np.where(span > 0, (high - p) / span, np.where(np.isnan(span), np.nan, 0.5))
    memberships = {
        f"fib_{round(level * 1000)}": 1.0 / (1.0 + ((retracement - level) / 0.06) ** 2)
        for level in (0.236, 0.382, 0.5, 0.618, 0.786)
    }
    return {"fib_position": _ratio(2.0 * p - high - low, span + atr), **memberships}


def _td_pressure(p: Array, atr: Array) -> Array:
    strength = _ratio(change(p, _TD_LAG), 2.0 * atr)
    return decaying_mean(strength / np.sqrt(1.0 + strength * strength), _ema(_TD_EMA))


def _candle(bars: Bars, tr: Array, atr: Array) -> dict[str, Array]:
    opened, high, low, p = bars.open, bars.high, bars.low, bars.close
    size = high - low + atr
    return {
        "candle_body": _ratio(p - opened, size),
        "candle_upper": _ratio(high - np.maximum(opened, p), size),
        "candle_lower": _ratio(np.minimum(opened, p) - low, size),
        "candle_range": _ratio(tr, tr + atr),
    }


def _volume(bars: Bars, r: Array, atr_medium: Array, short: int, medium: int, long: int) -> dict[str, Array]:
    p, v = bars.close, bars.volume
    mean_short, mean_medium, mean_long = rolling_means(v, short, medium, long)
    # The smallest normal number keeps the logarithm finite in a market that never traded.
    log_v = np.log(v + 0.001 * mean_long + np.finfo(np.float64).tiny)
    mean_log, std_log = rolling_mean_std(log_v, long)
    moved_medium, moved_long = rolling_means(np.abs(r), medium, long)
    traded_medium, traded_long = rolling_means(v * p, medium, long)
    illiquid_medium, illiquid_long = moved_medium * traded_long, moved_long * traded_medium
    typical = (bars.high + bars.low + bars.close) / 3.0
    vwap = np.where(mean_medium > 0, rolling_mean(typical * v, medium) / mean_medium, p)
    return {
        "volume_z": _ratio(log_v - mean_log, std_log),
        "volume_ratio": _ratio(mean_short - mean_long, mean_short + mean_long),
        "obv_slope": _ratio(rolling_mean(np.sign(r) * v, medium), mean_medium),
        "amihud": _ratio(illiquid_medium - illiquid_long, illiquid_medium + illiquid_long),
        "vwap_dist": _ratio(p - vwap, np.sqrt(medium) * atr_medium),
    }


def _time(timestamp: NDArray[np.int64]) -> dict[str, Array]:
    minute, monday = timestamp // UNIT_MS["m"], period_offset(UNIT_MS["w"]) // UNIT_MS["m"]
    day = np.arange(_DAY) * (2.0 * np.pi / _DAY)
    week = np.arange(_WEEK) * (2.0 * np.pi / _WEEK)
    of_day, of_week = minute % _DAY, (minute - monday) % _WEEK
    return {
        "hour_sin": np.sin(day)[of_day],
        "hour_cos": np.cos(day)[of_day],
        "weekday_sin": np.sin(week)[of_week],
        "weekday_cos": np.cos(week)[of_week],
    }


def _memberships(x: Array, edge: float, width: float) -> tuple[Array, Array]:
    """Return the logistic memberships of "low" (below -edge) and "high" (above edge)."""
    return 1.0 / (1.0 + np.exp((x + edge) / width)), 1.0 / (1.0 + np.exp((edge - x) / width))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Return the quotient, 0 where the denominator is 0, NaN where it is NaN."""
    out = numerator / denominator
    np.copyto(out, 0.0, where=denominator == 0.0)
    return out


def _wilder(n: int) -> float:
    return 1.0 - 1.0 / n


def _ema(n: int) -> float:
    return 1.0 - 2.0 / (n + 1)
