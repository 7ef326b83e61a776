"""v4: equal to a slow oracle, TA-Lib and published formulas, finite in extreme markets, independent of the future."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.features.systems import v4
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.frames import read_frame

DEFAULT: dict[str, int] = {}
SMALL = {"short": 4, "medium": 12, "long": 48, "oscillator": 7, "fib": 21}
# In each of these another term decides the warm-up: the week, MACD, ADX, the Fibonacci range.
WINDOWS = [DEFAULT, SMALL, {"oscillator": 28}, {"short": 2, "medium": 3, "long": 4, "oscillator": 2, "fib": 700}]
SLICE = 65_536
MEMBERSHIPS = ("fib_236", "fib_382", "fib_500", "fib_618", "fib_786")


def changed(bars, **columns):
    return Bars(**{**bars.columns(), **columns})


def lively(n, seed, *, price=100.0, gaps=6, tick=None):
    """Simulated bars whose opens jump from the close before; with a tick, equal prices and untraded bars are common."""
    bars, rng = simulate_bars(n, seed=seed, price=price, gaps=gaps), np.random.default_rng(seed)
    columns = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    columns["open"] *= np.exp(rng.normal(0.0, 0.003, len(bars)))
    if tick:
        for name in ("open", "high", "low", "close"):
            columns[name] = np.maximum(np.round(columns[name] / tick), 1.0) * tick
        columns["volume"][rng.random(len(bars)) < 0.1] = 0.0
    columns["high"] = np.maximum.reduce([columns["high"], columns["open"], columns["close"]])
    columns["low"] = np.minimum.reduce([columns["low"], columns["open"], columns["close"]])
    return changed(bars, **columns)


# The oracle: the definitions of the module's text, in pandas, one plain line each.


def slow_decaying_mean(x: pd.Series, decay: float) -> pd.Series:
    """sum decay^i x_{t-i} / sum decay^i over the power of two beyond which less than 0.015 % of the weight lies."""
    span = 1
    while decay**span > 1.5e-4:
        span *= 2
    weights = decay ** np.arange(span)
    out = pd.Series(np.nan, x.index)
    for t in range(span - 1, len(x)):
        window = x.to_numpy()[t - span + 1 : t + 1][::-1]
        out.iloc[t] = (weights * window).sum() / weights.sum()
    return out


def wilder(x, n):
    return slow_decaying_mean(x, 1 - 1 / n)


def ema(x, n):
    return slow_decaying_mean(x, 1 - 2 / (n + 1))


def over(numerator, denominator):
    """A denominator of zero gives 0."""
    return (numerator / denominator).mask(denominator == 0, 0.0)


def log_root(x):
    """ln sqrt(x), with a floor of 1e-6 inside the logarithm."""
    return np.log(np.sqrt(x + 1e-6**2))


def slow_v4(bars, *, short=6, medium=24, long=168, oscillator=14, fib=50):
    s, m, l, o, f = short, medium, long, oscillator, fib  # noqa: E741 - the letters of the definition
    frame = pd.DataFrame({name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")})
    op, hi, lo, p, v = (frame[name] for name in frame.columns)
    out = {}

    def mean(x, k):
        return x.rolling(k).mean()

    r = np.log(p).diff()
    r_s, r_m = np.log(p).diff(s), np.log(p).diff(m)
    square = r**2
    rms_m, rms_l = np.sqrt(mean(square, m)), np.sqrt(mean(square, l))
    before = p.shift(1)
    tr = np.fmax(hi, before) - np.fmin(lo, before)
    atr_o, atr_m, atr_l = mean(tr, o), mean(tr, m), mean(tr, l)
    tp = (hi + lo + p) / 3

    # returns
    out["ret_1"] = over(r, rms_l)
    out["ret_short"] = over(r_s, np.sqrt(s) * rms_l)
    out["ret_medium"] = over(r_m, np.sqrt(m) * rms_l)
    # har
    floor = (0.1 * rms_l) ** 2
    out["har_1"] = log_root(square + floor)
    out["har_short"] = log_root(mean(square, s) + floor)
    out["har_medium"] = log_root(mean(square, m) + floor)
    out["har_long"] = log_root(rms_l**2)
    # volatility
    height, body = np.log(hi / lo), np.log(p / op)
    out["parkinson"] = log_root(mean(height**2, m) / (4 * np.log(2)))
    out["garman_klass"] = log_root(mean(0.5 * height**2 - (2 * np.log(2) - 1) * body**2, m))
    jump = np.log(op / before)
    k = 0.34 / (1.34 + (m + 1) / (m - 1))
    rogers_satchell = mean(np.log(hi / p) * np.log(hi / op) + np.log(lo / p) * np.log(lo / op), m)
    yang_zhang = jump.rolling(m).var(ddof=1) + k * body.rolling(m).var(ddof=1) + (1 - k) * rogers_satchell
    out["yang_zhang"] = log_root(yang_zhang)
    out["vol_ratio"] = log_root(mean(height**2, s)) - log_root(mean(height**2, l))
    out["vol_of_vol"] = out["har_short"].rolling(l).std(ddof=1)
    # trend
    out["sma_dist_medium"] = over(p - mean(p, m), np.sqrt(m) * atr_m)
    out["sma_dist_long"] = over(p - mean(p, l), np.sqrt(l) * atr_l)
    out["efficiency"] = over(r_m, r.abs().rolling(m).sum())
    up, down = hi.diff(), -lo.diff()
    plus = wilder(up.where((up > down) & (up > 0), 0.0).mask(up.isna()), o)
    minus = wilder(down.where((down > up) & (down > 0), 0.0).mask(up.isna()), o)
    out["adx"] = wilder(over((plus - minus).abs(), plus + minus), o)
    macd = ema(p, 12) - ema(p, 26)
    x = over(macd - ema(macd, 9), wilder(tr, o))
    out["macd_hist"] = x / np.sqrt(1 + (x / 10) ** 2)
    # oscillators
    gain, loss = wilder(p.diff().clip(lower=0), o), wilder(-p.diff().clip(upper=0), o)
    out["rsi"] = over(gain - loss, gain + loss)
    top, bottom = hi.rolling(o).max(), lo.rolling(o).min()
    out["stoch"] = mean(mean(over(2 * p - top - bottom, top - bottom + atr_o), 3), 3)
    flow, moved = tp * v, tp.diff()
    bought, sold = (
        wilder(flow.where(moved > 0, 0.0).mask(moved.isna()), o),
        wilder(flow.where(moved < 0, 0.0).mask(moved.isna()), o),
    )
    out["mfi"] = over(bought - sold, bought + sold)
    # fibonacci
    top, bottom = hi.rolling(f).max(), lo.rolling(f).min()
    out["fib_position"] = over(2 * p - top - bottom, top - bottom + atr_o)
    for level in (0.236, 0.382, 0.5, 0.618, 0.786):
        retracement = ((top - p) / (top - bottom)).mask(top == bottom, 0.5)
        out[f"fib_{level:.3f}".replace("0.", "")] = 1 / (1 + ((retracement - level) / 0.06) ** 2)
    # td
    x = over(p.diff(4), 2 * atr_o)
    out["td_pressure"] = ema(x / np.sqrt(1 + x**2), 9)
    # candle
    size = hi - lo + atr_o
    out["candle_body"] = over(p - op, size)
    out["candle_upper"] = over(hi - np.maximum(op, p), size)
    out["candle_lower"] = over(np.minimum(op, p) - lo, size)
    out["candle_range"] = over(tr, tr + atr_o)
    # volume
    log_v = np.log(v + 0.001 * mean(v, l))
    out["volume_z"] = over(log_v - mean(log_v, l), log_v.rolling(l).std(ddof=1))
    out["volume_ratio"] = over(mean(v, s) - mean(v, l), mean(v, s) + mean(v, l))
    out["obv_slope"] = over((np.sign(r) * v).rolling(m).sum(), v.rolling(m).sum())
    illiquid_m, illiquid_l = (r.abs().rolling(k).sum() / (v * p).rolling(k).sum() for k in (m, l))
    out["amihud"] = over(illiquid_m - illiquid_l, illiquid_m + illiquid_l)
    vwap = (tp * v).rolling(m).sum() / v.rolling(m).sum()
    out["vwap_dist"] = over(p - vwap, np.sqrt(m) * atr_m)
    # regime
    x = 0.5 * np.log((rms_m**2 + floor + 1e-12) / (rms_l**2 + floor + 1e-12))
    out["regime_vol_low"] = 1 / (1 + np.exp((x + 0.35) / 0.25))
    out["regime_vol_high"] = 1 / (1 + np.exp((0.35 - x) / 0.25))
    out["regime_vol_mid"] = 1 - out["regime_vol_low"] - out["regime_vol_high"]
    x = over(r_m, np.sqrt(m) * rms_m)
    out["regime_trend_down"] = 1 / (1 + np.exp((x + 1) / 0.3))
    out["regime_trend_up"] = 1 / (1 + np.exp((1 - x) / 0.3))
    out["regime_trend_flat"] = 1 - out["regime_trend_down"] - out["regime_trend_up"]
    # time
    time = pd.to_datetime(pd.Series(bars.timestamp), unit="ms", utc=True)
    of_day = (time.dt.hour * 60 + time.dt.minute) / 1440
    of_week = (time.dt.day_of_week + of_day) / 7
    for name, place in (("hour", of_day), ("weekday", of_week)):
        out[f"{name}_sin"], out[f"{name}_cos"] = np.sin(2 * np.pi * place), np.cos(2 * np.pi * place)
    return out


def assert_equals_the_oracle(bars, **windows):
    computed, expected = v4.compute(bars, **windows), slow_v4(bars, **windows)
    assert set(expected) == set(v4.FEATURES)
    assert set(computed) == set(v4.FEATURES)
    first = v4.warmup(**windows)
    assert len(bars) > first + 100
    for name in v4.FEATURES:
        want = expected[name].to_numpy()[first:]
        assert np.isfinite(want).all(), name
        np.testing.assert_allclose(computed[name][first:], want, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("price", [1e-8, 0.25, 65_000.0])
def test_every_feature_equals_the_slow_oracle_at_any_price_level(price):
    assert_equals_the_oracle(lively(900, seed=3, price=price))


def test_every_feature_equals_the_slow_oracle_with_other_windows():
    assert_equals_the_oracle(lively(700, seed=4), **SMALL)


def test_every_feature_equals_the_slow_oracle_on_coarse_prices_and_untraded_bars():
    bars = lively(900, seed=5, tick=0.5)
    assert (np.diff(bars.close) == 0).mean() > 0.05
    assert_equals_the_oracle(bars)


def test_every_feature_equals_the_slow_oracle_in_fifteen_minute_bars():
    bars = lively(800, seed=6)
    assert_equals_the_oracle(changed(bars, timestamp=bars.timestamp // 4 + 900_000))


def test_there_are_46_features_each_in_one_family():
    assert len(v4.FEATURES) == len(set(v4.FEATURES)) == 46
    assert set(v4.bounds()) == set(v4.FEATURES)
    assert max(v4.bounds().values()) <= 20
    assert SYSTEMS["v4"].features == v4.FEATURES


# Libraries and publications


@pytest.mark.parametrize("n", [7, 14, 21])
def test_rsi_and_adx_are_those_of_talib(n):
    bars, windows = lively(3_000, seed=7), {"oscillator": n}
    computed = v4.compute(bars, **windows)
    late = slice(1_000, None)  # Wilder's recursions remember their start for long
    rsi, adx = talib.RSI(bars.close, n), talib.ADX(bars.high, bars.low, bars.close, n)
    np.testing.assert_allclose(computed["rsi"][late], 2 * rsi[late] / 100 - 1, atol=2e-3, rtol=0)
    np.testing.assert_allclose(computed["adx"][late], adx[late] / 100, atol=2e-3, rtol=0)
    assert np.std(computed["rsi"][late]) > 0.1
    assert np.std(computed["adx"][late]) > 0.05


def test_the_macd_histogram_is_that_of_talib_in_true_ranges():
    bars = lively(3_000, seed=8)
    computed = v4.compute(bars)["macd_hist"][1_000:]
    undone = computed / np.sqrt(1 - (computed / 10) ** 2)
    histogram = talib.MACD(bars.close, 12, 26, 9)[2] / talib.ATR(bars.high, bars.low, bars.close, 14)
    np.testing.assert_allclose(undone, histogram[1_000:], atol=2e-3, rtol=0)
    assert np.std(undone) > 0.1


def test_volatility_estimators_are_the_published_ones():
    """Write each estimator out as in its paper, for one window of bars."""
    bars, n, row = lively(600, seed=9), 24, 520
    window = bars.take(slice(row - n + 1, row + 1))
    o, h, c, low = (np.log(column) for column in (window.open, window.high, window.close, window.low))
    before = np.log(bars.close[row - n : row])
    parkinson = np.sqrt(np.sum((h - low) ** 2) / (4 * n * np.log(2)))
    garman_klass = np.sqrt(np.sum(0.5 * (h - low) ** 2 - (2 * np.log(2) - 1) * (c - o) ** 2) / n)
    night, day = o - before, c - o
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    of_night = np.sum((night - night.mean()) ** 2) / (n - 1)
    of_day = np.sum((day - day.mean()) ** 2) / (n - 1)
    rogers_satchell = np.sum((h - c) * (h - o) + (low - c) * (low - o)) / n
    yang_zhang = np.sqrt(of_night + k * of_day + (1 - k) * rogers_satchell)
    computed = v4.compute(bars)
    for name, value in (("parkinson", parkinson), ("garman_klass", garman_klass), ("yang_zhang", yang_zhang)):
        np.testing.assert_allclose(np.exp(computed[name][row]), value, rtol=1e-6, err_msg=name)


def test_volatility_estimators_find_the_volatility_of_a_random_walk():
    rng, sigma = np.random.default_rng(10), 0.01
    path = np.cumsum(rng.normal(0, sigma / np.sqrt(400), (3_000, 400)).ravel()).reshape(3_000, 400)
    p = np.exp(path)
    bars = Bars(
        timestamp=np.arange(3_000) * 3_600_000,
        open=np.concatenate(([1.0], p[:-1, -1])),
        high=np.maximum(p.max(1), np.concatenate(([1.0], p[:-1, -1]))),
        low=np.minimum(p.min(1), np.concatenate(([1.0], p[:-1, -1]))),
        close=p[:, -1].copy(),
        volume=np.ones(3_000),
    )
    computed = v4.compute(bars)
    for name in ("parkinson", "garman_klass", "yang_zhang", "har_medium", "har_long"):
        # Extremes of 400 steps fall short of those of a continuous path by some per cent.
        assert np.nanmedian(np.exp(computed[name])) == pytest.approx(sigma, rel=0.08), name


def test_the_time_of_a_bar_is_encoded_on_two_circles():
    # 2024-01-01 was a Monday: midnight, 06:00, and noon of the Thursday, half a week on.
    times = pd.to_datetime(["2024-01-01T00:00", "2024-01-01T06:00", "2024-01-04T12:00"]).as_unit("ms").asi8
    one = np.ones(3)
    computed = v4.compute(Bars(timestamp=np.asarray(times), open=one, high=one, low=one, close=one, volume=one))
    np.testing.assert_allclose(computed["hour_sin"], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(computed["hour_cos"], [1, 0, -1], atol=1e-12)
    np.testing.assert_allclose(computed["weekday_sin"], [0, np.sin(2 * np.pi / 28), 0], atol=1e-12)
    np.testing.assert_allclose(computed["weekday_cos"], [1, np.cos(2 * np.pi / 28), -1], atol=1e-12)


# Real and impossible markets


def assert_finite_and_bounded(columns, **windows):
    """Assert that no float32 value is missing, infinite or beyond its bound."""
    limits = v4.bounds(**windows)
    for name in v4.FEATURES:
        values = columns[name].astype(np.float32)
        assert np.isfinite(values).all(), f"{name}: {np.count_nonzero(~np.isfinite(values))} of {len(values)}"
        assert np.abs(values).max() <= min(np.float32(limits[name]), 20.0), name
    for group in ("regime_vol", "regime_trend"):
        members = [columns[name] for name in v4.FAMILIES["regime"] if name.startswith(group)]
        assert len(members) == 3
        assert min(member.min() for member in members) >= -1e-12
        np.testing.assert_allclose(np.sum(members, 0), 1.0, atol=1e-6)
    for name in (*v4.FAMILIES["oscillators"], "efficiency", "td_pressure", "obv_slope", "volume_ratio", "amihud"):
        assert np.abs(columns[name]).max() <= 1 + 1e-9, name
    for name in ("adx", *MEMBERSHIPS, "candle_upper", "candle_lower", "candle_range"):
        assert columns[name].min() >= 0, name


def slices(bars: Bars) -> Iterator[dict[str, np.ndarray]]:
    """Yield features of a long series without its warm-up, in pieces computed with their own warm-up."""
    lead = v4.warmup()
    for start in range(lead, len(bars), SLICE):
        computed = v4.compute(bars.take(slice(start - lead, start + SLICE)))
        yield {name: column[lead:] for name, column in computed.items()}


def partitions() -> list[str]:
    """Return the names of the real partitions; if there are none, the fixture says what to do."""
    named = os.environ.get("BITCORN_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "data"
    return sorted(path.stem for path in (folder / "bars").glob("*.parquet")) or ["BTCUSDT_1h"]


@pytest.mark.parametrize("partition", partitions())
def test_real_bars_have_features_that_are_finite_bounded_and_rarely_saturated(data_dir, partition):
    bars = read_frame(pd.read_parquet(data_dir / "bars" / f"{partition}.parquet"))
    limits, rows, saturated = v4.bounds(), 0, dict.fromkeys(v4.FEATURES, 0)
    for columns in slices(bars):
        assert_finite_and_bounded(columns)
        rows += len(columns["ret_1"])
        for name in v4.FEATURES:
            saturated[name] += np.count_nonzero(np.abs(columns[name].astype(np.float32)) >= limits[name] * (1 - 1e-6))
    assert rows == len(bars) - v4.warmup()
    for name in set(v4.FEATURES) - set(v4.FAMILIES["time"]):
        # A membership is 1 where the price stands on its level, which is its peak and not its end: coarse prices stand
        # on the middle of their range often.
        most = 0.004 if name in MEMBERSHIPS else 0.001
        assert saturated[name] <= most * rows, f"{name}: {saturated[name]} of {rows}"


@pytest.fixture(params=["simulated", "real"])
def tame_bars(request):
    """3,000 hours of a calm market."""
    if request.param == "simulated":
        return lively(3_000, seed=17, price=2.5, gaps=0)
    folder = request.getfixturevalue("data_dir")
    return read_frame(pd.read_parquet(folder / "bars" / "XRPUSDT_1h.parquet").tail(3_000))


def columns_of(bars):
    return {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}


def crash(c):
    """A low of 0.0001 below a close of 2.5, as in a thin order book."""
    for name in ("open", "high", "low", "close"):
        c[name] *= 2.5 / c["close"][1_500]
    c["low"][1_500] = 0.0001


def leap(c):
    """A bar that gains 70 %."""
    for name in ("open", "high", "low", "close"):
        c[name][1_501:] *= 1.7
    c["close"][1_500] *= 1.7
    c["high"][1_500] = max(c["high"][1_500], c["close"][1_500])


def crash_and_leap(c):
    crash(c)
    leap(c)


def untraded(c):
    """Hours, then two weeks, without a trade."""
    c["volume"][1_000:1_030] = 0.0
    c["volume"][1_400:1_750] = 0.0


def flat(c):
    """Constant prices for longer than the longest window."""
    for name in ("open", "high", "low", "close"):
        c[name][1_200:1_400] = c["close"][1_200]


def flat_and_untraded(c):
    flat(c)
    c["volume"][1_200:1_400] = 0.0


def never_trades(c):
    c["volume"][:] = 0.0


def always_flat(c):
    for name in ("open", "high", "low", "close"):
        c[name][:] = 61_234.56


def dead(c):
    always_flat(c)
    never_trades(c)


def straight_up(c):
    path = 1e-8 * np.exp(0.01 * np.arange(len(c["close"])))
    c["open"], c["low"], c["close"], c["high"] = path, path, path * np.exp(0.01), path * np.exp(0.01)


def one_trade(c):
    """One huge trade in a constant market."""
    dead(c)
    c["volume"][1_500] = 1e12


def thousandfold(c):
    """Tiny prices that become huge in one bar, and fall back."""
    for name in ("open", "high", "low", "close"):
        c[name][1_500:1_520] *= 1e9
    c["volume"][1_500:1_520] *= 1e9


@pytest.mark.parametrize("windows", [DEFAULT, SMALL], ids=["default", "small"])
@pytest.mark.parametrize(
    "wildness",
    [
        crash,
        leap,
        crash_and_leap,
        untraded,
        flat,
        flat_and_untraded,
        never_trades,
        always_flat,
        dead,
        straight_up,
        one_trade,
        thousandfold,
    ],
)
def test_the_wildest_markets_have_finite_and_bounded_features(tame_bars, wildness, windows):
    columns = columns_of(tame_bars)
    wildness(columns)
    bars = changed(tame_bars, **columns)
    bars.require_usable()
    first = v4.warmup(**windows)
    computed = v4.compute(bars, **windows)
    assert_finite_and_bounded({name: column[first:] for name, column in computed.items()}, **windows)


def test_a_dead_market_is_neutral(random_bars):
    bars = random_bars(600)
    still, nothing = np.full(600, 61_234.56), np.zeros(600)
    bars = changed(bars, open=still, high=still, low=still, close=still, volume=nothing)
    computed = v4.compute(bars)
    families = ("returns", "trend", "oscillators", "td", "candle", "volume")
    for name in (*(name for family in families for name in v4.FAMILIES[family]), "fib_position", "vol_ratio"):
        assert (computed[name][v4.warmup() :] == 0).all(), name
    for name in (*v4.FAMILIES["har"], "parkinson", "garman_klass", "yang_zhang"):
        np.testing.assert_allclose(computed[name][v4.warmup() :], np.log(1e-6), rtol=1e-12)
    assert (computed["vol_of_vol"][v4.warmup() :] == 0).all()


def test_bounds_are_reached_by_the_markets_that_reach_them():
    """One return in a flat market makes up the whole mean square; one volume the whole deviation."""
    n, row = 800, 600
    p = np.where(np.arange(n) < row, 1.0, 1.5)
    volume = np.where(np.arange(n) == row, 1e9, 1.0)
    bars = Bars(timestamp=np.arange(n) * 3_600_000, open=p, high=p, low=p, close=p, volume=volume)
    computed, limits = v4.compute(bars), v4.bounds()
    assert computed["ret_1"][row] == pytest.approx(limits["ret_1"])
    assert computed["efficiency"][row] == pytest.approx(1)
    assert computed["volume_z"][row] == pytest.approx(limits["volume_z"], rel=1e-3)


# What a value may depend on


def stacked(bars, **windows):
    """Return features without the warm-up, (T - warmup, 46)."""
    first = v4.warmup(**windows)
    computed = v4.compute(bars, **windows)
    return np.column_stack([computed[name][first:] for name in v4.FEATURES])


@given(seed=st.integers(0, 1_000), start=st.integers(1, 1_500), windows=st.sampled_from(WINDOWS[:2]))
@settings(max_examples=20, deadline=None)
def test_features_do_not_depend_on_where_the_bars_start(seed, start, windows):
    bars = lively(2_200, seed=seed, tick=0.05 if seed % 2 else None)
    whole, late = stacked(bars, **windows), stacked(bars.take(slice(start, None)), **windows)
    assert late.shape[0] == len(bars) - start - v4.warmup(**windows)
    assert late.tobytes() == whole[start:].tobytes()


@given(seed=st.integers(0, 1_000), cut=st.integers(1, 399), windows=st.sampled_from(WINDOWS[:2]))
@settings(max_examples=20, deadline=None)
def test_features_of_a_prefix_are_the_prefix_of_the_features(seed, cut, windows):
    bars = lively(v4.warmup(**windows) + 400, seed=seed)
    cut = min(v4.warmup(**windows) + cut, len(bars))
    part = stacked(bars.take(slice(cut)), **windows)
    assert part.shape == (cut - v4.warmup(**windows), 46)
    assert part.tobytes() == stacked(bars, **windows)[: len(part)].tobytes()


def test_features_do_not_see_a_future_that_is_turned_upside_down():
    bars = lively(900, seed=5)
    columns = columns_of(bars)
    for name, mirror in (("open", "open"), ("high", "low"), ("low", "high"), ("close", "close")):
        columns[name][600:] = 1e4 / getattr(bars, mirror)[600:]
    columns["volume"][600:] = columns["volume"][600:][::-1] * 1_000
    other = changed(bars, **columns)
    same = 600 - v4.warmup()
    one, two = stacked(bars), stacked(other)
    assert one[:same].tobytes() == two[:same].tobytes()
    assert not np.array_equal(one[same], two[same])


@pytest.mark.parametrize("windows", WINDOWS)
def test_the_warmup_is_long_enough_for_bars_that_begin_anywhere(windows):
    first = v4.warmup(**windows)
    bars = lively(first + 700, seed=11)
    for start in (1, 317):
        whole, late = stacked(bars, **windows), stacked(bars.take(slice(start, None)), **windows)
        assert np.isfinite(late).all()
        assert late.tobytes() == whole[start:].tobytes()


@pytest.mark.parametrize("windows", WINDOWS)
def test_the_warmup_is_not_longer_than_it_must_be(windows):
    """The row before has a missing value, or one that earlier bars would change."""
    last = v4.warmup(**windows) - 1
    bars = lively(last + 700, seed=12)
    whole = v4.compute(bars, **windows)
    changing = set()
    for start in (300, 301, 302, 303):
        late = v4.compute(bars.take(slice(start, None)), **windows)
        changing |= {name for name in v4.FEATURES if late[name][last] != whole[name][start + last]}
    assert changing


@pytest.mark.parametrize("windows", [DEFAULT, SMALL], ids=["default", "small"])
def test_rows_are_complete_from_the_warmup_on(windows):
    first = v4.warmup(**windows)
    computed = v4.compute(lively(first + 300, seed=13), **windows)
    matrix = np.array([computed[name] for name in v4.FEATURES])
    assert np.isnan(matrix[:, first - 1]).any()
    assert np.isfinite(matrix[:, first:]).all()


def test_the_default_warmup_is_two_weeks_less_a_bar():
    assert v4.warmup() == SYSTEMS["v4"].warmup_bars == 335
    assert SYSTEMS["v4"].with_parameters(long=200).warmup_bars == 399


# Units


def test_the_unit_of_prices_does_not_matter():
    bars = lively(1_200, seed=14)
    columns = columns_of(bars)
    scaled = changed(bars, **{n: c * (1 if n == "volume" else 1_000) for n, c in columns.items()})
    np.testing.assert_allclose(stacked(scaled), stacked(bars), rtol=1e-9, atol=1e-9)


def test_the_unit_of_volume_does_not_matter():
    bars = lively(1_200, seed=15)
    np.testing.assert_allclose(stacked(changed(bars, volume=bars.volume * 1e6)), stacked(bars), rtol=1e-6, atol=1e-6)


def test_a_mirrored_market_has_mirrored_directions():
    """Invert prices: a rise becomes a fall of the same size."""
    bars = lively(1_200, seed=16)
    mirrored = changed(bars, open=1 / bars.open, high=1 / bars.low, low=1 / bars.high, close=1 / bars.close)
    one, two = v4.compute(bars), v4.compute(mirrored)
    for name in ("ret_1", "ret_short", "ret_medium", "efficiency", "obv_slope"):
        np.testing.assert_allclose(two[name], -one[name], rtol=1e-9, atol=1e-9, err_msg=name)
    for name in (*v4.FAMILIES["har"], *v4.FAMILIES["volatility"], "regime_vol_low", "regime_vol_high"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(two["regime_trend_up"], one["regime_trend_down"], rtol=1e-9, atol=1e-9)


# Refusals


def test_bars_without_times_are_refused(random_bars):
    with pytest.raises(BitcornError, match="add a timestamp column"):
        v4.compute(changed(random_bars(400), timed=False))


@pytest.mark.parametrize(
    "windows",
    [
        {"short": 1},
        {"short": 24},
        {"short": 25},
        {"medium": 168},
        {"long": 24},
        {"oscillator": 1},
        {"fib": 1},
        {"short": -3},
    ],
)
def test_bad_windows_are_refused(windows):
    with pytest.raises(BitcornError, match="v4 needs whole numbers 2 <= short < medium < long"):
        SYSTEMS["v4"].with_parameters(**windows)


@pytest.mark.parametrize("n", [0, 1, 2, 13, 50, 335])
def test_fewer_bars_than_the_warmup_have_no_complete_row(random_bars, n):
    bars = random_bars(335).take(slice(n))
    computed = v4.compute(bars)
    matrix = np.array([computed[name] for name in v4.FEATURES])
    assert matrix.shape == (46, n)
    assert np.isnan(matrix).any(axis=0).all()
    with pytest.raises(BitcornError, match=rf"{n} bars are too few for the features v4: they need 336"):
        SYSTEMS["v4"].compute(bars)
