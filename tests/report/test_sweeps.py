import io
import json
import shutil
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from rendered import charts, printed, titles
from rich.console import Console
from small_evaluations import comparison
from small_evolutions import RESULT as EVOLUTION
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray.metrics.comparison import Leaderboard, Standing, TrialComparisonResult
from bitcorn_ray.metrics.selection import Overfitting, RankStability
from bitcorn_ray.report.sweep_page import SweepReport, sweep_page, sweep_report
from bitcorn_ray.report.sweeps import leaderboard_tables, live_trials, point_text, standings, trials_table
from bitcorn_ray.tuning.leaderboard import SweepLeaderboard
from bitcorn_ray.tuning.results import fold_records
from bitcorn_ray.tuning.search import Trial

POINT = {"model.hidden_size": 16, "training.learning_rate": 0.00123456}


def trial(name, state, losses=(), error=None, point=POINT):
    return Trial(name=name, point=point, state=state, losses=losses, error=error, seconds=1.5)


def standing(name, rank, mean, folds, gains):
    against = {baseline: comparison(baseline, gain).test for baseline, gain in gains.items()}
    return Standing(trial=name, rank=rank, folds=folds, mean=mean, score=0.31, standard_error=0.25, against=against)


ANSWER = TrialComparisonResult(
    name="volatility",
    loss="QLIKE",
    score="rank correlation",
    found=False,
    p_value=0.5,
    score_p_value=0.5,
    best_score=0.31,
    superiority={},
    better_than=(),
    beaten_by_none=("EWMA",),
    baselines={"EWMA": -7.4},
    overfitting=Overfitting(probability=0.25, blocks=8, combinations=70, median_rank=0.5),
    ranks=RankStability(concordance=0.5, correlation=0.25, p_value=0.04),
    standings=(standing("t1", 1, -7.5, (-7.5, None), {"EWMA": 0.01}),),
    in_words="",
)
TRIALS = [
    trial("t1", "finished", (-8.0, -9.0), point={"training.learning_rate": 0.001, "model.cell": "lstm"}),
    trial("t2", "stopped", (-7.0,), point={"training.learning_rate": 0.01, "model.cell": "gru"}),
    trial("t3", "failed", error="<no>", point={"training.learning_rate": 0.1, "model.cell": "lstm"}),
]
JUDGEMENT = SweepLeaderboard(
    sweep="sweeps/first",
    board=Leaderboard(
        tried=3,
        compared=2,
        folds=2,
        windows=10,
        level=0.01,
        found=(),
        answers=(ANSWER,),
        verdict="Nothing found.\nNone of these beats <log-HAR>.",
    ),
    trials={one.name: one for one in TRIALS},
    remarks=("ridge was left out",),
)


def test_running_trials_come_first_and_then_the_best():
    trials = [
        trial("t1", "finished", (3.0, 5.0)),
        trial("t2", "finished", (1.0, 2.0)),
        trial("t3", "failed", (), "a loss [red]"),
        trial("t4", "running", (9.0,)),
        trial("t5", "stopped", (7.0,)),
    ]
    lines = [line.strip() for line in printed(trials_table(trials)).splitlines()]
    lines = [line for line in lines if line.startswith("t") and not line.startswith("trial")]
    assert [line.split()[0] for line in lines] == ["t4", "t2", "t1", "t5", "t3"]
    assert "1.50000" in lines[1]
    assert "hidden_size=16 learning_rate=0.001235" in lines[1]
    assert "a loss [red]" in lines[-1]
    assert "3 more" in printed(trials_table(trials, most=2))


def test_trials_are_shown_while_they_run():
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    with live_trials(8, console=console) as update:
        update(trial("t1", "running"))
        update(trial("t1", "finished", (0.5,)))
    assert "1 of 8 trials" in console.file.getvalue()
    assert "0.50000" in console.file.getvalue()


