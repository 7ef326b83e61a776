import json
import re
from html import unescape

import pytest

from bitcorn_ray.report.sweep_page import SweepReport, sweep_page

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


def trial(name, state, losses, rate, cell="lstm"):
    loss = sum(losses) / len(losses) if losses else None
    point = {"training.learning_rate": rate, "model.cell": cell}
    return {"name": name, "state": state, "losses": losses, "loss": loss, "point": point, "seconds": 1.5, "error": None}


TRIALS = [
    trial("t1", "finished", [-8.0, -9.0], 0.001),
    trial("t2", "stopped", [-7.0], 0.01, "gru"),
    {**trial("t3", "failed", [], 0.1), "error": "<no>"},
]
RESULT = {
    "tried": 3,
    "finished": 1,
    "stopped": 1,
    "failed": 1,
    "ended": "done",
    "best": TRIALS[0],
    "folds": FOLDS,
    "trials": TRIALS,
    "config": {"db": "market.db"},
}
STANDING = {
    "rank": 1,
    "trial": "t1",
    "folds": [-8.0, -9.0],
    "mean": -8.5,
    "score": 0.25,
    "standard_error": 0.1,
    "against": {"EWMA": {"mean": 0.125, "p_value": 0.01}},
}
JUDGEMENT = {
    "verdict": "Nothing found.\nNone of these beats <log-HAR>.",
    "folds": 2,
    "remarks": ["ridge was left out"],
    "trials": {"t1": {"state": "finished", "search": {"training.learning_rate": 0.001}}},
    "answers": [
        {
            "name": "volatility",
            "loss": "QLIKE",
            "score": "rank correlation",
            "standings": [STANDING],
            "baselines": {"EWMA": -8.375},
            "ranks": {"concordance": 0.5, "correlation": 0.25, "p_value": 0.04},
            "overfitting": {"probability": 0.25, "combinations": 70},
        }
    ],
}


def charts(page):
    return list(json.loads(re.search(r"const PAGE = (\{.*?\});", page)[1])["charts"].values())


def titles(page):
    return re.findall("<h2>(.*?)</h2>", page)


def test_the_verdict_comes_first_and_all_else_follows():
    page = sweep_page(
        SweepReport(
            name="sweeps/first",
            result=RESULT,
            plan=PLAN,
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
        "What was searched",
        "Pruning",
        "All trials",
        "Configuration",
    ]
    assert "<li>Nothing found.</li><li>None of these beats &lt;log-HAR&gt;.</li>" in page
    assert "Kendall's W 0.50" in unescape(page)
    assert "25% of 70 splits" in page
    assert "<td class=n>+0.1250 *</td>" in page
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


def test_a_sweep_that_cannot_be_judged_says_why():
    result = {**RESULT, "best": None, "trials": TRIALS[2:]}
    page = sweep_page(SweepReport(name="s", result=result, plan=PLAN, why_not="no trial has a fold"))
    assert "Not judged on test windows: no trial has a fold" in page
    assert not {"What was searched", "Loss of each fold", "Pruning"} & {*titles(page)}  # there is nothing to draw
    assert "first error</dt><dd>&lt;no&gt;</dd>" in page


@pytest.mark.parametrize("values", [[True, False], [[1, 2], [3]], [None, "x"], ["a" * 20, "a" * 21]])
def test_fields_of_any_kind_have_an_axis(values):
    trials = [{**TRIALS[0], "name": f"t{n}", "point": {"x": value}} for n, value in enumerate(values)]
    comparable = {"t0": 1.0, "t1": 2.0}
    page = sweep_page(SweepReport(name="s", result={**RESULT, "trials": trials}, plan=PLAN, comparable=comparable))
    axis = next(each for each in charts(page) if each["data"][0].get("type") == "parcoords")["data"][0]["dimensions"][0]
    assert axis["values"] == [0, 1]
    assert len(set(axis["ticktext"])) == 2
