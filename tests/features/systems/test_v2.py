"""v2: equal to the values of the system that it replaces and to slow formulas, independent of the future."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.features.systems import v2
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.frames import read_frame


def matrix(bars):
    computed = SYSTEMS["v2"].compute(bars)
    return np.column_stack([computed[name] for name in v2.FEATURES])


@pytest.mark.parametrize("partition", ["BTCUSDT_1h", "SOLUSDT_1h"])
def test_v2_equals_the_golden_values(data_dir, partition):
    bars = read_frame(pd.read_parquet(data_dir / "bars" / f"{partition}.parquet"))
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
    """Compute the definition bar by bar, in plain Python and numpy."""
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


def test_a_constant_market_has_zero_range_and_deviation():
    still = np.full(80, 61_234.56)
    bars = Bars(
        timestamp=np.arange(len(still)), timed=False, open=still, high=still, low=still, close=still, volume=still
    )
    computed = v2.compute(bars)
    assert np.isnan(computed["fib_composite"]).all()
    assert (computed["bb_width"][49:] == 0).all()
    assert (computed["ma_ratio_20"][49:] == 0).all()
    assert (computed["raw_vol_30"][49:] == 0).all()


def with_closes(closes):
    """Bars of these closes, with a range around them."""
    p = np.asarray(closes, np.float64)
    return Bars(
        timestamp=np.arange(len(p)), timed=False, open=p, high=p * 1.01, low=p * 0.99, close=p, volume=np.ones(len(p))
    )


def walk(seed, runs, length=600):
    """Closes of a random walk in which each run (first bar, bars, drift) has a direction that nothing turns."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.01, length)
    for first, bars, drift in runs:
        steps[first : first + bars] = drift * rng.uniform(0.5, 1.5, len(steps[first : first + bars]))
    return 100 * np.exp(np.cumsum(steps))


def assert_the_halo_is_enough(bars, row):
    first = v2.halo(bars, row)
    assert 0 <= first <= max(row - v2.WARMUP, 0)
    whole, late = v2.compute(bars), v2.compute(bars.take(slice(first, None)))
    start = max(row, first + v2.WARMUP)
    for name in v2.FEATURES:
        assert late[name][start - first :].tobytes() == whole[name][start:].tobytes(), (name, first, row)
    return first


@given(
    seed=st.integers(0, 10_000),
    row=st.integers(0, 599),
    runs=st.lists(
        st.tuples(st.integers(0, 590), st.integers(5, 400), st.sampled_from([-0.002, 0.002, 0.0])), max_size=3
    ),
)
@settings(max_examples=100, deadline=None)
def test_features_from_the_halo_on_are_those_of_the_whole_series(seed, row, runs):
    assert_the_halo_is_enough(with_closes(walk(seed, runs)), row)


@pytest.mark.parametrize("drift", [-0.002, 0.002])
@pytest.mark.parametrize("row", [120, 121, 250, 398, 399, 400, 404, 405, 550])
def test_the_halo_reaches_the_start_of_a_long_run(drift, row):
    bars = with_closes(walk(1, [(100, 300, drift)]))
    first = assert_the_halo_is_enough(bars, row)
    setup = v2.compute(bars)["td_buy_setup" if drift < 0 else "td_sell_setup"]
    if row in (250, 398, 399, 400):
        # The run that reaches up to the row before began `setup` bars ago; its first bar looks four bars back.
        assert setup[row - 1] > v2.WARMUP
        assert first == row - setup[row - 1] - 4
    if row == 550:
        assert first == row - v2.WARMUP


def test_the_warmup_alone_is_too_little_for_a_long_run():
    bars = with_closes(walk(1, [(100, 300, -0.002)]))
    row = 350
    late = v2.compute(bars.take(slice(row - v2.WARMUP, None)))
    assert late["td_buy_setup"][v2.WARMUP] < v2.compute(bars)["td_buy_setup"][row]


@pytest.mark.parametrize("length", [50, 64, 68, 69, 132, 133, 600, 5_000])
@pytest.mark.parametrize("drift", [-1e-4, 1e-4])
def test_a_run_as_long_as_the_series_reaches_back_to_its_first_bar(length, drift):
    bars = with_closes(100 * np.exp(drift * np.arange(length)))
    for row in (0, 1, 4, 5, length // 2, length - 1, length):
        assert v2.halo(bars, row) == 0
    assert SYSTEMS["v2"].first_needed(bars, length - 1) == 0


@pytest.mark.parametrize("row", [0, 1, 3, 4, 5, 48, 49])
def test_the_halo_of_the_first_rows_is_the_first_bar(random_bars, row):
    assert v2.halo(random_bars(100), row) == 0


def test_equal_closes_break_a_run():
    closes = 100 * np.exp(-0.001 * np.arange(400.0))
    closes[150] = closes[146]
    bars = with_closes(closes)
    assert v2.compute(bars)["td_buy_setup"][150] == 0
    assert assert_the_halo_is_enough(bars, 380) == 151 - 4


def test_the_first_needed_row_is_the_halo():
    bars = with_closes(walk(2, [(100, 300, 0.002)]))
    for row in (20, 100, 250, 399, 500):
        assert SYSTEMS["v2"].first_needed(bars, row) == v2.halo(bars, row)


@pytest.mark.parametrize("drift", [-0.002, 0.002])
def test_the_first_needed_row_of_a_context_reaches_the_start_of_its_runs(drift):
    """A zigzag whose hours change direction often, and whose days fall (or rise) for months."""
    hours = np.arange(6_000)
    p = 100 * np.exp(drift * hours + 0.012 * (hours % 7 < 3))
    bars = Bars(timestamp=hours * 3_600_000, open=p, high=p * 1.01, low=p * 0.99, close=p, volume=np.ones(len(p)))
    system, row = SYSTEMS["v2"].with_context("1d").on_grid(3_600_000), 5_000
    first = system.first_needed(bars, row)
    whole, late = system.matrix(bars), system.matrix(bars.take(slice(first, None)))
    for name, one, other in zip(system.features, whole[:, row:], late[:, row - first :], strict=True):
        assert one.tobytes() == other.tobytes(), name