def test_without_a_terminal_a_finished_trial_is_a_line():
    console = Console(file=io.StringIO(), force_terminal=False)
    with live_trials(8, console=console) as update:
        update(trial("t1", "running"))
        update(trial("t1", "finished", (0.5,)))
    assert console.file.getvalue().splitlines() == [
        "t1 finished, validation loss 0.50000 over 1 fold: hidden_size=16 learning_rate=0.001235"
    ]
    quiet = Console(file=io.StringIO(), force_terminal=True)
    with live_trials(8, True, quiet) as update:
        update(trial("t1", "finished", (0.5,)))
    assert quiet.file.getvalue() == ""


def test_baselines_are_ranked_among_the_trials_by_their_loss():
    gains = {"EWMA": 0.01, "HAR": 0.01}
    ranked = tuple(standing(f"t{n}", n, -7.5 + n, (-7.5,), gains) for n in (1, 2, 3))
    answer = replace(ANSWER, baselines={"EWMA": -6.0, "HAR": -8.0}, standings=ranked)
    assert [row[1] for row in standings(answer, 2).rows] == ["HAR", "t1", "EWMA", "t2"]


def test_a_long_list_is_shown_as_its_length():
    point = {"features": ["a"] * 5, "training.horizon_weights": [0.5, 0.5], "model.cell": "a_gru"}
    assert point_text(point) == "5 features horizon_weights=[0.5, 0.5] cell=a_gru"


def test_the_leaderboard_begins_with_its_verdict():
    text = printed(*leaderboard_tables(JUDGEMENT))
    assert text.startswith("Nothing found.")
    assert "trials with fewer than 2 folds" in text
    assert "t2" not in text  # it was not compared
    for part in (
        "finished",
        "-7.50000",
        "0.25000",
        "0.310",
        "+0.0100 *",
        "learning_rate=0.001",
        "-7.40000",
        "Kendall's W 0.50",
        "ridge was left out",
    ):
        assert part in text


DAY = 86_400_000


def part(first, last):
    closes = {"first": f"2026-01-{first:02d}T00:00:00Z", "last": f"2026-01-{last:02d}T00:00:00Z"}
    return {"span": [first * DAY, last * DAY], "bars": [10], **closes}


FOLDS = [
    {
        "fold": n,
        "purge_ms": DAY,
        "train": part(1 + n, 5 + n),
        "validation": part(6 + n, 8 + n),
        "test": part(9 + n, 11 + n),
    }
    for n in range(2)
]
PLAN = {
    "horizon": 4,
    "window": "rolling",
    "folds": FOLDS,
    "partitions": [{"name": "A 1h", "bars": 20, "first": "2026-01-01T00:00:00Z", "last": "2026-01-20T00:00:00Z"}],
}


def report(**changes):
    fields = {"name": "sweeps/first", "ended": "done", "trials": TRIALS, "plan": PLAN, "config": {"db": "market.db"}}
    return SweepReport(**{**fields, **changes})


def test_the_page_begins_with_the_verdict():
    page = sweep_page(
        report(
            logarithmic=["training.learning_rate"],
            judgement=JUDGEMENT,
            comparable={"t1": -8.5, "t2": -7.25},
            importance={"model.cell": 0.25, "training.learning_rate": 0.5},
        )
    )
    assert titles(page) == [
        "Verdict",
        "Leaderboard: volatility",
        "Loss of each fold",
        "2 rolling folds",
        "Searched fields",
        "Pruning",
        "All trials",
        "Configuration",
    ]
    assert "<li>Nothing found.</li><li>None of these beats &lt;log-HAR&gt;.</li>" in page
    assert "Kendall's W 0.50" in unescape(page)
    assert "25% of 70 splits" in page
    assert "<td class=n>+0.0100 *</td>" in page
    assert "ridge was left out" in page
    assert "&lt;no&gt;" in page
    assert "3 of 6 trainings were done (50%)" in page
    losses, _, parallel, importance, pruning = charts(page)
    assert losses["data"][0]["y"] == [-8.0, -9.0, -7.0]
    assert losses["data"][1]["y"] == [-8.0, -9.0]
    rate, cell, loss = parallel["data"][0]["dimensions"]
    assert rate["values"] == [-3, -2]
    assert rate["ticktext"][0] == "0.001"
    assert (cell["values"], cell["ticktext"]) == ([0, 1], ["lstm", "gru"])
    assert loss["values"] == [-8.5, -7.25]
    assert importance["data"][0]["x"] == [25.0, 50.0]
    assert pruning["data"][0]["y"] == [2, 1]


