import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.sandwich_covariance import S_hac_simple

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.hac import average_by_instant, degrees_of_freedom, hac_lag, long_run_covariance, mean_test


def overlapping(rng, rows, horizon):
    """Sums of `horizon` successive normal draws, one a bar: what errors of forecasts `horizon` bars ahead look like."""
    drawn = np.concatenate([[0.0], rng.standard_normal(rows + horizon - 1).cumsum()])
    return drawn[horizon:] - drawn[:-horizon]


@given(rows=st.integers(30, 200), columns=st.integers(1, 4), lag=st.integers(0, 14), seed=st.integers(0, 99))
@settings(deadline=None)
def test_the_long_run_covariance_is_newey_and_wests_but_for_the_small_sample_factor(rows, columns, lag, seed):
    x = np.random.default_rng(seed).standard_normal((rows, columns)).cumsum(0)
    theirs = S_hac_simple(x - x.mean(0), nlags=lag) / rows
    shortfall = 1 - 1 / rows - 2 * sum((1 - k / (lag + 1)) * (rows - k) for k in range(1, lag + 1)) / rows**2
    assert long_run_covariance(x, lag) == pytest.approx(theirs / shortfall, rel=1e-9)


def test_white_noise_has_its_variance_on_average_however_many_lags_count():
    rng = np.random.default_rng(1)
    for lag in (0, 5, 20):
        drawn = [long_run_covariance(rng.standard_normal((60, 1)), lag)[0, 0] for _ in range(1_500)]
        assert np.mean(drawn) == pytest.approx(1, abs=4 * np.std(drawn) / math.sqrt(len(drawn)))


def test_the_lag_respects_the_overlap_and_the_length():
    assert hac_lag(10_000, 1) == 130
    assert hac_lag(10_000, 100) == 396
    assert hac_lag(100, 24) == 50  # no more than half of what there is
    assert hac_lag(1, 24) == hac_lag(0, 1) == 0
    assert degrees_of_freedom(1_000, 29) == 50


@pytest.mark.parametrize(("rows", "horizon"), [(300, 1), (400, 4), (600, 12), (1_000, 24)])
def test_a_mean_of_zero_is_rejected_about_as_often_as_promised(rows, horizon):
    rng = np.random.default_rng(horizon)
    repeats = 500
    tests = [mean_test(overlapping(rng, rows, horizon), horizon) for _ in range(repeats)]
    rejected = np.mean([test.p_value < 0.05 for test in tests])
    # 5 %, and up to 1.5 points more where 24 overlap in a thousand; and four standard errors of the simulation.
    chance = 4 * math.sqrt(0.05 * 0.95 / repeats)
    assert 0.05 - chance < rejected < 0.065 + chance
    naive = np.mean([2 * stats.norm.sf(abs(t.mean) / (math.sqrt(horizon) / math.sqrt(rows))) < 0.05 for t in tests])
    if horizon > 1:  # the usual error, of terms taken for independent, rejects several times as often
        assert naive > 2 * rejected


@given(seed=st.integers(0, 99), rows=st.integers(2, 300), horizon=st.integers(1, 24), shift=st.floats(-1, 1))
@settings(deadline=None)
def test_p_values_agree_with_each_other_and_mirror(seed, rows, horizon, shift):
    x = overlapping(np.random.default_rng(seed), rows, horizon) + shift
    test, mirrored = mean_test(x, horizon), mean_test(-x, horizon)
    assert test.p_negative + test.p_positive == pytest.approx(1)
    assert test.p_value == pytest.approx(2 * min(test.p_negative, test.p_positive))
    assert (test.p_positive < 0.5) == (test.mean > 0)
    assert mirrored.p_negative == pytest.approx(test.p_positive)
    assert mirrored.statistic == pytest.approx(-test.statistic)
    scaled = mean_test(1e-6 * x, horizon)  # the unit doesn't matter
    assert scaled.statistic == pytest.approx(test.statistic)


def test_a_series_without_variance_decides_by_itself():
    nothing = mean_test(np.zeros(50), 4)
    assert (nothing.p_value, nothing.p_negative, nothing.p_positive, nothing.standard_error) == (1, 1, 1, 0)
    below = mean_test(np.full(1_001, -0.1), 4)
    assert (below.p_value, below.p_negative, below.p_positive, below.statistic) == (0, 0, 1, 0)
    above = mean_test(np.full(1_001, 0.1), 4)
    assert (above.p_value, above.p_negative, above.p_positive) == (0, 1, 0)


@pytest.mark.parametrize("values", [[], [0.3]])
def test_of_fewer_than_two_terms_nothing_can_be_told(values):
    test = mean_test(np.array(values), 1)
    assert (test.count, test.p_value, test.standard_error) == (len(values), 1, None)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(BitcornError, match="2 of 3 values"):
        mean_test(np.array([np.nan, 1, np.inf]), 1)


@given(seed=st.integers(0, 99), partitions=st.integers(1, 4), columns=st.integers(1, 2))
@settings(deadline=None)
def test_partitions_are_averaged_where_they_are_at_an_instant(seed, partitions, columns):
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.choice(30, rng.integers(0, 20), replace=False)) for _ in range(partitions)]
    values = [rng.standard_normal((len(when), columns)) for when in times]
    for one in values:
        one[rng.random(one.shape) < 0.2] = np.nan
    expected = []
    for instant in range(30):
        there = [one[when == instant] for when, one in zip(times, values, strict=True)]
        known = [row for one in there for row in one if np.isfinite(row).all()]
        if known:
            expected.append(np.mean(known, axis=0))
    found = average_by_instant(times, values)
    assert np.allclose(found, np.reshape(expected, (-1, columns)))


def test_times_and_values_must_be_as_many():
    with pytest.raises(BitcornError, match=r"\[3\] times and \[2\] values"):
        average_by_instant([np.arange(3)], [np.zeros((2, 1))])
    with pytest.raises(BitcornError, match=r"\[\] times"):
        average_by_instant([], [])
