import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import StationaryBootstrap
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.hac import mean_test
from bitcorn_ray.metrics.selection import (
    _bootstrap_variance,
    backtest_overfitting,
    fill_stopped,
    fold_means,
    rank_stability,
    superior_ability,
)


def noise(rows, trials, seed, horizon=1):
    """Losses of trials that are all alike: errors of overlapping labels, in part shared."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((rows + horizon, trials)) + 0.5 * rng.standard_normal((rows + horizon, 1))
    summed = drawn.cumsum(0)
    return summed[horizon:] - summed[:-horizon]


def overfitting_slowly(losses, blocks, horizon):
    """CSCV as its paper tells it, one combination after the other, with ranks by scipy."""
    parts = [part[: len(part) - horizon + 1] for part in np.array_split(losses, blocks)]
    below, places = [], []
    for past in combinations(range(blocks), blocks // 2):
        before = np.concatenate([parts[i] for i in past]).mean(0)
        after = np.concatenate([parts[i] for i in range(blocks) if i not in past]).mean(0)
        rank = stats.rankdata(-after)[before.argmin()]  # 1 is the worst
        omega = rank / (losses.shape[1] + 1)
        logit = math.log(omega / (1 - omega))
        below.append(1.0 if logit < -1e-9 else 0.5 if abs(logit) <= 1e-9 else 0.0)
        places.append((rank - 1) / (losses.shape[1] - 1))
    return np.mean(below), np.median(places)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(50, 90),
    trials=st.integers(2, 7),
    blocks=st.sampled_from([2, 4, 6]),
    horizon=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_overfitting_is_what_the_slow_version_says(rows, trials, blocks, horizon, seed):
    losses = noise(rows, trials, seed, horizon) + 1e6  # digits survive a large level
    found = backtest_overfitting(losses, horizon, blocks)
    probability, median = overfitting_slowly(losses, blocks, horizon)
    assert found.probability == pytest.approx(probability)
    assert found.median_rank == pytest.approx(median)
    assert (found.blocks, found.combinations) == (blocks, math.comb(blocks, blocks // 2))


def test_choosing_among_equals_is_luck_and_choosing_the_better_is_not():
    alike = [backtest_overfitting(noise(640, 20, seed)).probability for seed in range(30)]
    # Halves of a finite history are complements: what was lucky in one is unlucky in the other, so somewhat above 0.5.
    assert 0.45 < np.mean(alike) < 0.75
    losses = noise(640, 20, 1)
    losses[:, 7] -= 1
    assert backtest_overfitting(losses).probability == 0
    reversing = np.repeat([[1.0, -1.0]], 320, axis=0)  # what was good turns bad
    reversing[160:] *= -1
    assert backtest_overfitting(reversing + 0.0 * noise(320, 2, 2), blocks=2).probability == 1
    assert backtest_overfitting(np.zeros((64, 4))).probability == 0.5
    assert backtest_overfitting(np.zeros((64, 1))) is None


def test_blocks_hold_two_horizons_at_least():
    assert backtest_overfitting(noise(640, 3, 0), horizon=40).blocks == 8
    with pytest.raises(BitcornError, match="90 windows of horizon 24 are too few for two blocks"):
        backtest_overfitting(noise(90, 3, 0), horizon=24)


def test_a_stopped_trial_goes_on_at_its_distance_from_those_that_went_on():
    losses = np.array([[1.0, 2.0, 5.0], [3.0, 4.0, 9.0], [10.0, 20.0, np.nan], [0.0, 0.0, np.nan]])
    # Two rows at 1.5 and 3.5 on average of the others: it is 3.5 and 5.5 behind, 4.5 on average.
    assert fill_stopped(losses)[:, 2].tolist() == [5, 9, 19.5, 4.5]
    assert np.array_equal(fill_stopped(losses)[:, :2], losses[:, :2])
    crossed = np.array([[1.0, np.nan], [2.0, 4.0], [np.nan, 6.0]])
    assert np.isfinite(fill_stopped(crossed)).all()
    whole = noise(50, 3, 0)
    assert np.array_equal(fill_stopped(whole), whole)
    for bad in (np.array([[1.0, np.nan], [2.0, np.nan]]), np.array([[1.0, 1.0], [np.nan, np.nan]])):
        with pytest.raises(BitcornError, match=r"1 of 2 trials have no loss and 0|0 of 2 trials have no loss and 1"):
            fill_stopped(bad)
    with pytest.raises(BitcornError, match="one column a trial"):
        fill_stopped(np.zeros(4))


@given(rows=st.integers(4, 40), trials=st.integers(1, 4), seed=st.integers(0, 99))
def test_fold_means_are_those_of_a_grouped_frame(rows, trials, seed):
    rng = np.random.default_rng(seed)
    losses, folds = rng.standard_normal((rows, trials)), rng.integers(0, 3, rows)
    losses[rng.random(losses.shape) < 0.2] = np.nan
    assert np.allclose(fold_means(losses, folds), pd.DataFrame(losses).groupby(folds).mean(), equal_nan=True)


@given(folds=st.integers(2, 6), trials=st.integers(3, 9), seed=st.integers(0, 99))
def test_rank_stability_is_kendalls_friedmans_and_spearmans(folds, trials, seed):
    means = np.random.default_rng(seed).standard_normal((folds, trials))
    found = rank_stability(means)
    pairs = [stats.spearmanr(one, two).statistic for one, two in combinations(means, 2)]
    assert found.correlation == pytest.approx(np.mean(pairs))
    friedman = stats.friedmanchisquare(*means.T)
    assert found.concordance == pytest.approx(friedman.statistic / (folds * (trials - 1)))
    assert found.p_value == pytest.approx(friedman.pvalue)


def test_ranks_of_folds_that_agree_or_say_nothing():
    assert rank_stability(np.array([[1.0, 2, 3], [4, 5, 6]])).concordance == 1
    assert rank_stability(np.array([[1.0, 2, 3], [3, 2, 1]])).correlation == -1
    assert rank_stability(np.zeros((2, 3))) is None
    assert rank_stability(np.zeros((1, 3))) is None


def test_the_variance_of_the_bootstrap_is_the_one_that_it_has():
    x = noise(120, 2, 3, horizon=6)
    x = x - x.mean(0)
    means = [sample[0][0].mean(0) for sample in StationaryBootstrap(9, x, seed=1).bootstrap(6_000)]
    drawn = 120 * np.var(means, axis=0)
    assert _bootstrap_variance(x, 9) == pytest.approx(drawn, rel=0.08)  # four errors of a variance of 6,000


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 999), horizon=st.sampled_from([1, 6]), shift=st.floats(-0.3, 0.3))
def test_of_a_single_trial_it_is_the_test_of_its_mean(seed, horizon, shift):
    baseline, losses = noise(600, 1, seed, horizon)[:, 0], noise(600, 1, seed + 1_000, horizon) - shift
    found = superior_ability(baseline, losses, horizon)
    alone = mean_test(baseline - losses[:, 0], horizon).p_positive
    assert found.differences[0].p_positive == alone
    # Five errors of 2,000 samples, and as the means of some 20 blocks are not quite normal.
    near = pytest.approx(alone, abs=5 * math.sqrt(alone * (1 - alone) / 2_000) + 0.015)
    assert found.p_value == (near if alone < 0.5 else 1)
    assert found.p_best == found.p_value


@pytest.mark.parametrize(("rows", "horizon"), [(500, 1), (600, 6)])
def test_the_best_of_many_without_skill_is_rarely_found_superior(rows, horizon):
    repeats, rejected, naive = 80, 0, 0
    for seed in range(repeats):
        losses = noise(rows, 9, seed, horizon)
        found = superior_ability(losses[:, 0], losses[:, 1:], horizon, reps=200)
        rejected += found.p_value <= 0.05
        naive += min(test.p_positive for test in found.differences) <= 0.05
    # 5 to 6.5 % were measured over 400 repeats; four errors of 80 on top.
    assert rejected / repeats <= 0.065 + 4 * math.sqrt(0.06 * 0.94 / repeats)
    assert naive > 1.5 * rejected  # the best trial's own test finds more, and would the more the more trials there are


def test_a_better_trial_is_found_and_bought_by_all_that_were_tried():
    losses = noise(900, 9, 5, 4)
    losses[:, 3] -= 1.0
    found = superior_ability(losses[:, 0], losses[:, 1:], 4)
    assert found.p_value == found.p_best <= 0.01
    assert np.argmax([test.mean for test in found.differences]) == 2
    losses[:, 3] += 0.62
    few, many = (superior_ability(losses[:, 0], losses[:, 1:], 4, tried=tried) for tried in (None, 80))
    assert (few.tried, many.tried) == (8, 80)
    assert 0 < few.p_value < many.p_value
    assert many.p_value == pytest.approx(1 - (1 - few.p_value) ** 10)
    again = superior_ability(losses[:, 0], losses[:, 1:], 4)
    assert again.p_value == few.p_value  # the seed is fixed


def test_the_best_by_mean_need_not_have_the_largest_statistic():
    rng = np.random.default_rng(0)
    baseline = rng.standard_normal(900)
    steady = baseline - 0.1 + 0.1 * rng.standard_normal(900)
    wild = baseline - 0.5 + 15 * rng.standard_normal(900)
    found = superior_ability(baseline, np.column_stack([steady, wild]), 1)
    assert found.differences[1].mean > found.differences[0].mean
    assert found.p_value < 0.01 < found.p_best


def test_a_trial_equal_to_the_baseline_is_not_better_and_one_always_better_is():
    baseline = np.random.default_rng(0).standard_normal(600)
    assert superior_ability(baseline, baseline[:, None], 1).p_value == 1
    assert superior_ability(baseline, np.column_stack([baseline, baseline + 0.1]), 1).p_best == 1
    assert superior_ability(baseline, baseline[:, None] - 0.1, 1, reps=500).p_value == pytest.approx(1 / 501)


def test_what_cannot_be_told_is_not_told():
    losses = noise(500, 3, 0, 24)
    found = superior_ability(losses[:, 0], losses[:, 1:], 24)
    assert (found.p_value, found.p_best) == (None, None)
    assert found.pieces < 10
    assert len(found.differences) == 2
    with pytest.raises(BitcornError, match="tried is 1"):
        superior_ability(losses[:, 0], losses[:, 1:], 24, tried=1)
    with pytest.raises(BitcornError, match="baseline has losses"):
        superior_ability(losses[:10, 0], losses, 24)
    with pytest.raises(BitcornError, match="baseline has losses"):
        superior_ability(np.full(500, np.nan), losses, 24)
