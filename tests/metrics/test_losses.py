import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.proportion import proportion_confint

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics import losses as metrics
from bitcorn_ray.metrics.hac import degrees_of_freedom, hac_lag
from bitcorn_ray.metrics.losses import crps, forecast_metrics, gaussian_nll, pit, qlike, share

HORIZONS, COVERAGES = (1, 4), (0.5, 0.8)


def overlapping(rng, rows, horizon):
    """Standard normal outcomes of `horizon` bars, one starting at every bar."""
    drawn = np.concatenate([[0.0], rng.standard_normal(rows + horizon - 1).cumsum()])
    return (drawn[horizon:] - drawn[:-horizon]) / math.sqrt(horizon)


def direction(forecast, outcome, horizon):
    """The direction of one partition."""
    return metrics.direction([np.arange(len(forecast))], [forecast], [outcome], horizon)


# Losses


def test_qlike_is_lowest_at_the_true_variance_and_in_nats():
    rng = np.random.default_rng(0)
    realised = 4 * rng.chisquare(1, 100_000)
    at = {v: qlike(np.full_like(realised, v), realised).mean() for v in (2.0, 3.5, 4.0, 4.5, 8.0)}
    assert min(at, key=at.get) == 4.0
    # Twice the true variance costs ln 2 + 1/2 - 1 nats.
    assert at[8.0] - at[4.0] == pytest.approx(math.log(2) - 0.5, abs=0.01)
    assert qlike(np.array([2.0]), np.array([0.0])) == [math.log(2)]  # a bar that stood still is an outcome like others


@given(mean=st.floats(-3, 3), sigma=st.floats(0.05, 5), outcome=st.floats(-4, 4))
@settings(deadline=None)
def test_densities_and_crps_are_those_of_the_normal_distribution(mean, sigma, outcome):
    given_ = np.array([mean]), np.array([sigma]), np.array([outcome])
    assert gaussian_nll(*given_)[0] == pytest.approx(-stats.norm.logpdf(outcome, mean, sigma), rel=1e-9, abs=1e-9)
    normal = stats.norm(mean, sigma)
    # CRPS by its definition: the integral of the squared distance of the distribution from the outcome's step.
    low, high = min(outcome, mean - 9 * sigma), max(outcome, mean + 9 * sigma)
    below = integrate.quad(lambda x: normal.cdf(x) ** 2, low, outcome)[0]
    above = integrate.quad(lambda x: normal.sf(x) ** 2, outcome, high)[0]
    assert crps(*given_)[0] == pytest.approx(below + above, rel=1e-5, abs=1e-7)


def test_float32_forecasts_are_scored_in_float64():
    rng = np.random.default_rng(1)
    mean, sigma, outcome = (rng.uniform(0.001, 0.01, 50).astype(np.float32) for _ in range(3))
    for loss in (gaussian_nll, crps):
        assert loss(mean, sigma, outcome).dtype == np.float64
        assert np.array_equal(loss(mean, sigma, outcome), loss(*(x.astype(float) for x in (mean, sigma, outcome))))
    assert qlike(sigma**2, mean**2).dtype == np.float64


# Shares and directions


@given(seed=st.integers(0, 99), rows=st.integers(20, 500), horizon=st.integers(1, 8), chance=st.floats(0.2, 0.9))
@settings(deadline=None)
def test_the_interval_is_wilsons_for_the_effective_number_of_trials(seed, rows, horizon, chance):
    hits = np.random.default_rng(seed).random(rows) < chance
    result = share(hits, horizon)
    assert (result.count, result.share) == (rows, hits.mean())
    # statsmodels' interval is of the normal quantile: ask it for the level at which that is Student's.
    student = stats.t(degrees_of_freedom(rows, hac_lag(rows, horizon))).ppf(0.975)
    trials = result.effective_count
    lower, upper = proportion_confint(hits.mean() * trials, trials, alpha=2 * stats.norm.sf(student), method="wilson")
    assert (result.lower, result.upper) == pytest.approx((lower, upper), abs=1e-9)


def test_overlapping_windows_are_worth_as_many_trials_as_do_not_overlap():
    rng = np.random.default_rng(2)
    alone = share(overlapping(rng, 20_000, 1) > 0, 1)
    assert alone.effective_count == pytest.approx(20_000, rel=0.2)
    # Signs of overlapping sums are correlated by (2/pi) arcsin of the sums' own correlation.
    worth = 20_000 / (1 + 2 * sum(2 / math.pi * math.asin(1 - k / 24) for k in range(1, 24)))
    together = share(overlapping(rng, 20_000, 24) > 0, 24)
    assert together.effective_count == pytest.approx(worth, rel=0.35)


