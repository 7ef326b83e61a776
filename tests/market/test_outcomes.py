import numpy as np
import pandas as pd
import pytest

from bitcorn_ray.market.outcomes import forward_return, outcome_known, outcomes, realised_volatility, return_deviation


@pytest.mark.parametrize("horizon", [1, 4, 12])
def test_targets_equal_the_golden_values(data_dir, horizon):
    close = pd.read_parquet(data_dir / "bars" / "BTCUSDT_1h.parquet").close.to_numpy()[:2_000]
    golden = pd.read_parquet(data_dir / "golden" / f"BTCUSDT_1h.first2000.seq64.h{horizon}.parquet")
    ends = golden.row_of_last_bar.to_numpy()
    np.testing.assert_allclose(forward_return(np.log(close), ends, horizon), golden.y_ret, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(return_deviation(np.log(close), ends, horizon), golden.y_vol, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("horizon", [1, 3, 10])
def test_targets_equal_slow_formulas(horizon):
    log_close = np.cumsum(np.random.default_rng(0).normal(0, 0.01, 60))
    ends = np.arange(10, 60 - horizon)
    future = [np.diff(log_close[end : end + horizon + 1]) for end in ends]
    np.testing.assert_allclose(forward_return(log_close, ends, horizon), [r.sum() for r in future], atol=1e-14)
    np.testing.assert_allclose(return_deviation(log_close, ends, horizon), [r.std() for r in future], atol=1e-14)
    np.testing.assert_allclose(realised_volatility(log_close, ends, horizon), [np.sqrt((r**2).sum()) for r in future])


def test_a_target_depends_only_on_its_horizon():
    log_close = np.cumsum(np.random.default_rng(1).normal(0, 0.01, 30))
    later = log_close.copy()
    later[15:] += 1.0
    ends = np.array([10])
    for target in (forward_return, realised_volatility, return_deviation):
        assert target(log_close, ends, 4) == target(later, ends, 4)
        assert target(log_close, ends, 5) != target(later, ends, 5)


def test_an_outcome_is_known_if_every_bar_up_to_its_end_is_there():
    rng = np.random.default_rng(2)
    for _ in range(50):
        numbers = np.flatnonzero(rng.random(30) > 0.15)
        there = set(numbers.tolist())
        horizons = (1, 2, 4)
        expected = [[all(n + k in there for k in range(1, h + 1)) for h in horizons] for n in numbers]
        known = outcome_known(numbers, np.arange(len(numbers)), horizons)
        np.testing.assert_array_equal(known, expected)
        returns, variances = outcomes(np.exp(rng.normal(0, 0.01, len(numbers))), horizons, numbers)
        np.testing.assert_array_equal(np.isfinite(returns), expected)
        np.testing.assert_array_equal(np.isfinite(variances), expected)


def test_a_filled_bar_is_in_no_outcome():
    rng = np.random.default_rng(3)
    for _ in range(50):
        filled, horizons = rng.random(30) < 0.2, (1, 2, 5)
        numbers = np.arange(30)
        expected = [[n + h < 30 and not filled[n + 1 : n + h + 1].any() for h in horizons] for n in numbers]
        np.testing.assert_array_equal(outcome_known(numbers, numbers, horizons, filled), expected)
        returns, variances = outcomes(np.exp(rng.normal(0, 0.01, 30)), horizons, numbers, filled)
        np.testing.assert_array_equal(np.isfinite(returns), expected)
        np.testing.assert_array_equal(np.isfinite(variances), expected)
