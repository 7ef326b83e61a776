"""An evolution of a feature set: its generations on a terminal, its front and features on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from bitcorn_ray.report.html import INK, SERIES, SOFT, Chart, Section, note, page_of
from bitcorn_ray.report.sweeps import point_text
from bitcorn_ray.report.table import Table, number

if TYPE_CHECKING:
    from bitcorn_ray.tuning.evolution.config import EvolveConfig
    from bitcorn_ray.tuning.evolution.results import Evolution

_FRONT, _WINNER, _HELD_OUT = SERIES[:3]
_SHOWN = 5  # features
_ROW = 15  # pixels of a feature


def evolve(config: str | Path | Mapping[str, Any] | EvolveConfig, **options: Any) -> Evolution:
    """Search subsets of features and write the results with their page.

    options: those of `tuning.evolution.evolve.evolve`.
    """
    from bitcorn_ray.tuning.evolution.evolve import evolve as search

    return search(config, draw_page=evolution_page, **options)


def generations_table(generations: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row per generation: trainings, best loss, size of the front, most frequent features.

    generations: from `Evolution.to_json`, like every `result` in this module.
    """
    rows = [
        (one["generation"], one["trained"], number(one["best"], 5), len(one["front"]), _most_frequent(one["survival"]))
        for one in generations
    ]
    return Table((">generation", ">trained", ">best loss", ">front", "features that survive"), rows)


def generation_line(generation: Mapping[str, Any], total: int) -> str:
    """Return a generation as a line."""
    return (
        f"generation {generation['generation']} of {total}: {generation['trained']} trained, best validation loss "
        f"{number(generation['best'], 5)}, {len(generation['front'])} on the front; "
        f"{_most_frequent(generation['survival'])}"
    )


def front_table(result: Mapping[str, Any]) -> Table:
    """Return a row per member of the front, fewest features first, and a row per complete system."""
    rows = [
        (
            one["name"] + " (winner)" * (one["name"] == result["winner"]),
            one["count"],
            number(one["loss"], 5),
            number(one["held_out_loss"], 5),
            " ".join(filter(None, [point_text(one["search"]), *one["features"]])),
        )
        for one in result["front"]
    ]
    rows += [
        (one["name"], one["count"], "", number(one["held_out_loss"], 5), "complete, with the winner's searched fields")
        for one in result["compared"]
    ]
    return Table(("individual", ">features", ">validation loss", ">held-out loss", ""), rows)


def importance_table(result: Mapping[str, Any]) -> Table:
    """Return a row per feature of the winner: the increase of its held-out loss when the feature is shuffled."""
    rows = [
        (one["feature"], f"{one['increase']:+.5f}", number(one["standard_error"], 5)) for one in result["importance"]
    ]
    return Table(("feature of the winner", ">loss increase", ">+-"), rows)


def evolution_page(result: Mapping[str, Any]) -> str:
    """Return the page of an evolution."""
    return page_of("Evolution of a feature set", evolution_sections(result))


def evolution_sections(result: Mapping[str, Any]) -> list[Section]:
    """Return the Pareto front, how often each feature survives, and the importance of the winner's features."""
    ended = {"time": " (out of time)", "interrupted": " (interrupted)"}.get(result["ended"], "")
    summary = (
        f"{len(result['generations'])} generations{ended}, {result['tried']} different individuals; the winner is "
        "chosen on the search folds, and the held-out folds choose nothing"
    )
    importance = [_importance_chart(result)] if result["importance"] else ["No winner was evaluated."]
    title = "Permutation importance of the winner's features on held-out test windows"
    return [
        Section(title="Pareto front: loss and number of features", parts=[note(summary), _front_chart(result)]),
        Section(title="Share of the survivors that have a feature", parts=[_survival_chart(result)]),
        Section(title=title, parts=importance),
    ]


def _front_chart(result: Mapping[str, Any]) -> Chart:
    front, compared = result["front"], result["compared"]
    winner = [one for one in front if one["name"] == result["winner"]]
    members = {
        "x": [one["count"] for one in front],
        "customdata": [f"{one['name']}: {', '.join(one['features'])}" for one in front],
        "hovertemplate": "%{x} features, loss %{y:.5f}<br>%{customdata}<extra></extra>",
        "marker_size": 9,
    }
    traces = [
        go.Scatter(
            name="front, validation loss on search folds",
            y=[one["loss"] for one in front],
            mode="lines+markers",
            marker_color=_FRONT,
            line_color=_FRONT,
            **members,
        ),
        go.Scatter(
            name="front, loss on held-out test windows",
            y=[one["held_out_loss"] for one in front],
            mode="markers",
            marker_color=_HELD_OUT,
            **members,
        ),
        go.Scatter(
            name="winner",
            x=[one["count"] for one in winner],
            y=[one["loss"] for one in winner],
            mode="markers",
            marker={"color": _WINNER, "size": 17, "symbol": "circle-open", "line_width": 3},
            hoverinfo="skip",
        ),
        go.Scatter(
            name="complete systems, on held-out test windows",
            x=[one["count"] for one in compared],
            y=[one["held_out_loss"] for one in compared],
            text=[one["name"] for one in compared],
            textposition="top center",
            mode="markers+text",
            # An open symbol leaves others visible.
            marker={"color": SOFT, "size": 16, "symbol": "diamond-open", "line_width": 2},
        ),
    ]
    layout = go.Layout(xaxis_title_text="number of features", yaxis_title_text="loss")
    label = "loss of the members of the front by their number of features"
    return Chart(label=label, data=traces, layout=layout, height=480)


def _survival_chart(result: Mapping[str, Any]) -> Chart:
    generations = result["generations"]
    last = generations[-1]["survival"]
    features = sorted(last, key=lambda name: last[name])
    shares = go.Heatmap(
        x=[one["generation"] for one in generations],
        y=features,
        z=[[one["survival"][name] for one in generations] for name in features],
        zmin=0,
        zmax=1,
        colorscale=[[0, "var(--seq0)"], [1, "var(--seq1)"]],
        colorbar={"title_text": "share", "thickness": 12},
        hovertemplate="%{y}, generation %{x}: %{z:.0%}<extra></extra>",
    )
    # Label every feature.
    features_axis = {"tickmode": "linear", "tickfont_size": 10}
    ticks = 1 if len(generations) <= 30 else None
    layout = go.Layout(xaxis={"title_text": "generation", "dtick": ticks}, yaxis=features_axis)
    label = "share of the survivors that have each feature, by generation"
    return Chart(label=label, data=[shares], layout=layout, height=120 + _ROW * len(features))


def _importance_chart(result: Mapping[str, Any]) -> Chart:
    importance = list(reversed(result["importance"]))
    errors = [one["standard_error"] or 0.0 for one in importance]
    bars = go.Bar(
        orientation="h",
        y=[one["feature"] for one in importance],
        x=[one["increase"] for one in importance],
        error_x={"type": "data", "array": errors, "color": INK},
        marker_color=_WINNER,
    )
    layout = go.Layout(xaxis_title_text="loss increase", yaxis_tickmode="linear")
    label = "increase of the loss when a feature is shuffled"
    return Chart(label=label, data=[bars], layout=layout, height=120 + 22 * len(importance))


def _most_frequent(survival: Mapping[str, float]) -> str:
    first = sorted(survival.items(), key=lambda item: -item[1])[:_SHOWN]
    return ", ".join(f"{name} {share:.0%}" for name, share in first)
