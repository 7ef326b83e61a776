import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_baselines import realised_returns, realised_variances, strong_har

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.calibration import COVERAGES, RollingConformal, conformal_quantile, conformal_scores
from bitcorn_ray.models.baselines.history import History


def test_the_quantile_is_the_ranked_score():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))[:, None]  # 1 ... 99
    assert conformal_quantile(scores, 0.8) == [80.0]  # ceil(100 x 0.8)
    assert conformal_quantile(scores, 0.95) == [95.0]
    assert conformal_quantile(scores, 0.55) == [55.0]  # though 100 x 0.55 is 55.000000000000007 in floating point


def test_too_few_scores_promise_nothing():
    assert conformal_quantile(np.ones((18, 2)), 0.95).tolist() == [np.inf, np.inf]
    assert conformal_quantile(np.ones((19, 2)), 0.95).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("coverage", COVERAGES)
def test_bands_cover_new_data_even_where_the_volatility_is_wrong(coverage):
    rng = np.random.default_rng(1)
    sigma = np.exp(rng.normal(-5, 0.5, (40_000, 1)))
    outcome = sigma * rng.standard_t(4, (40_000, 1))
    scores = conformal_scores(0 * sigma, 0.5 * sigma, outcome)  # a model that says half the volatility
    width = conformal_quantile(scores[:20_000], coverage)
    assert (scores[20_000:] <= width).mean() == pytest.approx(coverage, abs=0.01)


@pytest.mark.parametrize("coverage", [95, 0, 1.0])
def test_a_coverage_outside_0_to_1_is_refused(coverage):
    with pytest.raises(BitcornError, match=f"coverage is {coverage}"):
        conformal_quantile(np.ones((30, 1)), coverage)
    with pytest.raises(BitcornError, match=f"coverage is {float(coverage)}"):
        RollingConformal([1], [coverage])


# Rolling

HORIZONS, LEVELS, WINDOW = (1, 3, 7), (0.5, 0.8), 12