@pytest.mark.parametrize("hit", [True, False])
def test_all_hits_or_none_leave_doubt_too(hit):
    result = share(np.full(240, hit), 24)
    assert result.effective_count == 10  # windows that do not overlap
    assert 0.25 < result.upper - result.lower < 0.5


@pytest.mark.parametrize("horizon", [1, 12])
def test_a_forecast_without_skill_is_rarely_called_better_than_a_coin(horizon):
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        # Forecasts that go up more often than down and change slowly, of outcomes that drift: half right by luck alone
        forecast = overlapping(rng, 800, 2 * horizon) + 0.5
        found.append(direction(forecast, overlapping(rng, 800, horizon) + 0.3, horizon))
    accuracy = np.array([one.accuracy.share for one in found])
    up, rose = stats.norm.cdf([0.5, 0.3])
    assert accuracy.mean() == pytest.approx(up * rose + (1 - up) * (1 - rose), abs=0.005)
    rejected = np.mean([one.p_value < 0.05 for one in found])
    assert 0.01 < rejected < 0.1
    assert 0.01 < np.mean([one.p_better < 0.05 for one in found]) < 0.1


@given(seed=st.integers(0, 200), rows=st.integers(60, 400), horizon=st.sampled_from([1, 4]), skill=st.floats(-1, 1))
@settings(deadline=None)
def test_the_direction_is_that_of_the_table_of_signs(seed, rows, horizon, skill):
    rng = np.random.default_rng(seed)
    outcome = overlapping(rng, rows, horizon)
    forecast = rng.standard_normal(rows) + skill * outcome
    result = direction(forecast, outcome, horizon)
    up, rose = forecast > 0, outcome > 0
    assert result.accuracy.share == pytest.approx((up == rose).mean())
    table = np.array([[(up & rose).sum(), (up & ~rose).sum()], [(~up & rose).sum(), (~up & ~rose).sum()]])
    assert result.expected == pytest.approx(np.trace(stats.contingency.expected_freq(table)) / rows)
    assert asdict(result.accuracy) == pytest.approx(asdict(share(up == rose, horizon)))
    assert (result.p_better < 0.5) == (result.accuracy.share > result.expected)


def test_a_direction_that_is_predicted_is_found():
    rng = np.random.default_rng(4)
    outcome = overlapping(rng, 4_000, 4)
    result = direction(outcome + 4 * rng.standard_normal(4_000), outcome, 4)
    # Normal pairs with correlation r agree in sign with a probability of 1/2 + arcsin(r) / pi.
    truth = 0.5 + math.asin(1 / math.sqrt(17)) / math.pi
    assert result.accuracy.lower < truth < result.accuracy.upper
    assert result.p_better < 0.001
    turned = direction(-outcome - 4 * rng.standard_normal(4_000), outcome, 4)
    assert turned.p_better > 0.999
    assert turned.p_value < 0.001


def test_windows_without_a_sign_are_counted_apart():
    forecast, outcome = np.array([0.1, -0.1, 0.0, 0.2, -0.2]), np.array([1.0, -1.0, 1.0, 0.0, 1.0])
    result = direction(forecast, outcome, 1)
    assert (result.undecided, result.accuracy.count, result.accuracy.share) == (2, 3, 2 / 3)
    assert direction(np.zeros(5), outcome, 1) is None  # a random walk says nothing about the direction


def test_one_who_always_says_up_is_right_as_often_as_expected():
    rng = np.random.default_rng(5)
    outcome = rng.standard_normal(500) + 1
    result = direction(np.ones(500), outcome, 1)
    assert result.accuracy.share == pytest.approx((outcome > 0).mean())
    assert (result.p_value, result.p_better) == (1, 1)