def test_a_sweep_without_a_leaderboard_says_why():
    page = sweep_page(report(trials=TRIALS[2:], why_not="no trial has a fold"))
    assert "Not evaluated on test windows: no trial has a fold" in page
    assert not {"Searched fields", "Loss of each fold", "Pruning"} & {*titles(page)}  # there is nothing to draw
    assert "first error</dt><dd>&lt;no&gt;</dd>" in page


@pytest.mark.parametrize("values", [[True, False], [[1, 2], [3]], [None, "x"], ["a" * 20, "a" * 21]])
def test_fields_of_any_kind_have_an_axis(values):
    trials = [replace(TRIALS[0], name=f"t{n}", point={"x": value}) for n, value in enumerate(values)]
    comparable = {"t0": 1.0, "t1": 2.0}
    page = sweep_page(report(trials=trials, comparable=comparable))
    axis = next(each for each in charts(page) if each["data"][0].get("type") == "parcoords")["data"][0]["dimensions"][0]
    assert axis["values"] == [0, 1]
    assert len(set(axis["ticktext"])) == 2


@pytest.fixture
def swept(market_db, tmp_path):
    return make_sweep(sweep_values(market_db, tmp_path / "sweep"))


def test_a_sweep_is_read_from_its_folder_alone(swept, market_db):
    folder, plan, _ = swept
    market_db.unlink()
    found = sweep_report(folder.storage.address)
    assert found.judgement.board.tried == 2
    assert found.ended.startswith("not yet")
    assert [one.name for one in found.trials] == ["t0001", "t0002"]
    best = found.best.name
    windows = sum(len(of_fold[0].times) for of_fold in fold_records(plan, folder.journal.read()[best]))
    track = found.tracks[0]
    assert (track.name, track.horizon, len(track.times)) == ("AAAUSDT 1h", 1, windows)
    assert [row[:3] for row in found.coverage] == [("AAAUSDT 1h", h, windows) for h in (1, 4)]
    assert "Leaderboard: volatility" in sweep_page(found)


def test_an_evolution_has_its_own_result(swept):
    folder, _, _ = swept
    folder.storage.publish("evolution.json", json.dumps(EVOLUTION).encode())
    found = sweep_report(folder.storage.address)
    assert found.ended == EVOLUTION["ended"] == "time"
    assert found.evolution == EVOLUTION


def test_tracks_are_forecast_and_realised_volatility(swept):
    folder, plan, data = swept
    found = sweep_report(folder.storage.address)
    trial = folder.journal.read()[found.best.name]
    records = [of_fold[0] for of_fold in fold_records(plan, trial)]
    last = found.tracks[-1]
    assert last.horizon == 4
    assert np.allclose(last.forecast, np.concatenate([record.volatilities[:, 1] for record in records]))
    close = np.log(data.bars[0].close)
    rows = np.searchsorted(data.bars[0].timestamp, last.times)
    assert np.allclose(last.realised, np.sqrt(np.sum(np.diff(close)[rows[:, None] + np.arange(4)] ** 2, axis=1)))


def test_a_sweep_without_a_fold_has_a_page(swept):
    folder, _, _ = swept
    shutil.rmtree(folder.records.storage.address)
    found = sweep_report(folder.storage.address)
    assert found.judgement is None
    assert "has a fold" in found.why_not
    assert found.tracks == []
    assert "Not evaluated on test windows" in sweep_page(found)
