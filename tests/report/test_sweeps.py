import io

from rich.console import Console

from bitcorn_ray.report.sweeps import leaderboard_tables, live_trials, shown_point, standings, trials_table


def trial(name, state, losses=(), error=None):
    point = {"model.hidden_size": 16, "training.learning_rate": 0.00123456}
    return {"name": name, "state": state, "losses": list(losses), "point": point, "error": error}


def shown(*items):
    console = Console(file=io.StringIO(), width=200)
    for item in items:
        console.print(item)
    return console.file.getvalue()


def test_running_trials_come_first_and_then_the_best():
    trials = [
        trial("t1", "finished", (3.0, 5.0)),
        trial("t2", "finished", (1.0, 2.0)),
        trial("t3", "failed", (), "a loss [red]"),
        trial("t4", "running", (9.0,)),
        trial("t5", "stopped", (7.0,)),
    ]
    lines = [line.strip() for line in shown(trials_table(trials)).splitlines()]
    lines = [line for line in lines if line.startswith("t") and not line.startswith("trial")]
    assert [line.split()[0] for line in lines] == ["t4", "t2", "t1", "t5", "t3"]
    assert "1.50000" in lines[1]
    assert "hidden_size=16 learning_rate=0.001235" in lines[1]
    assert "a loss [red]" in lines[-1]
    assert "3 more" in shown(trials_table(trials, most=2))


def test_trials_are_shown_while_they_run():
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    with live_trials(8, console=console) as told:
        told(trial("t1", "running"))
        told(trial("t1", "finished", (0.5,)))
    assert "1 of 8 trials" in console.file.getvalue()
    assert "0.50000" in console.file.getvalue()


def test_where_nobody_looks_a_trial_that_ends_is_a_line():
    console = Console(file=io.StringIO(), force_terminal=False)
    with live_trials(8, console=console) as told:
        told(trial("t1", "running"))
        told(trial("t1", "finished", (0.5,)))
    assert console.file.getvalue().splitlines() == [
        "t1 finished, validation loss 0.50000 over 1 fold: hidden_size=16 learning_rate=0.001235"
    ]
    quiet = Console(file=io.StringIO(), force_terminal=True)
    with live_trials(8, True, quiet) as told:
        told(trial("t1", "finished", (0.5,)))
    assert quiet.file.getvalue() == ""


STANDING = {
    "trial": "t1",
    "rank": 1,
    "folds": [-7.5, None],
    "mean": -7.5,
    "standard_error": 0.25,
    "score": 0.31,
    "against": {"EWMA": {"mean": 0.01, "p_value": 0.01}},
}
ANSWER = {
    "name": "volatility",
    "loss": "QLIKE",
    "score": "rank correlation",
    "baselines": {"EWMA": -7.4},
    "standings": [STANDING],
    "ranks": {"concordance": 0.5, "correlation": 0.25, "p_value": 0.04},
}


def test_baselines_stand_among_the_trials_by_their_loss():
    against = {name: {"mean": 0.01, "p_value": 0.5} for name in ("EWMA", "HAR")}
    trials = [{**STANDING, "trial": f"t{n}", "rank": n, "mean": -7.5 + n, "against": against} for n in (1, 2, 3)]
    answer = {**ANSWER, "baselines": {"EWMA": -6.0, "HAR": -8.0}, "standings": trials}
    assert [row[1] for row in standings(answer, 2)[1]] == ["HAR", "t1", "EWMA", "t2"]


def test_a_long_list_is_told_by_its_length():
    point = {"features": ["a"] * 5, "training.horizon_weights": [0.5, 0.5], "model.cell": "a_gru"}
    assert shown_point(point) == "5 features horizon_weights=[0.5, 0.5] cell=a_gru"


def test_the_leaderboard_begins_with_its_verdict():
    result = {
        "verdict": "Nothing found.",
        "answers": [ANSWER],
        "folds": 2,
        "trials": {"t1": {"state": "stopped", "search": {"seq_len": 8}}, "t2": {"state": "failed", "search": {}}},
        "remarks": ["GARCH was left out"],
    }
    text = shown(*leaderboard_tables(result))
    assert text.startswith("Nothing found.")
    assert "trials of fewer than 2 folds" in text
    assert "t2" not in text  # it was not compared
    for part in (
        "stopped",
        "-7.50000",
        "0.25000",
        "0.310",
        "+0.0100 *",
        "seq_len=8",
        "-7.40000",
        "Kendall's W 0.50",
        "GARCH was",
    ):
        assert part in text
