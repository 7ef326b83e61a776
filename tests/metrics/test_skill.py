import json
import math
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_baselines import bars_of, realised_returns, realised_variances

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.evaluation.baselines import Baselines, baseline_forecasts
from bitcorn_ray.metrics import skill
from bitcorn_ray.metrics.hac import MeanTest, mean_test
from bitcorn_ray.metrics.losses import Direction, Share, direction, qlike
from bitcorn_ray.metrics.skill import Comparison, EvaluatedWindows, compare, evaluate_skill
from bitcorn_ray.models.baselines.history import History


def overlapping(rng, rows, horizon):
    drawn = np.concatenate([[0.0], rng.standard_normal(rows + horizon - 1).cumsum()])
    return (drawn[horizon:] - drawn[:-horizon]) / math.sqrt(horizon)


def squared_errors(rng, rows, horizon, noises):
    """Losses of forecasters that know the outcome of the next `horizon` bars up to noises of their own."""
    return [(overlapping(rng, rows, horizon) * noise + overlapping(rng, rows, horizon)) ** 2 for noise in noises]


def rejections(rng, repeats, rows, horizon, noises):
    times = [np.arange(rows)]
    found = []
    for _ in range(repeats):
        mine, theirs = squared_errors(rng, rows, horizon, noises)
        found.append(compare("other", times, [mine], [theirs], horizon))
    return found


# Diebold and Mariano


@pytest.mark.parametrize(("rows", "horizon"), [(400, 1), (500, 4), (800, 12), (1_500, 24)])
def test_equally_good_forecasters_are_told_apart_as_rarely_as_promised(rows, horizon):
    repeats = 500
    found = rejections(np.random.default_rng(horizon), repeats, rows, horizon, (1.0, 1.0))
    share = np.mean([one.outcome != "not distinguishable" for one in found])
    chance = 4 * math.sqrt(0.05 * 0.95 / repeats)
    assert 0.05 - chance < share < 0.065 + chance
    better = np.mean([one.test.p_negative < 0.05 for one in found])
    assert 0.05 - chance < better < 0.065 + chance


@pytest.mark.parametrize("horizon", [1, 12])
def test_a_better_forecaster_is_found(horizon):
    found = rejections(np.random.default_rng(5), 60, 3_000, horizon, (1.0, 1.4))
    assert np.mean([one.outcome == "better" for one in found]) > 0.9
    found = rejections(np.random.default_rng(6), 60, 3_000, horizon, (1.4, 1.0))
    assert np.mean([one.outcome == "worse" for one in found]) > 0.9


def test_partitions_that_move_together_are_no_more_evidence_than_they_are():
    rng = np.random.default_rng(7)
    rows, repeats = 400, 300
    times = [np.arange(rows)] * 6
    averaged, stacked = [], []
    for _ in range(repeats):
        common = overlapping(rng, rows, 4)
        losses = [common + 0.3 * rng.standard_normal(rows) for _ in times]
        nothing = [np.zeros(rows)] * 6
        averaged.append(compare("other", times, losses, nothing, 4).test.p_value < 0.05)
        stacked.append(mean_test(np.concatenate(losses), 4).p_value < 0.05)
    assert np.mean(averaged) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / repeats)
    assert np.mean(stacked) > 3 * np.mean(averaged)


@given(seed=st.integers(0, 99), rows=st.integers(40, 300), horizon=st.integers(1, 12))
@settings(deadline=None)
def test_the_statistic_is_that_of_a_regression_on_a_constant_but_for_small_samples(seed, rows, horizon):
    rng = np.random.default_rng(seed)
    mine, theirs = overlapping(rng, rows, horizon), overlapping(rng, rows, horizon) + 0.1
    found = compare("other", [np.arange(rows)], [mine], [theirs], horizon)
    lag = found.test.lag
    regression = sm.OLS(mine - theirs, np.ones(rows)).fit(
        cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": False}
    )
    short = 1 - 1 / rows - 2 * sum((1 - k / (lag + 1)) * (rows - k) for k in range(1, lag + 1)) / rows**2
    statistic = float(regression.tvalues[0]) * math.sqrt(short)
    assert found.test.statistic == pytest.approx(statistic, rel=1e-9)
    assert found.test.p_value == pytest.approx(2 * stats.t.sf(abs(statistic), 1.5 * rows / (lag + 1)), abs=1e-12)
    assert found.loss - found.baseline_loss == pytest.approx(found.test.mean, abs=1e-12)


