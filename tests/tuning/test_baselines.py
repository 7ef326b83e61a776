from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray.evaluation.baselines import baseline_forecasts
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.models.baselines import simple
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.tuning import baselines as module
from bitcorn_ray.tuning.baselines import SweepBaselines
from bitcorn_ray.tuning.config import SweepConfig


@pytest.fixture
def swept(market_db, tmp_path):
    values = sweep_values(
        market_db, tmp_path / "sweep", search={"features": {"grid": [["rsi_14", "raw_vol_10"]]}}, sweep={"trials": 1}
    )
    folder, plan, data = make_sweep(values)
    config = SweepConfig.load(values)
    (point,) = config.space.points()
    made = SweepBaselines(
        folder=folder, config=config, bars=data.bars, identities=plan.identities, setting=config.at(point)
    )
    return made, data


def test_forecasts_are_those_of_the_evaluation_with_the_features_of_the_best(swept):
    made, data = swept
    one, fold, variant = data.bars[0], data.folds[1].rows[0], data.variants["v2"]
    seen = variant.matrix[:, variant.columns(["rsi_14", "raw_vol_10"])]
    fit, test = np.arange(fold.train.start, fold.test.start), np.arange(*fold.test)
    expected = baseline_forecasts(one, *one.outcomes((1, 4)), (1, 4), fit, test, seen)
    found = made.forecasts(0, fold)
    for kind in ("returns", "variances"):
        theirs, ours = getattr(expected, kind), getattr(found, kind)
        assert list(ours) == list(theirs)
        for name, values in theirs.items():
            np.testing.assert_array_equal(ours[name], values)
    assert found.remarks == expected.remarks


def test_baselines_are_fitted_once(swept, monkeypatch):
    made, data = swept
    fold = data.folds[0].rows[0]
    first = made.forecasts(0, fold)
    monkeypatch.setattr(module, "baseline_forecasts", None)
    again = replace(made).forecasts(0, fold)
    np.testing.assert_array_equal(again.variances["ridge"], first.variances["ridge"])
    assert (list(again.variances), again.remarks) == (list(first.variances), first.remarks)
    monkeypatch.undo()
    for path in (Path(made.folder.storage.address) / "baselines").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(replace(made).forecasts(0, fold).variances["EWMA"], first.variances["EWMA"])


def test_a_corrected_baseline_is_fitted_again(swept, monkeypatch):
    made, data = swept
    fold = data.folds[0].rows[0]
    first = made.forecasts(0, fold).variances["EWMA"]

    monkeypatch.setattr(simple.EWMA, "predict_partition", lambda *given: (0 * first, 4 * first))
    np.testing.assert_array_equal(replace(made).forecasts(0, fold).variances["EWMA"], first)  # the same code: kept
    monkeypatch.setattr(module, "training_code", lambda: "of the corrected code")
    np.testing.assert_allclose(replace(made).forecasts(0, fold).variances["EWMA"], 4 * first)


def test_a_new_baseline_appears_in_an_evaluated_sweep(swept, monkeypatch):
    made, data = swept
    fold = data.folds[0].rows[0]
    monkeypatch.setattr(module, "BASELINES", ("constant", "ridge"))
    assert list(made.forecasts(0, fold).variances) == ["constant variance", "ridge"]
    monkeypatch.setattr(module, "BASELINES", ("constant", "ewma", "ridge"))
    monkeypatch.setattr(module, "training_code", lambda: "of the code with another baseline")
    assert list(replace(made).forecasts(0, fold).variances) == ["constant variance", "EWMA", "ridge"]


def test_appended_bars_change_nothing_and_changed_bars_leave_ridge_out(swept, market_db, random_bars, tmp_path):
    made, data = swept
    fold = data.folds[0].rows[0]
    first = made.forecasts(0, fold).variances["ridge"]
    bars = random_bars(1_500, seed=1, gaps=2)
    later = {name: values.copy() for name, values in bars.columns().items()}
    later["timestamp"] += int(bars.timestamp[-1] - bars.timestamp[0]) + 3_600_000
    write_bars([("simulated", Partition("AAAUSDT", "1h"), type(bars)(**later))], market_db)
    (tmp_path / "sweep" / "baselines").rename(tmp_path / "before")
    np.testing.assert_array_equal(replace(made).forecasts(0, fold).variances["ridge"], first)
    later["timestamp"][:] = bars.timestamp
    later["close"] *= 1.001
    write_bars([("simulated", Partition("AAAUSDT", "1h"), type(bars)(**later))], market_db, on_conflict="replace")
    (tmp_path / "sweep" / "baselines").rename(tmp_path / "between")
    changed = replace(made).forecasts(0, fold)
    assert "ridge" not in changed.variances
    assert "are no longer those of the sweep" in changed.remarks["ridge"]
    assert "EWMA" in changed.variances


def test_an_outcome_over_missing_bars_is_not_known(swept):
    _, data = swept
    one = data.bars[0]
    returns, variances = one.outcomes((1, 4))
    gaps = np.flatnonzero(np.diff(one.timestamp) > one.step)
    assert len(gaps) == 2
    for gap in gaps:
        assert np.isnan(returns[gap]).all()
        assert np.isnan(variances[gap - 3, 1])
        assert np.isfinite(variances[gap - 4]).all()
