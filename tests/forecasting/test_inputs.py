from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import MODEL, make_run

from bitcorn_ray.features.registry import find_system
from bitcorn_ray.forecasting.inputs import FeatureWindows, ForecastInputs
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.training.run import load_run

V2 = find_system("v2")
BARS = simulate_bars(500, seed=4, gaps=0)
HERE = Partition("X", "1h")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(make_run(tmp_path_factory.mktemp("run") / "run", {"X": BARS.take(slice(400))}))


def without(bars, rows):
    return bars.take(np.setdiff1d(np.arange(len(bars)), rows))


@settings(max_examples=25, deadline=None)
@given(missing=st.lists(st.integers(1, 498), max_size=6, unique=True), first=st.integers(0, 490))
def test_rows_are_those_whose_window_is_whole(run, missing, first):
    bars = without(BARS, missing)
    asked = ForecastInputs(run, V2, bars, HERE, min(first, len(bars) - 1)).requested.tolist()
    times, length = bars.timestamp, MODEL.seq_len
    expected = [
        row
        for row in range(min(first, len(bars) - 1), len(bars))
        if row >= 49 + length - 1 and times[row] - times[row - length + 1] == (length - 1) * 3_600_000
    ]
    assert asked == expected


def test_every_row_that_was_asked_for_is_there_or_counted(run):
    bars = without(BARS, [100, 101, 300])
    inputs = ForecastInputs(run, V2, bars, HERE, 20)
    assert len(inputs.requested) + sum(inputs.left_out.values()) == len(bars) - 20
    assert inputs.left_out == {
        "too few bars before": 44,
        "filled": 0,
        "bars missing": 30,
        "features not finite": 0,
    }


def test_features_that_are_known_give_what_computed_ones_give(run):
    computed = ForecastInputs(run, V2, BARS, HERE, 390)
    known = ForecastInputs(run, V2, BARS, HERE, 390, np.ascontiguousarray(V2.matrix(BARS).T))
    np.testing.assert_array_equal(computed.rows, known.rows)
    for one, other in zip(computed.forecast(), known.forecast(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)


def test_rows_with_features_that_are_not_finite_are_left_out(run):
    features = np.ascontiguousarray(V2.matrix(BARS).T)
    features[450, 3] = np.nan
    inputs = ForecastInputs(run, V2, BARS, HERE, 440, features)
    assert inputs.left_out["features not finite"] == MODEL.seq_len
    assert np.isfinite(inputs.forecast()).all()


def test_scores_that_the_run_holds_are_not_made_again(run):
    held = set(run.scores[0].bars.tolist())
    inputs = ForecastInputs(run, V2, BARS, HERE, 499)
    assert held
    assert not held & set((BARS.timestamp[inputs.rows] // 3_600_000).tolist())
    assert len(inputs.rows) > 90  # those between the run and the bar that was asked for


def test_cached_forecasts_are_used_only_for_bars_that_continue(run):
    inputs = ForecastInputs(run, V2, BARS.take(slice(450)), HERE, 440)
    cached = inputs.to_cache(*inputs.forecast())
    assert cached.is_prefix_of(BARS)
    assert not cached.is_prefix_of(BARS.take(slice(1, None)))
    assert not cached.is_prefix_of(BARS.take(slice(449)))
    for row, expected in ((5, True), (399, False), (449, False), (450, True)):
        volume = BARS.volume.copy()
        volume[row] += 1
        assert cached.is_prefix_of(Bars(**{**BARS.columns(), "volume": volume})) is expected, row
        with_extra = replace(cached, bars=replace(cached.bars, extra={"trades": BARS.volume[cached.first : 450]}))
        assert with_extra.is_prefix_of(replace(BARS, extra={"trades": volume})) is expected, row
    assert not with_extra.is_prefix_of(BARS)  # without what the features need


def test_the_reason_for_a_missing_forecast_is_explained(run):
    assert FeatureWindows(run, V2, BARS).explain(10) == "11 bars are too few to forecast: v2 and seq_len 16 need 65"
    assert "bars are missing between" in FeatureWindows(run, V2, without(BARS, [490])).explain(498)
