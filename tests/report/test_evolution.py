from rendered import printed
from small_evolutions import RESULT

from bitcorn_ray.report.evolution import (
    evolution_page,
    evolution_sections,
    front_table,
    generation_line,
    generations_table,
    importance_table,
)


def test_generations_are_rows_and_lines():
    text = printed(generations_table(RESULT["generations"]))
    assert "-8.00000" in text
    assert "rsi_14 75%, adx 50%" in text
    line = generation_line(RESULT["generations"][0], 3)
    assert line.startswith("generation 1 of 3: 4 trained, best validation loss -7.50000, 1 on the front; adx 50%")


def test_the_front_and_the_importance_are_tables():
    text = printed(front_table(RESULT), importance_table(RESULT))
    assert "t2 (winner)" in text
    assert "seq_len=16 rsi_14 adx" in text
    assert "complete, with the winner's searched fields" in text
    assert "+0.50000" in text
    assert "-0.01000" in text


def test_the_page_has_the_front_survival_and_importance():
    front, features, importance = evolution_sections(RESULT)
    by_name = {trace["name"]: trace for trace in front.parts[1].data}
    assert by_name["front, validation loss on search folds"]["y"] == (-7.5, -8.0)
    assert by_name["front, loss on held-out test windows"]["y"] == (None, -7.25)
    assert by_name["winner"]["x"] == (2,)
    assert by_name["complete systems, on held-out test windows"]["text"] == ("v2",)
    (survival,) = features.parts[0].data
    assert dict(zip(survival["y"], survival["z"], strict=True)) == {"rsi_14": [0.25, 0.5, 0.75], "adx": [0.5, 0.5, 0.5]}
    (bars,) = importance.parts[0].data
    assert dict(zip(bars["y"], bars["x"], strict=True)) == {"adx": 0.5, "rsi_14": -0.01}
    assert "(out of time)" in front.parts[0]
    assert evolution_page(RESULT).count("class=figure") == 3


def test_without_a_winner_there_is_still_a_page():
    *_, last = evolution_sections({**RESULT, "winner": None, "front": [], "compared": [], "importance": []})
    assert last.parts == ["No winner was evaluated."]