@st.composite
def histories(draw):
    """Bars with gaps, and scores of which some are not known."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    bars = 1_000 + np.sort(rng.choice(90, draw(st.integers(2, 60)), replace=False))
    scores = rng.exponential(size=(len(bars), len(HORIZONS))).astype(np.float32)
    scores[rng.random(scores.shape) < draw(st.sampled_from([0.0, 0.2]))] = np.nan
    return bars, np.round(scores, draw(st.sampled_from([1, 7])))  # rounded: with ties


def slow_bands(bars, scores, at):
    """The definition: at each bar, the quantile of the last scores whose outcome has happened by then."""
    widths = np.empty((len(at), len(LEVELS), len(HORIZONS)))
    for i, now in enumerate(at):
        for j, horizon in enumerate(HORIZONS):
            known = [score for bar, score in zip(bars, scores[:, j], strict=True) if bar + horizon <= now]
            last = np.array([score for score in known if not np.isnan(score)][-WINDOW:])
            widths[i, :, j] = [conformal_quantile(last[:, None], level)[0] for level in LEVELS]
    return widths


@settings(deadline=None)
@given(history=histories())
def test_bands_are_quantiles_of_the_last_mature_scores(history):
    bars, scores = history
    bands = RollingConformal(HORIZONS, LEVELS, WINDOW).bands(bars, scores)
    assert np.array_equal(bands, slow_bands(bars, scores, bars))


@settings(deadline=None)
@given(history=histories(), cuts=st.lists(st.integers(0, 60), max_size=4).map(sorted))
def test_going_on_from_a_state_equals_going_through_in_one_piece(history, cuts):
    bars, scores = history
    whole = RollingConformal(HORIZONS, LEVELS, WINDOW)
    expected = whole.bands(bars, scores)
    conformal, parts = RollingConformal(HORIZONS, LEVELS, WINDOW), []
    for part in np.split(np.arange(len(bars)), np.minimum(cuts, len(bars))):
        parts.append(conformal.bands(bars[part], scores[part]))
        conformal = RollingConformal.from_json(json.loads(json.dumps(conformal.to_json(), allow_nan=False)))
    assert np.array_equal(np.concatenate(parts), expected)
    assert conformal.to_json() == whole.to_json()


@settings(deadline=None)
@given(history=histories(), begun=st.integers(0, 60))
def test_live_forecasting_goes_on_as_over_history(history, begun):
    bars, scores = history
    expected = slow_bands(bars, scores, bars)
    conformal = RollingConformal(HORIZONS, LEVELS, WINDOW)
    conformal.bands(bars[:begun], scores[:begun])  # as far as history went: some scores wait
    horizons = np.array(HORIZONS)
    for i in range(begun, len(bars)):
        # At each bar: first the scores that have just become known, bar by bar, then the bands of the new forecast.
        before = bars[i - 1] if i else -1
        for made in range(max(begun, i - 2 * HORIZONS[-1]), i):
            fresh = (bars[made] + horizons <= bars[i]) & (bars[made] + horizons > before)
            conformal.extend(bars[made : made + 1], np.where(fresh, scores[made], np.nan)[None])
        assert np.array_equal(conformal.bands(bars[i : i + 1])[0], expected[i])
        conformal = RollingConformal.from_json(conformal.to_json())


@settings(deadline=None)
@given(history=histories(), split=st.integers(0, 60))
def test_scores_of_validation_begin_the_bands(history, split):
    bars, scores = history
    conformal = RollingConformal(HORIZONS, LEVELS, WINDOW)
    conformal.extend(bars[:split], scores[:split])
    later = conformal.bands(bars[split:], scores[split:])
    assert np.array_equal(later, slow_bands(bars, scores, bars)[split:])


@pytest.mark.parametrize(("j", "horizon"), list(enumerate(HORIZONS)))
def test_no_score_counts_before_its_horizon_has_passed(j, horizon):
    rng = np.random.default_rng(2)
    bars = np.sort(rng.choice(400, 300, replace=False))
    scores = rng.exponential(size=(300, len(HORIZONS)))
    bands = RollingConformal(HORIZONS, LEVELS, 4_000).bands(bars, scores)
    for i in (50, 123, 250):
        unknown = bars + horizon > bars[i]  # when the forecast at bar i is made
        changed = scores.copy()
        changed[unknown, j] *= rng.uniform(2, 9, np.count_nonzero(unknown))
        moved = RollingConformal(HORIZONS, LEVELS, 4_000).bands(bars, changed)
        assert np.array_equal(moved[: i + 1], bands[: i + 1])
        assert not np.array_equal(moved[i + 20 :, :, j], bands[i + 20 :, :, j])


@pytest.mark.parametrize(("j", "horizon"), list(enumerate(HORIZONS)))
def test_a_score_counts_as_soon_as_its_horizon_has_passed(j, horizon):
    rng = np.random.default_rng(2)
    bars = np.sort(rng.choice(400, 300, replace=False))
    scores = rng.exponential(size=(300, len(HORIZONS)))
    for i in (50, 123, 250):
        changed = scores.copy()
        changed[i, j] = 77
        # With a window of one score, the band at a level of 40 % is that score.
        alone = RollingConformal(HORIZONS, (0.4,), 1).bands(bars, changed)[:, 0, j]
        matured, next_matured = np.searchsorted(bars, bars[i : i + 2] + horizon)
        assert np.flatnonzero(alone == 77).tolist() == list(range(matured, next_matured))


def test_only_the_last_mature_scores_are_kept():
    conformal = RollingConformal((2,), (0.5,), 10)
    conformal.extend(np.arange(1_000), np.arange(1_000.0)[:, None])
    (state,) = conformal.to_json()["scores"]
    assert state["mature"] == list(range(988, 998))  # at bar 999, forecasts up to bar 997 are mature
    assert (state["waiting"], state["waiting_bars"], state["last_bar"]) == ([998, 999], [998, 999], 999)
    assert conformal.counts == (10,)
    assert conformal.bands(np.array([999])).item() == 993  # the 6th of 10
    assert conformal.bands(np.array([1_000])).item() == 994
    assert conformal.bands(np.array([5_000])).item() == 995


def test_bands_follow_a_changing_market_where_fixed_ones_do_not():
    # Known truth: returns are normal with a variance that the forecasts, of one constant volatility, know nothing of.
    rng = np.random.default_rng(3)
    bars = np.arange(40_000)
    true = np.exp(0.8 * np.sin(2 * np.pi * bars / 30_000))[:, None]
    one_bar = true * rng.standard_normal((len(bars), 1))
    total = np.concatenate([[0], one_bar[:, 0].cumsum()])
    horizons = (1, 24)
    outcome = np.full((len(bars), 2), np.nan)
    for j, horizon in enumerate(horizons):
        outcome[: len(bars) - horizon, j] = total[1 + horizon :] - total[1 : len(bars) + 1 - horizon]
    scores = conformal_scores(np.zeros_like(outcome), np.sqrt(np.array(horizons, float)), outcome)
    conformal = RollingConformal(horizons, window=1_500)
    conformal.extend(bars[:5_000], scores[:5_000])
    rolling = conformal.bands(bars[5_000:-24], scores[5_000:-24])
    for k, coverage in enumerate(COVERAGES):
        fixed = conformal_quantile(scores[:5_000], coverage)
        covered = (scores[5_000:-24] <= rolling[:, k]).mean(0)
        covered_by_fixed = (scores[5_000:-24] <= fixed).mean(0)
        assert covered == pytest.approx(coverage, abs=0.02)
        assert (np.abs(covered_by_fixed - coverage) > 2 * np.abs(covered - coverage)).all()
    assert (np.abs(covered_by_fixed - coverage) < 0.3).all()


def test_on_real_bars_rolling_bands_hold_where_fixed_ones_do_not(data_dir):
    bars = pd.read_parquet(data_dir / "bars" / "XRPUSDT_1h.parquet")
    rows, horizons = len(bars), (1, 24)
    columns = {name: bars[name].to_numpy() for name in ("high", "low", "close")}
    history = History(timestamps=bars.ts.to_numpy(), timeframe_ms=3_600_000, **columns)
    fit, later = np.arange(int(0.7 * rows)), np.arange(int(0.7 * rows), rows - 24)
    variances = strong_har(history, realised_variances(history.close, horizons), horizons, fit, later)
    scores = conformal_scores(
        np.zeros_like(variances), np.sqrt(variances), realised_returns(history.close, horizons)[later]
    )
    test = np.searchsorted(later, int(0.8 * rows))
    conformal = RollingConformal(horizons)
    hours = history.timestamps[later] // 3_600_000
    conformal.extend(hours[:test], scores[:test])
    rolling = conformal.bands(hours[test:], scores[test:])
    for k, coverage in enumerate(COVERAGES):
        assert (scores[test:] <= rolling[:, k]).mean(0) == pytest.approx(coverage, abs=0.015)
    fixed = conformal_quantile(scores[: test - 24], 0.8)
    assert abs((scores[test:, 1] <= fixed[1]).mean() - 0.8) > 0.05


def test_scores_out_of_order_twice_or_impossible_are_refused():
    conformal = RollingConformal((1, 4))
    conformal.extend(np.array([5, 6]), np.ones((2, 2)))
    with pytest.raises(BitcornError, match="horizon 1 at bar 6 come after those of bar 6"):
        conformal.extend(np.array([6]), np.ones((1, 2)))
    with pytest.raises(BitcornError, match=r"horizon 4 at bar 3 come after"):
        conformal.extend(np.array([3]), np.array([[np.nan, 1]]))
    with pytest.raises(BitcornError, match="bar 5 are asked for after bar 6"):
        conformal.bands(np.array([5]))
    with pytest.raises(BitcornError, match="1 scores are infinite or negative"):
        conformal.extend(np.array([8]), np.array([[1, np.inf]]))
    with pytest.raises(BitcornError, match=r"shape \(1, 1\), not \(1, 2\)"):
        conformal.extend(np.array([8]), np.ones((1, 1)))
    with pytest.raises(BitcornError, match="whole numbers"):
        conformal.extend(np.array([8.5]), np.ones((1, 2)))
    with pytest.raises(BitcornError, match="ascending"):
        conformal.bands(np.array([8, 8]))
    assert conformal.to_json()["now"] == 6  # what was refused left no trace
    assert conformal.counts == (1, 0)


@pytest.mark.parametrize(("horizons", "window"), [((), 10), ((0, 1), 10), ((1,), 0)])
def test_impossible_settings_are_refused(horizons, window):
    with pytest.raises(BitcornError, match="1 or more"):
        RollingConformal(horizons, window=window)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("window"),
        lambda state: state["scores"].pop(),
        lambda state: state["scores"][0].update(waiting_bars=[1, 2, 3]),
        lambda state: state["scores"][0].update(mature=["many"]),
        lambda state: state.update(horizons=3),
    ],
)
def test_a_damaged_state_is_refused(damage):
    conformal = RollingConformal((1, 4))
    conformal.extend(np.array([5, 6]), np.ones((2, 2)))
    state = conformal.to_json()
    damage(state)
    with pytest.raises(BitcornError, match="calibrate anew"):
        RollingConformal.from_json(state)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_the_state_reads_back_as_the_same_numbers(seed):
    scores = np.exp(np.random.default_rng(seed).normal(0, 5, (50, 1))).astype(np.float32)
    conformal = RollingConformal((1,))
    conformal.extend(np.arange(50), scores)
    again = RollingConformal.from_json(json.loads(json.dumps(conformal.to_json())))
    assert np.array_equal(again.bands(np.array([60, 61])), conformal.bands(np.array([60, 61])))
    (mature,) = [np.array(one["mature"], np.float32) for one in again.to_json()["scores"]]
    assert np.array_equal(mature, scores[:, 0])
