from rich.console import Console

from bitcorn_ray.report.evolution import (
    evolution_figure,
    evolution_page,
    front_table,
    generation_line,
    generations_table,
    importance_table,
)

GENERATIONS = [
    {"generation": n, "trained": 4, "best": best, "front": ["t1"], "survival": {"rsi_14": 0.25 * n, "adx": 0.5}}
    for n, best in ((1, -7.5), (2, -8.0), (3, None))
]


def member(name, count, loss, held_out):
    features = ["rsi_14", "adx"][:count]
    return {
        "name": name,
        "count": count,
        "features": features,
        "loss": loss,
        "held_out_loss": held_out,
        "search": {"seq_len": 16},
    }


RESULT = {
    "ended": "time",
    "tried": 12,
    "winner": "t2",
    "front": [member("t1", 1, -7.5, None), member("t2", 2, -8.0, -7.25)],
    "compared": [member("v2", 2, None, -6.5)],
    "importance": [
        {"feature": "adx", "increase": 0.5, "standard_error": 0.25},
        {"feature": "rsi_14", "increase": -0.01, "standard_error": None},
    ],
    "generations": GENERATIONS,
}


def shown(*parts):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in parts:
        console.print(part)
    return console.export_text()


def test_generations_are_told():
    text = shown(generations_table(GENERATIONS))
    assert "-8.00000" in text
    assert "rsi_14 75%, adx 50%" in text
    line = generation_line(GENERATIONS[0], 3)
    assert line.startswith("generation 1 of 3: 4 trained, best validation loss -7.50000, 1 on the front; adx 50%")


def test_the_front_and_what_features_are_worth_are_told():
    text = shown(front_table(RESULT), importance_table(RESULT))
    assert "t2 (winner)" in text
    assert "seq_len=16 rsi_14 adx" in text
    assert "whole, searched fields as the winner's" in text
    assert "+0.50000" in text
    assert "-0.01000" in text


def test_the_page_has_the_front_survival_and_importance(tmp_path):
    figure = evolution_figure(RESULT)
    by_name = {trace.name: trace for trace in figure.data if trace.name}
    assert list(by_name["front, validation loss on search folds"].y) == [-7.5, -8.0]
    assert list(by_name["front, loss on held-out test windows"].y) == [None, -7.25]
    assert list(by_name["winner"].x) == [2]
    assert list(by_name["systems whole, on held-out test windows"].text) == ["v2"]
    survival = next(trace for trace in figure.data if trace.type == "heatmap")
    assert dict(zip(survival.y, [list(row) for row in survival.z], strict=True)) == {
        "rsi_14": [0.25, 0.5, 0.75],
        "adx": [0.5, 0.5, 0.5],
    }
    assert "(out of time)" in figure.layout.title.text
    assert "Plotly.newPlot" in evolution_page(RESULT)


def test_without_a_winner_there_is_still_a_page():
    evolution_figure({**RESULT, "winner": None, "front": [], "compared": [], "importance": []})
