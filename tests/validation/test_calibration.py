import numpy as np
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.validation.calibration import conformal_quantile, conformal_scores


def test_the_quantile_is_the_ranked_score():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))[:, None]  # 1 ... 99
    assert conformal_quantile(scores, 0.8) == [80.0]  # ceil(100 x 0.8)
    assert conformal_quantile(scores, 0.95) == [95.0]


def test_too_few_scores_promise_nothing():
    assert conformal_quantile(np.ones((18, 2)), 0.95).tolist() == [np.inf, np.inf]
    assert conformal_quantile(np.ones((19, 2)), 0.95).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_bands_cover_new_data_even_where_the_volatility_is_wrong(coverage):
    rng = np.random.default_rng(1)
    sigma = np.exp(rng.normal(-5, 0.5, (40_000, 1)))
    outcome = sigma * rng.standard_t(4, (40_000, 1))
    scores = conformal_scores(0 * sigma, 0.5 * sigma, outcome)  # a model that says half the volatility
    width = conformal_quantile(scores[:20_000], coverage)
    assert (scores[20_000:] <= width).mean() == pytest.approx(coverage, abs=0.01)


def test_a_coverage_outside_0_to_1_is_refused():
    with pytest.raises(BitcornError, match="coverage is 95"):
        conformal_quantile(np.ones((30, 1)), 95)
