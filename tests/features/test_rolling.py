import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.features.rolling import (
    change,
    decaying_mean,
    decaying_span,
    lagged,
    rolling_mean,
    rolling_mean_std,
    rolling_means,
    run_length,
    true_range,
)
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars


@given(
    n=st.integers(2, 70), length=st.integers(0, 150), level=st.sampled_from([0.0, 1.0, 1e6]), seed=st.integers(0, 99)
)
@settings(max_examples=150, deadline=None)
def test_windows_equal_pandas_rolling(n, length, level, seed):
    x = np.random.default_rng(seed).normal(level, 1.0, length)
    mean, std = rolling_mean_std(x, n)
    expected = pd.Series(x).rolling(n)
    np.testing.assert_allclose(rolling_mean(x, n), expected.mean(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(std, expected.apply(lambda w: np.std(w, ddof=1), raw=True), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("n", [10, 14, 20, 30])
def test_windows_equal_talib(n):
    x = np.random.default_rng(0).normal(100, 1, 5_000)
    np.testing.assert_allclose(rolling_mean(x, n)[n - 1 :], talib.SMA(x, n)[n - 1 :], rtol=1e-12)
    population = talib.STDDEV(x, n)[n - 1 :]
    np.testing.assert_allclose(rolling_mean_std(x, n)[1][n - 1 :], population * np.sqrt(n / (n - 1)), rtol=1e-8)


def test_deviation_keeps_its_digits_far_from_zero():
    # std / level is 1e-9: the textbook difference of squares has no digit left here.
    x = 1e6 + 1e-3 * np.random.default_rng(1).normal(size=1_000)
    exact = np.array([np.std(x[i - 19 : i + 1] - 1e6, ddof=1) for i in range(19, 1_000)])
    np.testing.assert_allclose(rolling_mean_std(x, 20)[1][19:], exact, rtol=1e-6)


def test_a_missing_value_spoils_its_windows_only():
    x = np.arange(100.0)
    x[40] = np.nan
    missing = np.isnan(rolling_mean(x, 14))
    assert list(np.flatnonzero(missing)) == [*range(13), *range(40, 54)]


@given(st.lists(st.booleans(), max_size=60))
def test_run_length_equals_a_loop(condition):
    expected, count = [], 0
    for value in condition:
        count = count + 1 if value else 0
        expected.append(count)
    assert run_length(np.array(condition, dtype=bool)).tolist() == expected


@given(
    windows=st.lists(st.integers(1, 200), min_size=1, max_size=6),
    length=st.integers(0, 260),
    level=st.sampled_from([0.0, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_several_means_equal_pandas_rolling(windows, length, level, seed):
    x = np.random.default_rng(seed).normal(level, 1.0, length)
    means = rolling_means(x, *windows)
    assert len(means) == len(windows)
    for n, mean in zip(windows, means, strict=True):
        np.testing.assert_allclose(mean, pd.Series(x).rolling(n).mean(), rtol=1e-9, atol=1e-9, err_msg=str(n))


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 8, 24, 63, 64, 65, 168])
def test_a_window_as_long_as_the_series_has_one_mean_and_a_longer_one_none(n):
    x = np.random.default_rng(n).normal(size=n)
    whole, longer, far_longer = rolling_means(x, n, n + 1, 3 * n + 1)
    assert whole.shape == longer.shape == far_longer.shape == (n,)
    assert np.isnan(whole[:-1]).all()
    assert whole[-1] == pytest.approx(x.mean(), rel=1e-12, abs=1e-15)
    assert np.isnan(longer).all()
    assert np.isnan(far_longer).all()


def test_a_mean_does_not_depend_on_the_other_windows():
    x = np.random.default_rng(2).normal(size=400)
    together = rolling_means(x, 6, 24, 168)
    for n, mean in zip((6, 24, 168), together, strict=True):
        assert mean.tobytes() == rolling_mean(x, n).tobytes()


def test_windows_leave_their_series_alone():
    x = np.random.default_rng(3).normal(size=300)
    x.flags.writeable = False
    before = x.tobytes()
    rolling_means(x, 1, 2, 7)
    rolling_mean_std(x, 7)
    decaying_mean(x, 0.8)
    change(x, 3)
    lagged(x, 3)
    assert x.tobytes() == before


@given(
    n=st.integers(2, 130),
    start=st.integers(1, 300),
    magnitude=st.sampled_from([1e-8, 1.0, 1e9]),
    seed=st.integers(0, 999),
)
@settings(max_examples=100, deadline=None)
def test_windows_are_the_same_bytes_wherever_the_series_starts(n, start, magnitude, seed):
    rng = np.random.default_rng(seed)
    x = magnitude * np.exp(rng.normal(0, 3, 500))
    decay = 1 - 1 / (1 + n / 10)
    span = decaying_span(decay)

    def results(x):
        yield n - 1, rolling_mean(x, n)
        yield from zip((n - 1, n // 2, 2 * n - 1), rolling_means(x, n, n // 2 + 1, 2 * n), strict=True)
        yield from ((n - 1, values) for values in rolling_mean_std(x, n))
        yield span - 1, decaying_mean(x, decay)
        yield n, change(x, n)
        yield n, lagged(x, n)

    for (first, whole), (_, late) in zip(results(x), results(x[start:]), strict=True):
        assert np.isnan(late[:first]).all()
        assert late[first:].tobytes() == whole[start + first :].tobytes()


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.574, 0.587, 0.8, 11 / 13, 13 / 14, 25 / 27, 0.99])
def test_the_span_is_the_power_of_two_that_holds_all_but_a_negligible_share_of_the_weight(decay):
    span = decaying_span(decay)
    assert span & (span - 1) == 0
    assert decay**span <= 1.5e-4 < decay ** (span / 2)


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.8, 13 / 14, 25 / 27])
@pytest.mark.parametrize("level", [0.0, 1e6])
def test_a_decaying_mean_equals_the_slow_weighted_sum(decay, level):
    x = np.random.default_rng(4).normal(level, 1.0, 400)
    span = decaying_span(decay)
    weights = np.array([decay**i for i in range(span)])
    expected = np.full(400, np.nan)
    for t in range(span - 1, 400):
        expected[t] = sum(w * x[t - i] for i, w in enumerate(weights)) / sum(weights)
    np.testing.assert_allclose(decaying_mean(x, decay), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("span", [13, 26])
def test_a_decaying_mean_is_the_endless_average_but_for_the_weight_cut_off(span):
    x = np.random.default_rng(5).uniform(0, 1, 3_000)
    endless = pd.Series(x).ewm(span=span, adjust=False).mean().to_numpy()
    cut_off = decaying_mean(x, 1 - 2 / (span + 1))
    np.testing.assert_allclose(cut_off[1_000:], endless[1_000:], rtol=0, atol=1.5e-4)


@pytest.mark.parametrize("decay", [0.5, 0.8, 13 / 14])
def test_a_decaying_mean_needs_its_whole_span(decay):
    span = decaying_span(decay)
    for length in (0, 1, span // 2, span - 1):
        short = decaying_mean(np.ones(length), decay)
        assert short.shape == (length,)
        assert np.isnan(short).all()
    exact = decaying_mean(np.ones(span), decay)
    assert np.isnan(exact[:-1]).all()
    assert exact[-1] == pytest.approx(1.0, rel=1e-12)


def test_a_missing_value_spoils_the_decaying_means_of_its_span_only():
    x = np.ones(200)
    x[50] = np.nan
    span = decaying_span(0.8)
    missing = np.flatnonzero(np.isnan(decaying_mean(x, 0.8)))
    assert list(missing) == [*range(span - 1), *range(50 if span <= 50 else span - 1, 50 + span)]


@pytest.mark.parametrize("length", [0, 1, 4, 5, 6, 50])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_lags_and_changes_equal_pandas(length, k):
    x = np.random.default_rng(6).normal(size=length)
    np.testing.assert_array_equal(lagged(x, k), pd.Series(x).shift(k))
    np.testing.assert_array_equal(change(x, k), pd.Series(x).diff(k))


def test_the_true_range_is_that_of_wilder_and_of_talib():
    bars = simulate_bars(800, seed=7, gaps=6)
    # Opens that jump, so that the close before is outside of the bar.
    jump = np.exp(np.random.default_rng(7).normal(0, 0.01, len(bars)))
    bars = Bars(
        timestamp=bars.timestamp,
        open=bars.open * jump,
        high=bars.high * jump,
        low=bars.low * jump,
        close=bars.close * jump,
        volume=bars.volume,
    )
    computed = true_range(bars)
    before = pd.Series(bars.close).shift(1)
    parts = pd.concat([pd.Series(bars.high - bars.low), (bars.high - before).abs(), (bars.low - before).abs()], axis=1)
    assert (parts.idxmax(axis=1).value_counts() > 50).all()
    np.testing.assert_allclose(computed, parts.max(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(computed[1:], talib.TRANGE(bars.high, bars.low, bars.close)[1:])
    assert computed[0] == bars.high[0] - bars.low[0]


@pytest.mark.parametrize("length", [0, 1, 2])
def test_the_true_range_of_hardly_any_bars(length):
    bars = simulate_bars(2, seed=8).take(slice(length))
    assert true_range(bars).shape == (length,)
    assert np.isfinite(true_range(bars)).all()