@pytest.mark.parametrize("ups", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("skill", [0.0, 0.08])
def test_the_test_is_that_of_pesaran_and_timmermann_however_often_up_is_said(ups, skill):
    rng = np.random.default_rng(6)
    ours, theirs = [], []
    for _ in range(200):
        outcome = rng.standard_normal(2_000) + 0.2
        forecast = skill * outcome + rng.standard_normal(2_000) + stats.norm.ppf(ups)
        ours.append(direction(forecast, outcome, 1).p_better)
        n, x, y = len(outcome), np.mean(forecast > 0), np.mean(outcome > 0)  # as they write it, of independent outcomes
        hit, chance = np.mean((forecast > 0) == (outcome > 0)), x * y + (1 - x) * (1 - y)
        of_chance = (2 * y - 1) ** 2 * x * (1 - x) / n + (2 * x - 1) ** 2 * y * (1 - y) / n
        of_chance += 4 * x * y * (1 - x) * (1 - y) / n**2
        theirs.append(stats.norm.sf((hit - chance) / math.sqrt(chance * (1 - chance) / n - of_chance)))
    found, expected = (np.mean(np.array(each) < 0.05) for each in (ours, theirs))
    assert found == pytest.approx(expected, abs=0.05)
    assert found < 0.1 if skill == 0 else found > 0.25


def test_partitions_of_their_own_mind_tell_more_together():
    rng, times = np.random.default_rng(7), np.arange(600)
    outcomes = [rng.standard_normal(600) for _ in range(16)]
    forecasts = [0.1 * outcome + rng.standard_normal(600) for outcome in outcomes]
    together = metrics.direction([times] * 16, forecasts, outcomes, 1)
    assert together.p_better < 0.001
    assert together.accuracy.effective_count == pytest.approx(16 * 600, rel=0.3)
    assert together.accuracy.lower > 0.5
    blind = metrics.direction([times] * 16, [rng.standard_normal(600) for _ in range(16)], outcomes, 1)
    assert blind.p_better > 0.05


def test_partitions_that_move_together_are_no_more_than_one():
    rng = np.random.default_rng(9)
    times = np.arange(2_000)
    outcome, forecast = overlapping(rng, 2_000, 4), overlapping(rng, 2_000, 8)
    alone = direction(forecast, outcome, 4)
    copies = metrics.direction([times] * 5, [forecast] * 5, [outcome] * 5, 4)
    assert asdict(copies.accuracy) == pytest.approx(asdict(alone.accuracy))
    assert (copies.expected, copies.p_value) == pytest.approx((alone.expected, alone.p_value))
    # Another partition, of its own mind, that is only there half of the time and has unknown outcomes.
    other = np.where(rng.random(1_000) < 0.1, np.nan, rng.standard_normal(1_000))
    both = metrics.direction([times, times[500:1_500]], [forecast, np.ones(1_000)], [outcome, other], 4)
    hits = [[float(a == b)] for a, b in zip(forecast > 0, outcome > 0, strict=True)]
    for t, happened in enumerate(other, 500):
        if not math.isnan(happened):
            hits[t].append(float(happened > 0))
    assert both.accuracy.share == pytest.approx(np.mean([np.mean(one) for one in hits]))
    assert both.undecided == 0
    assert both.accuracy.count == 2_000


# PIT


def test_right_forecasts_have_a_flat_histogram():
    rng = np.random.default_rng(6)
    found = pit(rng.standard_normal(50_000), 1)
    assert sum(found.histogram) == pytest.approx(1)
    assert len(found.histogram) == 20
    assert np.abs(np.array(found.histogram) - 0.05).max() < 5 * math.sqrt(0.05 * 0.95 / 50_000)
    assert (found.z_mean, found.z_std) == pytest.approx((0, 1), abs=0.02)


def test_the_histogram_counts_outcomes_between_quantiles():
    edges = stats.norm.ppf(np.linspace(0, 1, 21))
    z = np.concatenate([np.full(3, edges[1] - 0.01), [edges[19] + 0.01, -50, 50]])
    assert pit(z, 1).histogram == pytest.approx([4 / 6] + [0] * 18 + [2 / 6])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda z: z + 0.2, "p_mean"),
        (lambda z: 1.2 * z, "p_spread"),
        (lambda z: np.sign(z) * np.abs(z) ** 1.6, "p_calibrated"),
    ],
)
def test_forecasts_that_are_off_are_found_and_right_ones_are_not(change, named):
    rng = np.random.default_rng(7)
    right = [pit(overlapping(rng, 3_000, 6), 6) for _ in range(300)]
    rejected = np.mean([getattr(one, named) < 0.05 for one in right])
    assert 0.01 < rejected < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)
    off = [pit(change(overlapping(rng, 1_000, 6)), 6) for _ in range(40)]
    assert np.mean([getattr(one, named) < 0.05 for one in off]) > 0.6


# All of them


