import numpy as np
import pandas as pd
import pytest
from small_baselines import bars_of, constant_variance, realised_returns, realised_variances

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.evaluation.baselines import baseline_forecasts
from bitcorn_ray.metrics.losses import qlike
from bitcorn_ray.models.baselines.garch import fit_garch
from bitcorn_ray.models.baselines.history import History
from bitcorn_ray.models.baselines.simple import ewma_variance

HORIZONS = (1, 4, 24)
NAMES = ["constant variance", "EWMA", "GARCH(1,1)", "log-HAR", "strong HAR", "ridge"]


@pytest.fixture(scope="module")
def truth(simulated):
    return simulated(6_000, seed=1)


def features_of(history):
    lags = [np.roll(history.returns, k) for k in range(4)]
    features = np.column_stack([*lags, np.log(pd.Series(history.returns**2).ewm(span=20).mean() + 1e-12)])
    features[:5] = np.nan
    return features.astype(np.float32)


def forecasts(history, fit, test):
    outcome = realised_returns(history.close, HORIZONS)
    realised = realised_variances(history.close, HORIZONS)
    return baseline_forecasts(bars_of(history), outcome, realised, HORIZONS, fit, test, features_of(history))


def test_constant_variance_is_the_mean_of_labels_that_end_within_the_fitting_rows():
    realised = np.random.default_rng(0).exponential(size=(50, 2))
    realised[3] = np.nan
    forecast = constant_variance(realised, (1, 4), np.arange(30), np.arange(35, 40))
    expected = [np.nanmean(realised[:29, 0]), np.nanmean(realised[:26, 1])]
    assert forecast == pytest.approx(np.array([expected] * 5))


def test_ewma_weighs_bars_by_their_age(truth):
    forecast = ewma_variance(truth.history, HORIZONS, np.array([5, 300]))
    squares = truth.history.returns**2
    for i, t in enumerate((5, 300)):
        weights = [0.94 ** (t - k) for k in range(t + 1)]
        mean = sum(w * r for w, r in zip(weights, squares, strict=False)) / sum(weights)
        assert forecast[i] == pytest.approx([h * mean for h in HORIZONS])


def test_all_are_made_for_every_test_row(truth):
    found = forecasts(truth.history, slice(0, 4_200), slice(4_800, -24))
    assert list(found.returns) == ["random walk", "ridge"]
    assert list(found.variances) == NAMES
    assert found.remarks == {}
    for forecast in (*found.returns.values(), *found.variances.values()):
        assert forecast.shape == (6_000 - 24 - 4_800, 3)
        assert np.isfinite(forecast).all()
    assert not found.returns["random walk"].any()
    assert min(forecast.min() for forecast in found.variances.values()) > 0


def test_where_the_bars_are_garch_the_garch_model_wins_and_none_beats_the_truth(truth):
    fit, test = np.arange(4_200), np.arange(4_200, 5_976)
    found = forecasts(truth.history, fit, test)
    realised = realised_variances(truth.history.close, HORIZONS)[test, 0]
    truly = qlike(truth.variance_ahead[test], realised).mean()
    lost = {name: qlike(v[:, 0], realised).mean() - truly for name, v in found.variances.items()}
    assert min(lost, key=lost.get) == "GARCH(1,1)"
    assert max(lost, key=lost.get) == "constant variance"
    assert -0.01 < lost["GARCH(1,1)"] < lost["constant variance"] / 4


def test_no_baseline_depends_on_later_bars(truth, changed_after):
    fit, test = np.arange(2_000), np.arange(2_100, 2_500)
    history = History(
        timestamps=truth.history.timestamps[:3_000],
        high=truth.history.high[:3_000],
        low=truth.history.low[:3_000],
        close=truth.history.close[:3_000],
        timeframe_ms=3_600_000,
    )
    found = forecasts(history, fit, test)
    for row in (1_999, 2_250):
        changed = forecasts(changed_after(history, row), fit, test)
        for kind in ("returns", "variances"):
            for name, before in getattr(found, kind).items():
                after = getattr(changed, kind)[name]
                assert np.array_equal(after[test <= row], before[test <= row]), name
                if name not in ("random walk", "constant variance"):
                    assert not np.isclose(after[test > row], before[test > row], rtol=1e-9).all(), name


def test_a_garch_model_that_fails_is_a_remark(truth, monkeypatch):
    few = History(
        timestamps=np.arange(400) * 60_000,
        high=np.full(400, 2.0),
        low=np.ones(400),
        close=np.where(np.arange(400) < 300, 1.5, 1.6 + 0.1 * np.sin(np.arange(400.0))),
        timeframe_ms=86_400_000,
    )
    found = baseline_forecasts(
        bars_of(few),
        realised_returns(few.close, (1,)),
        realised_variances(few.close, (1,)),
        (1,),
        slice(0, 300),
        slice(320, 390),
    )
    assert "GARCH(1,1)" not in found.variances
    assert "ridge" not in found.variances
    assert "left out: a GARCH model needs 100 returns that move" in found.remarks["GARCH(1,1)"]

    def unfinished(*args):
        return fit_garch(*args)[0], "it wandered off"

    monkeypatch.setattr("bitcorn_ray.models.baselines.garch.fit_garch", unfinished)
    found = forecasts(truth.history, slice(0, 2_000), slice(2_100, 2_200))
    assert found.remarks == {"GARCH(1,1)": "its fit did not converge (it wandered off): don't trust it"}
    assert "GARCH(1,1)" in found.variances


def test_a_history_that_is_short_of_a_hars_windows_has_the_other_baselines(truth):
    found = forecasts(truth.history, slice(0, 160), slice(200, 300))
    assert set(found.variances) == set(NAMES) - {"log-HAR", "strong HAR"}
    for name in ("log-HAR", "strong HAR"):
        assert "left out: 160 rows to fit on leave 0 whose horizon" in found.remarks[name]


def test_outcomes_must_belong_to_the_bars(truth):
    history = truth.history
    outcome, realised = realised_returns(history.close, HORIZONS), realised_variances(history.close, HORIZONS)
    with pytest.raises(BitcornError, match=r"must be \(6000, 3\)"):
        baseline_forecasts(bars_of(history), outcome, realised[:, :2], HORIZONS, slice(0, 400), slice(500, 600))


def test_on_real_bars_the_strong_one_is_the_best(data_dir):
    bars = pd.read_parquet(data_dir / "bars" / "SOLUSDT_1h.parquet")
    columns = {name: bars[name].to_numpy() for name in ("high", "low", "close")}
    history = History(timestamps=bars.ts.to_numpy(), timeframe_ms=3_600_000, **columns)
    fit, test = np.arange(int(0.7 * len(bars))), np.arange(int(0.8 * len(bars)), len(bars) - 24)
    found = forecasts(history, fit, test)
    assert found.remarks == {}
    realised = realised_variances(history.close, HORIZONS)[test]
    losses = {name: qlike(v, realised).mean(0) for name, v in found.variances.items()}
    for j in range(len(HORIZONS)):
        ranked = sorted(losses, key=lambda name: losses[name][j])
        assert ranked[0] == "strong HAR"
        assert ranked[-1] == "constant variance"
