import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_baselines import realised_returns, realised_variances

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.baselines.history import History, fitting_rows


def bars(**columns):
    given_ = {
        "timestamps": np.arange(4) * 60_000,
        "high": np.array([2.0, 3, 4, 4]),
        "low": np.array([1.0, 1, 2, 4]),
        "close": np.array([2.0, 1, 4, 4]),
        "timeframe_ms": 60_000,
    }
    return History(**{**given_, **columns})


def test_returns_and_ranges_of_bars():
    history = bars()
    assert history.returns == pytest.approx([0, math.log(0.5), math.log(4), 0])
    # A driftless walk of variance s^2 has an expected squared log range of 4 ln 2 s^2.
    assert history.parkinson == pytest.approx(np.log([2, 3, 2, 1]) ** 2 / (4 * math.log(2)))


def test_parkinsons_variance_is_that_of_the_bar(simulated):
    truth = simulated(20_000, seed=1)
    # 16 steps see less of the range than a continuous walk does: 0.75 to 0.8 of its variance.
    assert 0.7 < truth.history.parkinson[1:].mean() / truth.variance_ahead[:-1].mean() < 0.85


@given(rows=st.integers(1, 40), seed=st.integers(0, 99), horizons=st.lists(st.integers(1, 30), min_size=1, max_size=3))
@settings(deadline=None)
def test_what_was_realised_is_of_the_bars_after_each_row(rows, seed, horizons):
    close = np.exp(np.random.default_rng(seed).normal(0, 0.1, rows).cumsum())
    returns, variances = realised_returns(close, horizons), realised_variances(close, horizons)
    for t in range(rows):
        for j, horizon in enumerate(horizons):
            if t + horizon >= rows:
                assert math.isnan(returns[t, j])
                assert math.isnan(variances[t, j])
                continue
            one_bar = [math.log(close[k] / close[k - 1]) for k in range(t + 1, t + horizon + 1)]
            assert returns[t, j] == pytest.approx(sum(one_bar), abs=1e-12)
            assert variances[t, j] == pytest.approx(sum(r**2 for r in one_bar), abs=1e-12)


@given(
    first=st.integers(0, 30), count=st.integers(2, 60), horizon=st.integers(1, 40), unknown=st.sets(st.integers(0, 90))
)
@settings(deadline=None)
def test_labels_to_fit_on_end_within_the_fitting_rows(first, count, horizon, unknown):
    fit = np.arange(first, first + count)
    column, matrix = np.zeros(100), np.zeros((100, 2))
    column[[row for row in unknown if row % 2]] = np.nan
    matrix[[row for row in unknown if not row % 2], 1] = np.inf
    expected = [row for row in fit if row + horizon < first + count and row not in unknown]
    if len(expected) < 2:
        with pytest.raises(BitcornError, match=f"{count} rows to fit on leave {len(expected)}"):
            fitting_rows(fit, horizon, column, matrix)
    else:
        assert fitting_rows(fit, horizon, column, matrix).tolist() == expected


def test_no_rows_cannot_be_fitted_on():
    with pytest.raises(BitcornError, match="0 rows to fit on"):
        fitting_rows(np.arange(0), 1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"close": np.ones(3)}, r"have \[3, 4\] rows"),
        ({"close": np.array([2.0, 1, 0, 4])}, "not above 0"),
        ({"low": np.array([1.0, np.nan, 1, 4])}, "missing"),
        ({"low": np.array([3.0, 1, 2, 4])}, "lows above highs"),
        ({"timestamps": np.array([0, 2, 1, 3])}, "ascend"),
        ({"timeframe_ms": 0}, "bars of 0 ms"),
    ],
)
def test_bars_that_are_none_are_refused(columns, message):
    with pytest.raises(BitcornError, match=message):
        bars(**columns)