@pytest.fixture
def forecasts():
    rng = np.random.default_rng(8)
    sigma = np.exp(rng.normal(-4, 0.3, (600, 2))).astype(np.float32)
    outcome = sigma * rng.standard_normal((600, 2))
    outcome[-4:, 1] = np.nan  # horizon 4 reaches past the end
    outcome[100:103] = np.nan  # a gap
    forecast = (0.1 * sigma * rng.standard_normal((600, 2))).astype(np.float32)
    close = np.exp(rng.normal(3, 0.1, 600))
    widths = np.full((600, 2, 2), [[0.674, 0.674], [1.282, 1.282]], np.float32)
    widths[:19, 1] = np.inf
    return {
        "horizons": HORIZONS,
        "forecast": forecast,
        "volatility": sigma,
        "outcome": outcome,
        "realised": np.where(np.isnan(outcome), np.nan, sigma**2 * rng.chisquare(4, (600, 2)) / 4),
        "close": close,
        "coverages": COVERAGES,
        "widths": widths,
    }


def test_metrics_are_what_their_names_say(forecasts):
    found = forecast_metrics(**forecasts)
    assert [one.horizon for one in found] == [1, 4]
    assert [(one.count, one.unknown) for one in found] == [(597, 3), (593, 7)]
    for j, one in enumerate(found):
        rows = [i for i in range(600) if not math.isnan(forecasts["outcome"][i, j])]
        outcome, mean, sigma, realised = (
            np.array([float(forecasts[name][i, j]) for i in rows])
            for name in ("outcome", "forecast", "volatility", "realised")
        )
        close = forecasts["close"][rows]
        miss = close * np.exp(outcome) - close * np.exp(mean)
        assert one.rmse_return == pytest.approx(math.sqrt(sum((outcome - mean) ** 2) / len(rows)))
        assert one.mae_return == pytest.approx(sum(abs(outcome - mean)) / len(rows))
        assert one.rmse_price == pytest.approx(math.sqrt(sum(miss**2) / len(rows)))
        assert one.mae_price == pytest.approx(sum(abs(miss)) / len(rows))
        assert one.qlike == pytest.approx(sum(2 * np.log(sigma) + realised / sigma**2) / len(rows))
        assert one.nll == pytest.approx(-stats.norm.logpdf(outcome, mean, sigma).mean())
        assert one.direction == direction(mean, outcome, one.horizon)
        assert one.pit == pit((outcome - mean) / sigma, one.horizon)
        for k, band in enumerate(one.bands):
            width = forecasts["widths"][rows, k, j].astype(float)
            bounded = np.isfinite(width)
            inside = (outcome >= mean - width * sigma) & (outcome <= mean + width * sigma)
            assert band.level == COVERAGES[k]
            assert band.unbounded == (19 if k == 1 else 0)
            assert band.covered.share == pytest.approx(inside[bounded].mean())
            assert band.covered.lower < COVERAGES[k] < band.covered.upper
            assert band.width == pytest.approx((2 * width * sigma)[bounded].mean())


def test_metrics_are_plain_json(forecasts):
    forecasts["forecast"] = np.zeros((600, 2), np.float32)
    forecasts["widths"] = np.full((600, 2, 2), np.inf)
    found = forecast_metrics(**forecasts)
    read = json.loads(json.dumps([asdict(one) for one in found], allow_nan=False))
    assert read[0]["direction"] is None
    assert read[1]["bands"][0] == {"level": 0.5, "covered": None, "width": None, "unbounded": 593}


@pytest.mark.parametrize(("value", "name"), [(np.nan, "forecast"), (np.nan, "volatility"), (0, "volatility")])
def test_a_forecast_that_is_missing_where_the_outcome_is_known_is_refused(forecasts, value, name):
    forecasts[name][599, 1] = value  # there the outcome isn't known
    forecast_metrics(**forecasts)
    forecasts[name][50:52, 1] = value
    with pytest.raises(BitcornError, match="2 of 593 forecasts of horizon 4"):
        forecast_metrics(**forecasts)


def test_wrong_shapes_and_unknown_outcomes_are_refused(forecasts):
    with pytest.raises(BitcornError, match=r"realised has shape \(600, 1\), not \(600, 2\)"):
        forecast_metrics(**{**forecasts, "realised": forecasts["realised"][:, :1]})
    with pytest.raises(BitcornError, match=r"widths have shape \(600, 2\)"):
        forecast_metrics(**{**forecasts, "widths": forecasts["widths"][:, 0]})
    with pytest.raises(BitcornError, match="no outcome of horizon 1 is known"):
        forecast_metrics(**{**forecasts, "outcome": np.full((600, 2), np.nan)})
