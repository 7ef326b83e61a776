import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.forecasting.bands import data_split_of, enough_scores, forecast_scores, roll_bands
from bitcorn_ray.market.outcomes import outcome_known
from bitcorn_ray.metrics.calibration import COVERAGES, conformal_quantile
from bitcorn_ray.models.interpolation import horizon_weights, interpolate_widths
from bitcorn_ray.training.run import PastScores

DAY = 86_400_000
NOTHING = PastScores(np.empty(0, np.int64), np.empty((0, 2), np.float32))


def days(*numbers):
    return np.array(numbers) * DAY


def shown(day):
    return str(np.datetime64(day * DAY, "ms"))[:19] + "Z"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"train": (10, 20), "validation": (25, 30), "test": (35, 40)}, "before train train validation test out"),
        ({"train": (10, 20), "validation": (25, 30)}, "before train train validation out out"),
        ({"train": (10, 20)}, "before train out out out out"),
        ({"validation": (25, 30)}, "before before before validation out out"),
        ({}, "unknown unknown unknown unknown unknown unknown"),
    ],
)  # fmt: skip
def test_cutoffs_are_marked_by_what_the_training_knew_of_them(parts, expected):
    """Purges, days 21-24 and 31-34, belong to the part before them."""
    partition = {part: [shown(first), shown(last)] for part, (first, last) in parts.items()}
    marks = data_split_of(partition, days(5, 15, 22, 27, 36, 41))
    assert [mark.split()[0] for mark in marks] == expected.split()


def test_a_run_that_knows_its_data_and_not_its_parts_says_so():
    assert data_split_of({"last": shown(20)}, days(20, 21)).tolist() == ["unknown", "out of sample"]
    assert data_split_of(None, days(1)).tolist() == ["other symbol"]


def test_an_outcome_is_known_where_no_bar_is_missing_on_the_way():
    bars = np.array([0, 1, 2, 5, 6])
    known = outcome_known(bars, np.arange(5), (1, 2))
    assert known.tolist() == [[True, True], [True, False], [False, False], [True, False], [False, False]]


def test_scores_are_errors_in_units_of_the_volatility():
    log_close = np.array([0.0, 0.1, 0.3, 0.2])
    scores = forecast_scores(
        np.arange(4), log_close, np.array([0, 2]), (1, 2), np.zeros((2, 2)), np.array([[0.1, 0.1], [0.2, 1]])
    )
    np.testing.assert_allclose(scores, [[1.0, 3.0], [0.5, np.nan]], rtol=1e-6)


def slow_band(bars, scores, horizon, at, coverage, window):
    """The obvious way: list what is mature, take the last ones, then their quantile."""
    mature = [s for b, s in zip(bars, scores, strict=True) if b + horizon <= at and np.isfinite(s)][-window:]
    return conformal_quantile(np.array(mature)[:, None], coverage)[0] if mature else np.inf


@settings(max_examples=40, deadline=None)
@given(
    past=st.lists(st.integers(0, 40), unique=True, max_size=20),
    own=st.lists(st.integers(20, 70), unique=True, min_size=1, max_size=30),
    first=st.integers(20, 69),
    seed=st.integers(0, 99),
)
def test_bands_come_from_the_last_mature_scores_of_the_run_and_of_the_bars(past, own, first, seed):
    rng, horizons, window = np.random.default_rng(seed), (1, 4), 12
    past, own = np.array(sorted(past), int), np.array(sorted(own), int)
    past_scores, own_scores = (rng.exponential(size=(len(b), 2)).astype(np.float32) for b in (past, own))
    own_scores[rng.random(own_scores.shape) < 0.2] = np.nan
    asked = own[own >= first]
    widths = roll_bands(PastScores(past, past_scores), own, own_scores, asked, horizons, COVERAGES, window)
    merged = {int(b): s for b, s in zip(past, past_scores, strict=True)} | {
        int(b): s for b, s in zip(own, own_scores, strict=True)
    }
    bars = sorted(merged)
    for n, at in enumerate(asked):
        for k, coverage in enumerate(COVERAGES):
            for j, horizon in enumerate(horizons):
                scores = [merged[b][j] for b in bars]
                assert widths[n, k, j] == pytest.approx(
                    slow_band(bars, scores, horizon, at, coverage, window), rel=1e-6
                )


def test_the_window_is_full_when_each_horizon_has_enough_mature_scores():
    bars, horizons = np.arange(100), (1, 4)
    past = PastScores(np.arange(-10, 0), np.ones((10, 2), np.float32))
    # From bar 50 rows 0..46 are mature at both horizons, and all ten of the past.
    assert enough_scores(bars, np.arange(50), past, horizons, 57, 50)
    assert not enough_scores(bars, np.arange(50), past, horizons, 58, 50)
    assert not enough_scores(bars, np.arange(50), NOTHING, horizons, 57, 50)


def test_widths_between_horizons_are_linear_and_infinite_beside_an_infinite_one():
    widths = np.array([[[1.0, 3.0, np.inf]]])
    between = interpolate_widths(widths, horizon_weights((1, 3, 5), [1, 2, 3, 4]))
    assert between.tolist() == [[[1.0, 2.0, 3.0, np.inf]]]
