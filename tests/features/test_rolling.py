import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.features.rolling import rolling_mean, rolling_mean_std, run_length


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
def test_run_length_counts_what_a_loop_counts(condition):
    expected, count = [], 0
    for value in condition:
        count = count + 1 if value else 0
        expected.append(count)
    assert run_length(np.array(condition, dtype=bool)).tolist() == expected
