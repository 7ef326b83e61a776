import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_baselines import realised_returns, realised_variances, strong_har

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.calibration import COVERAGES, conformal_quantile, conformal_scores, rolling_widths
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
        rolling_widths(np.array([1]), np.ones((1, 1)), np.array([5]), [1], [float(coverage)])


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
    bands = rolling_widths(bars, scores, bars, HORIZONS, LEVELS, WINDOW)
    assert np.array_equal(bands, slow_bands(bars, scores, bars))


@settings(deadline=None)
@given(history=histories(), split=st.integers(0, 60))
def test_bands_at_some_bars_equal_those_of_all(history, split):
    bars, scores = history
    later = bars[split:]
    widths = rolling_widths(bars, scores, later, HORIZONS, LEVELS, WINDOW)
    assert np.array_equal(widths, slow_bands(bars, scores, later))
    between = np.unique(later + 1)  # bars without a score
    widths = rolling_widths(bars, scores, between, HORIZONS, LEVELS, WINDOW)
    assert np.array_equal(widths, slow_bands(bars, scores, between))


@pytest.mark.parametrize(("j", "horizon"), list(enumerate(HORIZONS)))
def test_no_score_counts_before_its_horizon_has_passed(j, horizon):
    rng = np.random.default_rng(2)
    bars = np.sort(rng.choice(400, 300, replace=False))
    scores = rng.exponential(size=(300, len(HORIZONS)))
    bands = rolling_widths(bars, scores, bars, HORIZONS, LEVELS)
    for i in (50, 123, 250):
        unknown = bars + horizon > bars[i]  # when the forecast at bar i is made
        changed = scores.copy()
        changed[unknown, j] *= rng.uniform(2, 9, np.count_nonzero(unknown))
        moved = rolling_widths(bars, changed, bars, HORIZONS, LEVELS)
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
        alone = rolling_widths(bars, changed, bars, HORIZONS, (0.4,), 1)[:, 0, j]
        matured, next_matured = np.searchsorted(bars, bars[i : i + 2] + horizon)
        assert np.flatnonzero(alone == 77).tolist() == list(range(matured, next_matured))


def test_only_the_last_mature_scores_count():
    bars = np.arange(1_000)
    widths = rolling_widths(bars, bars[:, None].astype(float), np.array([999, 1_000, 5_000]), (2,), (0.5,), 10)
    assert widths.ravel().tolist() == [993, 994, 995]  # the 6th of 10; at bar 999, forecasts up to bar 997 are mature


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
    rolling = rolling_widths(bars[:-24], scores[:-24], bars[5_000:-24], horizons, window=1_500)
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
    hours = history.timestamps[later] // 3_600_000
    rolling = rolling_widths(hours, scores, hours[test:], horizons)
    for k, coverage in enumerate(COVERAGES):
        assert (scores[test:] <= rolling[:, k]).mean(0) == pytest.approx(coverage, abs=0.015)
    fixed = conformal_quantile(scores[: test - 24], 0.8)
    assert abs((scores[test:, 1] <= fixed[1]).mean() - 0.8) > 0.05


@pytest.mark.parametrize(
    ("bars", "scores", "message"),
    [
        ([8], [[1, np.inf]], "1 scores are infinite or negative"),
        ([8], [[-1, 1]], "1 scores are infinite or negative"),
        ([8], [[1]], r"shape \(1, 1\), not \(1, 2\)"),
        ([8.5], [[1, 1]], "whole numbers"),
        ([8, 8], [[1, 1], [1, 1]], "ascending"),
    ],
)
def test_invalid_bars_and_scores_are_refused(bars, scores, message):
    with pytest.raises(BitcornError, match=message):
        rolling_widths(np.array(bars), np.array(scores), np.array([9]), (1, 4))


def test_requested_bars_must_ascend():
    with pytest.raises(BitcornError, match="requested bars"):
        rolling_widths(np.array([1]), np.ones((1, 1)), np.array([5, 4]), (1,))


@pytest.mark.parametrize(("horizons", "window"), [((), 10), ((0, 1), 10), ((1,), 0)])
def test_invalid_settings_are_refused(horizons, window):
    with pytest.raises(BitcornError, match="1 or more"):
        rolling_widths(np.array([1]), np.ones((1, len(horizons))), np.array([5]), horizons, window=window)
