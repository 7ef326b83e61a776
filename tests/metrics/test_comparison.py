import numpy as np
import pytest
from simulated_sweeps import garch_market, questions_of, random_walk

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.comparison import TrialComparison, leaderboard
from bitcorn_ray.metrics.hac import mean_test
from bitcorn_ray.metrics.selection import superior_ability
from bitcorn_ray.metrics.signal import sign_losses, sign_scores

NAMES = [f"t{k}" for k in range(8)]


def question(rows=900, seed=0, skill=(0.0, 0.0, 0.0), name="volatility", missing=0):
    """Three trials on three folds whose scores and losses are better than nothing's by `skill`."""
    rng = np.random.default_rng(seed)
    nothing = rng.standard_normal(rows)
    losses = nothing[:, None] - np.array(skill) + 0.5 * rng.standard_normal((rows, 3))
    scores = np.array(skill) + rng.standard_normal((rows, 3))
    losses[rows - missing :, 2] = scores[rows - missing :, 2] = np.nan
    return TrialComparison(
        name=name,
        loss="QLIKE",
        losses=losses,
        score="rank correlation",
        scores=scores,
        baselines={"constant variance": nothing, "log-HAR": nothing - 0.3 + 0.1 * rng.standard_normal(rows)},
        folds=np.repeat([4, 5, 6], rows // 3),
        horizon=1,
    )


def test_standings_are_sorted_and_say_how_folds_differ():
    asked = question(skill=(0.0, 0.4, 0.1))
    answer = leaderboard([asked], "abc", reps=200).answers[0]
    assert [standing.rank for standing in answer.standings] == [1, 2, 3]
    assert [standing.trial for standing in answer.standings] == ["b", "c", "a"]
    best = answer.standings[0]
    folds = asked.losses[:, 1].reshape(3, -1).mean(1)
    assert best.folds == pytest.approx(folds)
    assert best.mean == pytest.approx(folds.mean())
    assert best.standard_error == pytest.approx(folds.std(ddof=1) / np.sqrt(3))
    assert best.score == pytest.approx(asked.scores[:, 1].mean())
    assert best.against["log-HAR"] == mean_test(asked.baselines["log-HAR"] - asked.losses[:, 1], 1)
    assert answer.baselines["log-HAR"] == pytest.approx(asked.baselines["log-HAR"].mean())
    assert answer.ranks.concordance == 1


def test_the_verdict_says_what_was_found_and_what_it_is_worth():
    board = leaderboard([question(skill=(0.0, 0.2, 0.1))], "abc", reps=500)
    (answer,) = board.answers
    assert board.found == ("volatility",)
    assert answer.better_than == ("constant variance",)
    assert answer.beaten_by_none == ("log-HAR",)
    assert answer.superiority["constant variance"] == pytest.approx(1 / 501)
    assert board.verdict.startswith(
        "3 trials on 3 test folds of 900 windows together, all trials counted.\nVolatility: found"
    )
    assert "trial b, the best of 3, beats constant variance (p = 0.002)" in board.verdict
    assert "none of these 3 trials beats log-HAR (p = 1)" in board.verdict
    assert "Nothing found" not in board.verdict
    every = leaderboard([question(skill=(0.0, 0.6, 0.1))], "abc", reps=500)
    assert every.answers[0].better_than == ("constant variance", "log-HAR")
    assert "none" not in every.verdict


def test_the_verdict_on_nothing():
    board = leaderboard([question(), question(seed=1, name="direction")], "abc", reps=500)
    assert board.found == ()
    assert "all trials counted. Nothing found.\nVolatility: nothing found, as no forecasts" in board.verdict
    assert "Direction: nothing found" in board.verdict
    assert "none of these 3 trials beats constant variance" in board.verdict
    one = TrialComparison(
        **{**vars(question()), "losses": question().losses[:, :1], "scores": question().scores[:, :1]}
    )
    assert "trial a doesn't beat constant variance" in leaderboard([one], "a", reps=200).verdict


def test_baselines_that_know_nothing_must_be_beaten_where_that_is_asked():
    found = question(skill=(0.0, 0.2, 0.1))
    unbeaten = TrialComparison(**{**vars(found), "naive_baselines": ("constant variance", "log-HAR")})
    (answer,) = leaderboard([unbeaten], "abc", reps=500).answers
    assert (answer.found, answer.p_value) == (False, 1)
    assert answer.score_p_value == leaderboard([found], "abc", reps=500).answers[0].p_value <= 0.01
    assert "nothing found, as forecasts that go along with what happened" in answer.in_words
    beaten = TrialComparison(**{**vars(found), "naive_baselines": ("constant variance",)})
    assert leaderboard([beaten], "abc", reps=500).found == ("volatility",)
    with pytest.raises(BitcornError, match=r"naive baseline GARCH.*constant variance, log-HAR"):
        TrialComparison(**{**vars(found), "naive_baselines": ("GARCH",)})


def test_a_real_signal_in_direction_is_found():
    rng = np.random.default_rng(0)
    outcome, folds = rng.standard_normal(2_400), np.repeat([0, 1, 2], 800)
    forecast = 0.2 * outcome[:, None] + rng.standard_normal((2_400, 8))  # right in 56 % of windows
    always = {
        f"always {name}": sign_losses(np.full((2_400, 1), sign), outcome)[:, 0]
        for name, sign in (("up", 1), ("down", -1))
    }
    asked = TrialComparison(
        name="direction",
        loss="share of wrong signs",
        losses=sign_losses(forecast, outcome),
        score="right signs beyond chance",
        scores=sign_scores(forecast, outcome, folds),
        baselines=always,
        folds=folds,
        horizon=1,
        naive_baselines=tuple(always),
    )
    assert leaderboard([asked], NAMES, reps=500).found == ("direction",)


def test_p_values_count_all_trials_and_questions():
    asked = question(skill=(0.0, 0.08, 0.0), seed=2)
    signal = superior_ability(np.zeros(900), -asked.scores, 1, tried=30, reps=8_000)
    board = leaderboard([asked, question(seed=1)], "abc", tried=30, reps=8_000)
    assert board.answers[0].p_value == pytest.approx(min(1, 2 * signal.p_value))
    assert 0 < signal.p_value < 0.5  # else the above would say little
    assert (board.tried, board.compared) == (30, 3)
    assert board.verdict.startswith("30 trials on")


def test_a_strong_signal_is_found_however_many_trials_failed():
    board = leaderboard([question(rows=300, skill=(0.0, 1.0, 0.1))], "abc", tried=60, reps=100)
    assert board.answers[0].p_value <= 0.01 / 4
    assert board.found == ("volatility",)


def test_a_stopped_trial_counts_and_shows_where_it_stopped():
    answer = leaderboard([question(skill=(0.3, 0.3, 0.0), missing=450)], "abc", reps=200).answers[0]
    stopped = next(standing for standing in answer.standings if standing.trial == "c")
    assert [mean is None for mean in stopped.folds] == [False, False, True]
    assert stopped.rank == 3
    assert stopped.against["log-HAR"].count == 900


def test_too_few_windows_to_tell():
    board = leaderboard([question(rows=30)], "abc")
    (answer,) = board.answers
    assert (answer.found, answer.p_value, answer.superiority, answer.overfitting) == (None, None, {}, None)
    assert "Nothing could be found.\nVolatility: cannot be told, as the test windows are too few" in board.verdict


def test_what_does_not_fit_is_refused():
    with pytest.raises(BitcornError, match="0 questions"):
        leaderboard([], "abc")
    with pytest.raises(BitcornError, match=r"at a level of 1"):
        leaderboard([question()], "abc", level=1)
    with pytest.raises(BitcornError, match="2 trials"):
        leaderboard([question()], "ab")
    with pytest.raises(BitcornError, match=r"losses \(900, 3\) and scores \(900, 2\)"):
        TrialComparison(**{**vars(question()), "scores": question().scores[:, :2]})
    with pytest.raises(BitcornError, match=r"have \[9, 900\] rows"):
        TrialComparison(**{**vars(question()), "folds": np.zeros(9, int)})


def study(market, sweeps, reps):
    """What is found in sweeps of 8 trials x 3 folds on 5,000 bars of a market."""
    return [leaderboard(questions_of(market(5_000, seed), seed), NAMES, reps=reps).found for seed in range(sweeps)]


def test_noise_has_nothing_and_clustering_volatility_is_found():
    assert study(random_walk, 3, reps=500) == [()] * 3
    assert study(garch_market, 3, reps=500) == [("volatility",)] * 3


@pytest.mark.slow
def test_the_full_study():
    noise, garch = study(random_walk, 40, reps=1_000), study(garch_market, 40, reps=1_000)
    assert sum(found == () for found in noise) >= 38
    assert sum("volatility" in found for found in garch) >= 36
    assert not any("direction" in found for found in garch)
