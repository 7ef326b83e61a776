"""v2 against the values of the system that it replaces, against slow formulas, and against the future."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.features import v2
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars


def matrix(bars):
    computed = SYSTEMS["v2"].compute(bars)
    return np.column_stack([computed[name] for name in v2.FEATURES])


@pytest.mark.parametrize("partition", ["BTCUSDT_1h", "SOLUSDT_1h"])
def test_v2_equals_the_golden_values(data_dir, partition):
    bars = Bars.from_frame(pd.read_parquet(data_dir / "bars" / f"{partition}.parquet"))
    golden = pd.read_parquet(data_dir / "golden" / f"{partition}.v2.parquet")
    assert list(golden.ts) == list(bars.timestamp)
    computed = v2.compute(bars)
    for name in v2.FEATURES:
        # The golden averages carry rounding errors of 1e-16 where a price equals its own average.
        np.testing.assert_allclose(
            np.asarray(computed[name], np.float32),
            golden[name].to_numpy(np.float32),
            rtol=1e-5,
            atol=1e-12,
            err_msg=name,
        )


def slow_v2(bars):
    """The formulas of the definition, bar by bar, in plain Python and numpy."""
    p, high, low = bars.close, bars.high, bars.low
    log_p, n = np.log(p), len(p)
    out = {name: np.full(n, np.nan) for name in v2.FEATURES}
    r1 = np.array([np.nan] + [log_p[t] - log_p[t - 1] for t in range(1, n)])
    true_range = [high[0] - low[0]]
    for t in range(1, n):
        true_range.append(max(high[t] - low[t], abs(high[t] - p[t - 1]), abs(low[t] - p[t - 1])))
    buy = sell = 0
    for t in range(n):
        out["log_ret_1"][t] = r1[t]
        if t >= 2:
            out["log_ret_accel"][t] = r1[t] - r1[t - 1]
        if t >= 5:
            out["log_ret_5"][t] = log_p[t] - log_p[t - 5]
        if t >= 10:
            out["momentum_10"][t] = p[t] / p[t - 10] - 1
            out["raw_vol_10"][t] = np.std(r1[t - 9 : t + 1], ddof=1)
        if t >= 30:
            out["raw_vol_30"][t] = np.std(r1[t - 29 : t + 1], ddof=1)
        if t >= 19:
            mean, std = np.mean(p[t - 19 : t + 1]), np.std(p[t - 19 : t + 1], ddof=1)
            out["ma_ratio_20"][t], out["bb_width"][t], out["bb_std_pct"][t] = (
                (p[t] - mean) / mean,
                4 * std / mean,
                std / p[t],
            )
        if t >= 14:
            change = np.diff(p[t - 14 : t + 1])
            gains, losses = np.mean(np.maximum(change, 0)), np.mean(np.maximum(-change, 0))
            out["rsi_14"][t] = 100 - 100 / (1 + gains / (losses + 1e-12))
        if t >= 13:
            out["atr_pct"][t] = np.mean(true_range[t - 13 : t + 1]) / p[t]
        if t >= 49:
            hi, lo = max(high[t - 49 : t + 1]), min(low[t - 49 : t + 1])
            if hi > lo:
                d = [
                    (p[t] - (lo + f * (hi - lo))) / (hi - lo)
                    for f in (0.236, 0.382, 0.5, 0.618, 0.786, 1.272, 1.618, 2.0)
                ]
                w = [1 / (1 + abs(x)) for x in d]
                out["fib_composite"][t] = sum(a * np.sign(x) for a, x in zip(w, d, strict=True)) / sum(w)
        buy = buy + 1 if t >= 4 and p[t] < p[t - 4] else 0
        sell = sell + 1 if t >= 4 and p[t] > p[t - 4] else 0
        out["td_buy_setup"][t], out["td_sell_setup"][t] = buy, sell
    return out


@pytest.mark.parametrize("price", [1e-8, 0.25, 65_000.0])
def test_v2_equals_the_slow_formulas_at_any_price_level(price):
    bars = simulate_bars(300, seed=3, price=price, gaps=0)
    computed, expected = v2.compute(bars), slow_v2(bars)
    for name in v2.FEATURES:
        # rsi_14 has an absolute constant of 1e-12 in it, so that cheap coins see it: it is part of the definition.
        np.testing.assert_allclose(computed[name], expected[name], rtol=1e-7, atol=1e-13, err_msg=name)


def test_70000_clean_bars_give_69951_complete_rows():
    features = matrix(simulate_bars(70_000, seed=0, gaps=0))
    assert features.shape == (69_951, 14)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@given(seed=st.integers(0, 1000), cut=st.integers(51, 399))
@settings(max_examples=25, deadline=None)
def test_features_of_a_prefix_are_the_prefix_of_the_features(seed, cut):
    bars = simulate_bars(400, seed=seed)
    cut = min(cut, len(bars) - 1)
    np.testing.assert_array_equal(matrix(bars.take(slice(cut))), matrix(bars)[: cut - v2.WARMUP])


def test_features_do_not_see_a_future_that_is_turned_upside_down():
    bars = simulate_bars(400, seed=5, gaps=0)
    changed = {name: column.copy() for name, column in bars.columns().items()}
    for name in ("open", "high", "low", "close"):
        changed[name][300:] *= 17.0
    np.testing.assert_array_equal(matrix(Bars(**changed))[: 300 - v2.WARMUP], matrix(bars)[: 300 - v2.WARMUP])


def test_windowed_features_do_not_depend_on_where_the_bars_start():
    bars = simulate_bars(2_000, seed=8, gaps=0)
    windowed = [i for i, name in enumerate(v2.FEATURES) if not name.startswith("td_")]
    whole, late = matrix(bars), matrix(bars.take(slice(1_234, None)))
    np.testing.assert_array_equal(late[:, windowed], whole[1_234:][:, windowed])


def test_a_market_that_stands_still_has_no_range_and_exactly_no_deviation():
    still = np.full(80, 61_234.56)
    bars = Bars(timestamp=None, open=still, high=still, low=still, close=still, volume=still)
    computed = v2.compute(bars)
    assert np.isnan(computed["fib_composite"]).all()
    assert (computed["bb_width"][49:] == 0).all()
    assert (computed["ma_ratio_20"][49:] == 0).all()
    assert (computed["raw_vol_30"][49:] == 0).all()