def test_partitions_are_averaged_at_each_instant_and_unknown_losses_left_out_of_both():
    nan = math.nan
    times = [np.array([1, 2, 3, 4]), np.array([3, 4, 5])]
    losses = [np.array([1.0, 2, 3, 4]), np.array([5.0, nan, 7])]
    others = [np.array([0.0, nan, 1, 1]), np.array([1.0, 2, 3])]
    found = compare("other", times, losses, others, 1)
    assert found.test.count == 4  # instants 1, 3 (both partitions), 4 and 5
    assert found.loss == pytest.approx(np.mean([1, 4, 4, 7]))
    assert found.baseline_loss == pytest.approx(np.mean([0, 1, 1, 3]))
    with pytest.raises(BitcornError, match="no window of horizon 3 has both an outcome and a forecast of EWMA"):
        compare("EWMA", times, [one * nan for one in losses], others, 3)


def test_the_same_forecast_is_not_distinguishable_from_itself():
    losses = [np.random.default_rng(0).standard_normal(300)]
    found = compare("itself", [np.arange(300)], losses, losses, 4)
    assert (found.outcome, found.test.p_value, found.test.mean) == ("not distinguishable", 1, 0)


# Judging


HORIZONS = (1, 4)


def judged(history, fit, test, returns=None, volatilities=None):
    outcome = realised_returns(history.close, HORIZONS)
    realised = realised_variances(history.close, HORIZONS)
    made = baseline_forecasts(bars_of(history), outcome, realised, HORIZONS, fit, test)
    return (
        EvaluatedWindows(
            times=history.timestamps[test],
            returns=np.zeros((len(test), 2)) if returns is None else returns,
            volatilities=np.sqrt(made.variances["constant variance"]) if volatilities is None else volatilities,
            outcome=outcome[test],
            realised=realised[test],
            baseline_returns=made.returns,
            baseline_variances=made.variances,
        ),
        made,
    )


@pytest.fixture(scope="module")
def truth(simulated):
    return simulated(6_000, seed=1)


FIT, TEST = np.arange(3_500), np.arange(3_600, 5_990)


def test_the_true_variance_is_better_and_a_constant_one_worse(truth):
    # Over a known process, the variance of the horizon is the sum of its bars' expected ones.
    first = truth.variance_ahead[TEST]
    mean, persistence = 2e-6 / 0.02, 0.98
    known = np.column_stack([sum(mean + persistence**k * (first - mean) for k in range(h)) for h in HORIZONS])
    one, made = judged(truth.history, FIT, TEST, volatilities=np.sqrt(known))
    for j, found in enumerate(evaluate_skill(HORIZONS, [one])):
        outcomes = {comparison.baseline: comparison.outcome for comparison in found.volatility}
        assert outcomes["constant variance"] == outcomes["EWMA"] == "better"
        assert "worse" not in outcomes.values()
        by_name = {comparison.baseline: comparison for comparison in found.volatility}
        mine = qlike(known[:, j], one.realised[:, j]).mean()
        assert by_name["GARCH(1,1)"].loss == pytest.approx(mine)
        theirs = qlike(made.variances["GARCH(1,1)"][:, j], one.realised[:, j]).mean()
        assert by_name["GARCH(1,1)"].baseline_loss == pytest.approx(theirs)
        said = ("better than log-HAR by 0.0", "not distinguishable from log-HAR (0.0")[j]
        assert found.verdict.startswith(f"volatility: {said}")
        assert "not distinguishable from GARCH(1,1), the best baseline (" in found.verdict
    constant, _ = judged(truth.history, FIT, TEST)
    for found in evaluate_skill(HORIZONS, [constant]):
        assert found.verdict.startswith("volatility: worse than log-HAR by 0.")
        assert "return: equal to random walk, the best baseline; " in found.verdict
        assert found.verdict.endswith("direction: not forecast")


