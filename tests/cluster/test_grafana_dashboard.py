"""The dashboard asks for what is exported, in PromQL that is understood, on panels that a person can read."""

import re
from itertools import combinations

import promql_parser
import pytest
from grafana_dashboard import dashboard, expressions, metrics_named, panels

from bitcorn_ray.on_ray.monitoring import METRICS


@pytest.mark.parametrize("text", list(expressions()))
def test_expressions_are_promql(text):
    assert "$" not in text
    promql_parser.parse(text)  # checks types, too


def test_of_ours_it_asks_for_all_metrics_and_for_no_others():
    asked = {name for name in metrics_named() if name.startswith("ray_bitcorn_")}
    assert asked == {metric.exported for metric in METRICS}


def test_series_of_ours_are_chosen_and_told_apart_by_tags_that_they_have():
    tags = {metric.exported: {*metric.tags, "SessionName"} for metric in METRICS}
    for text in expressions():
        labels = set(re.findall(r"(\w+)=", text)) | set(re.findall(r"\w+", " ".join(re.findall(r"by \((.*?)\)", text))))
        for name in tags.keys() & set(re.findall(r"\w+(?=\{)", text)):
            assert labels <= tags[name], text


def test_panels_say_what_they_show_and_in_which_unit():
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        assert all(target["legendFormat"] for target in panel["targets"])
    titles = [panel["title"] for panel in panels()]
    assert len({*titles}) == len(titles)


def test_panels_have_their_own_numbers_and_places():
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    for panel in every:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in every], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_it_is_imported_without_questions():
    made = dashboard()
    assert made["uid"] == "bitcorn-ray"
    assert "id" not in made  # Grafana gives one
    variables = {each["name"]: each for each in made["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    used = {word for panel in panels() for target in panel["targets"] for word in target["expr"].split('"')}
    assert "$session" in used
    assert set(variables) == {"datasource", "session"}
