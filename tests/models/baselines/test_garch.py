import numpy as np
import pytest
from arch import arch_model
from small_baselines import garch_variance, realised_variances

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.losses import qlike
from bitcorn_ray.models.baselines.history import History

HORIZONS = (1, 4, 24)


@pytest.fixture(scope="module")
def truth(simulated):
    return simulated(12_000, seed=1)


def test_the_process_that_made_the_bars_is_found_again(truth):
    test = np.arange(9_000, 11_900)
    found = garch_variance(truth.history, HORIZONS, np.arange(9_000), test)
    assert found.problem is None
    assert (found.alpha, found.beta) == (pytest.approx(0.1, abs=0.02), pytest.approx(0.88, abs=0.03))
    assert found.omega == pytest.approx(2e-6, rel=0.4)
    # The variance of the next bar is the one that it is drawn with, up to the parameters' errors.
    assert found.variances[:, 0] == pytest.approx(truth.variance_ahead[test], rel=0.1)
    realised = realised_variances(truth.history.close, HORIZONS)[test]
    lost = qlike(found.variances[:, 0], realised[:, 0]) - qlike(truth.variance_ahead[test], realised[:, 0])
    assert abs(lost.mean()) < 0.003
    # and further ahead the forecasts are right on average
    assert (found.variances.mean(0) / realised.mean(0)) == pytest.approx(1, abs=0.15)


def test_forecasts_further_ahead_are_those_of_arch(truth):
    test = np.arange(3_000, 3_050)
    found = garch_variance(truth.history, HORIZONS, np.arange(2_000), test)
    returns = truth.history.returns[1:]
    model = arch_model(1e3 * returns, mean="Zero", vol="GARCH", p=1, q=1, rescale=False)
    fixed = model.fix([1e6 * found.omega, found.alpha, found.beta])
    theirs = fixed.forecast(horizon=24, start=0, method="analytic", reindex=True).variance.to_numpy()[test - 1] / 1e6
    expected = np.column_stack([theirs[:, :horizon].sum(1) for horizon in HORIZONS])
    np.testing.assert_allclose(found.variances, expected, rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-4, 1e2])
def test_quiet_and_wild_markets_are_fitted_alike(truth, unit):
    history = truth.history
    fit, test = np.arange(3_000), np.arange(3_000, 3_010)
    found = garch_variance(history, HORIZONS, fit, test)
    power = {name: getattr(history, name) ** unit for name in ("high", "low", "close")}  # log returns times the unit
    scaled = garch_variance(
        History(timestamps=history.timestamps, timeframe_ms=3_600_000, **power), HORIZONS, fit, test
    )
    assert scaled.problem is None
    np.testing.assert_allclose(scaled.variances, unit**2 * found.variances, rtol=1e-4)


def test_forecasts_do_not_depend_on_later_bars(truth, changed_after):
    fit, test = np.arange(500, 2_000), np.arange(1_990, 2_400)
    found = garch_variance(truth.history, HORIZONS, fit, test)
    for row in (1_999, 2_200):
        changed = garch_variance(changed_after(truth.history, row), HORIZONS, fit, test)
        assert (changed.omega, changed.alpha, changed.beta) == (found.omega, found.alpha, found.beta)
        assert np.array_equal(changed.variances[test <= row], found.variances[test <= row])
        assert not np.isclose(changed.variances[test > row], found.variances[test > row]).any()
    # the last of the rows to fit on counts
    assert garch_variance(changed_after(truth.history, 1_998), HORIZONS, fit, test).alpha != found.alpha


def test_a_fit_that_does_not_converge_returns_the_message(truth, monkeypatch):
    def stopped_early(*args, **kwargs):
        model = arch_model(*args, **kwargs)
        fit = model.fit
        model.fit = lambda **options: fit(options={"maxiter": 1}, **options)
        return model

    monkeypatch.setattr("arch.arch_model", stopped_early)
    found = garch_variance(truth.history, HORIZONS, np.arange(2_000), np.arange(2_000, 2_010))
    assert "Iteration limit" in found.problem
    assert np.isfinite(found.variances).all()


def test_what_cannot_be_fitted_is_refused(truth):
    still = np.ones(500)
    history = History(timestamps=np.arange(500), high=still, low=still, close=still, timeframe_ms=1)
    with pytest.raises(BitcornError, match=r"399 have a deviation of 0\.0"):
        garch_variance(history, HORIZONS, np.arange(400), np.arange(400, 500))
    with pytest.raises(BitcornError, match="needs 100 returns that move: 99"):
        garch_variance(truth.history, HORIZONS, np.arange(100), np.arange(400, 500))
    with pytest.raises(BitcornError, match="needs 100 returns"):
        garch_variance(truth.history, HORIZONS, np.arange(0), np.arange(400, 500))
