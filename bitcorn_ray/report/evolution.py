"""An evolution on a terminal, generation by generation, and its front and features in one page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bitcorn_ray.report.console import table
from bitcorn_ray.report.page import Chart, Section, note, page_of
from bitcorn_ray.report.sweeps import shown_point

if TYPE_CHECKING:
    from bitcorn_ray.tuning.evolution.config import EvolveConfig
    from bitcorn_ray.tuning.evolution.results import Evolution


_WHOLE, _FRONT, _WINNER, _HELD_OUT = "var(--soft)", "var(--s1)", "var(--s2)", "var(--s3)"
_SHOWN = 5
_ROW = 15  # pixels of a feature


def evolve(config: str | Path | Mapping[str, Any] | EvolveConfig, **options: Any) -> Evolution:
    """Search subsets of features and write the results with their page, see `tuning.evolution.evolve.evolve`.

    options: as that function takes them.
    """
    from bitcorn_ray.tuning.evolution.evolve import evolve as search

    return search(config, draw_page=evolution_page, **options)


def generations_table(generations: Sequence[Mapping[str, Any]]) -> Table:
    """A row a generation: trainings, best loss, size of the front, and the features that survive most often.

    generations: as `Evolution.to_json` gives them.
    """
    rows = [
        (
            f"{each['generation']}",
            f"{each['trained']}",
            _number(each["best"]),
            f"{len(each['front'])}",
            _most(each["survival"]),
        )
        for each in generations
    ]
    return table(("generation", "trained", "best loss", "front", "features that survive"), rows, left=(4,))


def generation_line(generation: Mapping[str, Any], total: int) -> str:
    """A generation in a line."""
    return (
        f"generation {generation['generation']} of {total}: {generation['trained']} trained, best validation loss "
        f"{_number(generation['best'])}, {len(generation['front'])} on the front; {_most(generation['survival'])}"
    )


def front_table(result: Mapping[str, Any]) -> Table:
    """A row a member of the front, fewest features first, and below them what it is compared with.

    result: as `Evolution.to_json` gives it.
    """
    rows = [
        (
            each["name"] + " (winner)" * (each["name"] == result["winner"]),
            f"{each['count']}",
            _number(each["loss"]),
            _number(each["held_out_loss"]),
            " ".join([*filter(None, [shown_point(each["search"])]), *each["features"]]),
        )
        for each in result["front"]
    ]
    rows += [
        (each["name"], f"{each['count']}", "", _number(each["held_out_loss"]), "whole, searched fields as the winner's")
        for each in result["compared"]
    ]
    return table(("individual", "features", "validation loss", "held-out loss", ""), rows, left=(0, 4))


def importance_table(result: Mapping[str, Any]) -> Table:
    """A row a feature of the winner: what its loss on held-out test windows gains when it is shuffled."""
    rows = [
        (each["feature"], f"{each['increase']:+.5f}", _number(each["standard_error"])) for each in result["importance"]
    ]
    return table(("feature of the winner", "loss increase", "+-"), rows, left=(0,))


def evolution_page(result: Mapping[str, Any]) -> str:
    """Return the page. result: as `Evolution.to_json` gives it."""
    return page_of("Evolution of a feature set", evolution_sections(result))


def evolution_sections(result: Mapping[str, Any]) -> list[Section]:
    """Parts of a page: the Pareto front, how often each feature survives, and what the winner's are worth.

    result: as `Evolution.to_json` gives it.
    """
    return [
        Section(title="Pareto front: loss and number of features", parts=[note(_told(result)), _front_chart(result)]),
        Section(title="Share of the survivors that have a feature", parts=[_survival_chart(result)]),
        Section(
            title="Permutation importance of the winner's features on held-out test windows",
            parts=[_importance_chart(result)] if result["importance"] else ["No winner was judged."],
        ),
    ]


def _front_chart(result: Mapping[str, Any]) -> Chart:
    front, compared = result["front"], result["compared"]
    told = [f"{each['name']}: {', '.join(each['features'])}" for each in front]
    counts = [each["count"] for each in front]
    winner = [each for each in front if each["name"] == result["winner"]]

    def losses(name: str, field: str, colour: str, mode: str) -> dict[str, Any]:
        values = [each[field] for each in front]
        marker = {"color": colour, "size": 9}
        drawn = {"x": counts, "y": values, "mode": mode, "name": name, "marker": marker, "line": {"color": colour}}
        return {**drawn, "customdata": told, "hovertemplate": _HOVER}

    return Chart(
        label="loss of the members of the front by their number of features",
        data=[
            losses("front, validation loss on search folds", "loss", _FRONT, "lines+markers"),
            losses("front, loss on held-out test windows", "held_out_loss", _HELD_OUT, "markers"),
            {
                "x": [each["count"] for each in winner],
                "y": [each["loss"] for each in winner],
                "mode": "markers",
                "name": "winner",
                "marker": {"color": _WINNER, "size": 17, "symbol": "circle-open", "line": {"width": 3}},
                "hoverinfo": "skip",
            },
            {
                "x": [each["count"] for each in compared],
                "y": [each["held_out_loss"] for each in compared],
                "mode": "markers+text",
                "text": [each["name"] for each in compared],
                "textposition": "top center",
                "name": "systems whole, on held-out test windows",
                # Open, as others show through.
                "marker": {"color": _WHOLE, "size": 16, "symbol": "diamond-open", "line": {"width": 2}},
            },
        ],
        layout={"xaxis": {"title": {"text": "number of features"}}, "yaxis": {"title": {"text": "loss"}}},
        height=480,
    )


def _survival_chart(result: Mapping[str, Any]) -> Chart:
    generations = result["generations"]
    last = generations[-1]["survival"]
    ordered = sorted(last, key=lambda name: last[name])
    shares = {
        "type": "heatmap",
        "x": [each["generation"] for each in generations],
        "y": ordered,
        "z": [[each["survival"][name] for each in generations] for name in ordered],
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "var(--seq0)"], [1, "var(--seq1)"]],
        "colorbar": {"title": {"text": "share"}, "thickness": 12},
        "hovertemplate": "%{y}, generation %{x}: %{z:.0%}<extra></extra>",
    }
    steps = 1 if len(generations) <= 30 else None
    return Chart(
        label="share of the survivors that have each feature, by generation",
        data=[shares],
        layout={
            "xaxis": {"title": {"text": "generation"}, "dtick": steps},
            "yaxis": {"tickmode": "linear", "tickfont": {"size": 10}},  # every feature has its name
        },
        height=120 + _ROW * len(ordered),
    )


def _importance_chart(result: Mapping[str, Any]) -> Chart:
    importance = list(reversed(result["importance"]))
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [each["feature"] for each in importance],
        "x": [each["increase"] for each in importance],
        "error_x": {
            "type": "data",
            "array": [each["standard_error"] or 0.0 for each in importance],
            "color": "var(--ink)",  # a bar's own is grey, light or dark
        },
        "marker": {"color": _WINNER},
    }
    return Chart(
        label="what the loss gains where a feature is shuffled",
        data=[bars],
        layout={"xaxis": {"title": {"text": "loss increase"}}, "yaxis": {"tickmode": "linear"}},
        height=120 + 22 * len(importance),
    )


_HOVER = "%{x} features, loss %{y:.5f}<br>%{customdata}<extra></extra>"


def _told(result: Mapping[str, Any]) -> str:
    ended = {"done": "", "time": " (out of time)", "interrupted": " (interrupted)"}.get(result["ended"], "")
    return (
        f"{len(result['generations'])} generations{ended}, {result['tried']} different individuals; the winner is "
        "chosen on the search folds, and held-out folds choose nothing"
    )


def _most(survival: Mapping[str, float]) -> str:
    first = sorted(survival.items(), key=lambda each: -each[1])[:_SHOWN]
    return ", ".join(f"{name} {share:.0%}" for name, share in first)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"