def test_returns_are_judged_by_the_share_of_variance_that_they_explain(truth):
    rng = np.random.default_rng(3)
    outcome = realised_returns(truth.history.close, HORIZONS)[TEST]
    half = 0.5 * outcome + 0.1 * outcome.std(0) * rng.standard_normal(outcome.shape)
    one, _ = judged(truth.history, FIT, TEST, returns=half)
    for j, found in enumerate(evaluate_skill(HORIZONS, [one])):
        (walk,) = found.returns
        explained = 1 - ((outcome[:, j] - half[:, j]) ** 2).mean() / (outcome[:, j] ** 2).mean()
        assert walk.test.mean == pytest.approx(-explained)
        assert walk.baseline_loss == pytest.approx(1)
        assert (
            f"return: better than random walk, the best baseline, by {100 * explained:.2g} % of variance, p < 0.001"
            in (found.verdict)
        )
        assert found.direction == direction([TEST], [half[:, j]], [outcome[:, j]], HORIZONS[j])
        assert "direction: better than a coin (" in found.verdict


def test_several_partitions_are_judged_together(simulated, truth):
    first, made = judged(truth.history, FIT, TEST)
    other = simulated(6_000, seed=2).history
    shifted = History(**{**vars(other), "timestamps": other.timestamps + 500 * 3_600_000})
    second, _ = judged(shifted, FIT, TEST)
    lonely = replace(second, baseline_variances={"EWMA": second.baseline_variances["EWMA"]})
    together = evaluate_skill(HORIZONS, [first, lonely])
    assert [one.baseline for one in together[0].volatility] == ["EWMA"]  # what both have
    assert together[0].volatility[0].test.count == len(TEST) + 500
    losses = [
        pd.Series(
            qlike(one.volatilities[:, 1] ** 2, one.realised[:, 1])
            - qlike(one.baseline_variances["EWMA"][:, 1], one.realised[:, 1]),
            index=one.times,
        )
        for one in (first, second)
    ]
    expected = pd.concat(losses, axis=1).mean(axis=1).sort_index()
    assert together[1].volatility[0].test == mean_test(expected.to_numpy(), 4) or (
        asdict(together[1].volatility[0].test) == pytest.approx(asdict(mean_test(expected.to_numpy(), 4)))
    )
    assert isinstance(made, Baselines)


def test_windows_without_an_outcome_or_a_baseline_are_left_out(truth):
    one, _ = judged(truth.history, FIT, TEST)
    outcome = one.outcome.copy()
    outcome[:10] = np.nan
    silent = {name: forecast.copy() for name, forecast in one.baseline_variances.items()}
    silent["EWMA"][50:60] = np.nan
    silent["log-HAR"][70] = 0
    volatilities = one.volatilities.copy()
    volatilities[:5] = np.nan  # where nothing is known
    found = evaluate_skill(
        HORIZONS, [replace(one, outcome=outcome, baseline_variances=silent, volatilities=volatilities)]
    )
    counts = {comparison.baseline: comparison.test.count for comparison in found[0].volatility}
    assert counts["constant variance"] == len(TEST) - 10
    assert counts["EWMA"] == len(TEST) - 20
    assert counts["log-HAR"] == len(TEST) - 11


@pytest.mark.parametrize(("name", "value"), [("returns", np.nan), ("volatilities", np.nan), ("volatilities", 0)])
def test_a_forecast_that_is_missing_is_refused(truth, name, value):
    one, _ = judged(truth.history, FIT, TEST)
    broken = getattr(one, name).copy()
    broken[7:10, 1] = value
    with pytest.raises(BitcornError, match=f"3 of {len(TEST)} forecasts of horizon 4"):
        evaluate_skill(HORIZONS, [replace(one, **{name: broken})])
    with pytest.raises(BitcornError, match="no partition to evaluate"):
        evaluate_skill(HORIZONS, [])


def test_judgements_are_plain_json(truth):
    one, _ = judged(truth.history, FIT, TEST)
    read = json.loads(json.dumps([asdict(found) for found in evaluate_skill(HORIZONS, [one])], allow_nan=False))
    assert read[0]["volatility"][0]["baseline"] == "constant variance"
    assert read[0]["volatility"][0]["test"]["p_value"] == 1


