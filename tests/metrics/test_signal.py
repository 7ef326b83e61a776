import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.losses import direction
from bitcorn_ray.metrics.signal import rank_scores, sign_losses, sign_scores

ONE_FOLD = np.zeros(80, np.int64)


def drawn(seed, rows=80, trials=3):
    rng = np.random.default_rng(seed)
    outcome = rng.standard_normal(rows)
    return 0.5 * outcome[:, None] + rng.standard_normal((rows, trials)), outcome


@given(seed=st.integers(0, 999))
def test_the_mean_of_rank_scores_is_spearmans_correlation(seed):
    forecast, outcome = drawn(seed)
    means = rank_scores(forecast, outcome, ONE_FOLD).mean(0)
    assert means == pytest.approx([stats.spearmanr(column, outcome).statistic for column in forecast.T])
    # Neither level nor spread matters, nor how far out an outcome lies.
    assert np.allclose(rank_scores(np.exp(3 * forecast), outcome**3, ONE_FOLD).mean(0), means)


@given(seed=st.integers(0, 999))
@settings(deadline=None)
def test_the_mean_of_sign_scores_is_the_accuracy_beyond_chance(seed):
    forecast, outcome = drawn(seed)
    for k, mean in enumerate(sign_scores(forecast, outcome, ONE_FOLD).mean(0)):
        found = direction([np.arange(80)], [forecast[:, k]], [outcome], 1)
        assert mean == pytest.approx(found.accuracy.share - found.expected)
        assert sign_losses(forecast, outcome)[:, k].mean() == pytest.approx(1 - found.accuracy.share)


def test_who_says_the_same_all_through_a_fold_scores_nothing():
    folds = np.repeat([0, 1], 40)
    outcome = drawn(0)[1] + 3 * folds  # a level that rose, as did the forecast's
    forecast = (1.0 + folds)[:, None]
    assert np.allclose(rank_scores(forecast, outcome, folds), 0)
    assert np.allclose(sign_scores(forecast, outcome, folds), 0)
    assert rank_scores(forecast, outcome, ONE_FOLD).mean() > 0.5


def test_horizons_are_averaged():
    forecast, outcome = drawn(1, trials=4)
    forecasts, outcomes = forecast.reshape(80, 2, 2), np.column_stack([outcome, outcome[::-1]])
    for score in (rank_scores, sign_scores):
        each = [score(forecasts[:, h], outcomes[:, h], ONE_FOLD) for h in range(2)]
        assert np.allclose(score(forecasts, outcomes, ONE_FOLD), np.mean(each, axis=0))
    both = [sign_losses(forecasts[:, h], outcomes[:, h]) for h in range(2)]
    assert np.allclose(sign_losses(forecasts, outcomes), np.mean(both, axis=0))


def test_no_sign_is_half_wrong():
    assert sign_losses(np.array([[1.0], [-1.0], [0.0], [2.0]]), np.array([2.0, 2.0, 2.0, 0.0])).ravel().tolist() == [
        0,
        1,
        0.5,
        0.5,
    ]


def test_what_does_not_fit_is_refused():
    forecast, outcome = drawn(0)
    with pytest.raises(BitcornError, match=r"shape \(80, 3\) and outcomes \(79,\)"):
        rank_scores(forecast, outcome[1:], ONE_FOLD)
    with pytest.raises(BitcornError, match=r"folds have shape \(3,\)"):
        sign_scores(forecast, outcome, np.arange(3))
    outcome[3] = np.nan
    with pytest.raises(BitcornError, match="not finite"):
        sign_losses(forecast, outcome)