def test_on_real_bars_ranges_and_hours_are_worth_something(data_dir):
    partitions = []
    for symbol in ("BTCUSDT", "SOLUSDT"):
        bars = pd.read_parquet(data_dir / "bars" / f"{symbol}_1h.parquet")
        columns = {name: bars[name].to_numpy() for name in ("high", "low", "close")}
        history = History(timestamps=bars.ts.to_numpy(), timeframe_ms=3_600_000, **columns)
        rows = len(bars)
        one, made = judged(history, np.arange(int(0.7 * rows)), np.arange(int(0.8 * rows), rows - 24))
        partitions.append(replace(one, volatilities=np.sqrt(made.variances["strong HAR"])))
    for found in evaluate_skill(HORIZONS, partitions):
        outcomes = {comparison.baseline: comparison for comparison in found.volatility}
        assert outcomes.pop("strong HAR").outcome == "not distinguishable"  # from itself
        assert all(one.outcome == "better" and one.test.p_value < 0.001 for one in outcomes.values())
        assert found.verdict.startswith("volatility: better than log-HAR by 0.")
        assert "p < 0.001, but equal to strong HAR, the best baseline; " in found.verdict


# Words


def comparison(baseline, difference, p_value):
    test = MeanTest(
        count=100,
        lag=4,
        mean=difference,
        standard_error=1,
        statistic=0,
        p_value=p_value,
        p_negative=p_value / 2,
        p_positive=1 - p_value / 2,
    )
    outcome = "not distinguishable" if p_value >= 0.05 else ("better" if difference < 0 else "worse")
    return Comparison(baseline=baseline, loss=difference, baseline_loss=0, test=test, outcome=outcome)


def direction_of(share, p_value):
    accuracy = Share(count=100, share=share, lower=0, upper=1, effective_count=100)
    return Direction(accuracy=accuracy, undecided=0, expected=0.501, p_value=p_value, p_better=0.5)


@pytest.mark.parametrize(
    ("volatility", "returns", "found", "words"),
    [
        (
            [comparison("log-HAR", -0.07, 0.0001), comparison("EWMA", -0.2, 0.0001)],
            [],
            direction_of(0.503, 0.3),
            "volatility: better than log-HAR, the best baseline, by 0.07 nats, p < 0.001; "
            "direction: no better than a coin (50.3 % right, 50.1 % by chance, p = 0.3)",
        ),
        (
            [comparison("log-HAR", -0.07, 0.0001), comparison("strong HAR", -0.0312, 0.0042)],
            [comparison("random walk", 0.00025, 0.4)],
            direction_of(0.47, 0.001),
            "volatility: better than log-HAR by 0.07 nats, p < 0.001, "
            "and better than strong HAR, the best baseline, by 0.031 nats, p = 0.0042; "
            "return: not distinguishable from random walk, the best baseline (0.025 % of variance higher, p = 0.4); "
            "direction: worse than a coin (47.0 % right, 50.1 % by chance, p = 0.001)",
        ),
        (
            [comparison("strong HAR", 0.02, 0.01), comparison("log-HAR", -0.00001, 0.8)],
            [comparison("ridge", -0.001, 0.02), comparison("random walk", -0.002, 0.03)],
            direction_of(0.53, 0.0009),
            "volatility: not distinguishable from log-HAR (less than 0.0001 nats lower, p = 0.8), "
            "but worse than strong HAR, the best baseline, by 0.02 nats, p = 0.01; "
            "return: better than random walk by 0.2 % of variance, p = 0.03, "
            "and better than ridge, the best baseline, by 0.1 % of variance, p = 0.02; "
            "direction: better than a coin (53.0 % right, 50.1 % by chance, p < 0.001)",
        ),
        (
            [comparison("EWMA", 0.3, 0.0001)],
            [],
            None,
            "volatility: worse than EWMA, the best baseline, by 0.3 nats, p < 0.001; direction: not forecast",
        ),
    ],
)
def test_verdicts_say_what_was_found(volatility, returns, found, words):
    assert skill._verdict(volatility, returns, found) == words
