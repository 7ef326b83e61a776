"""An evolution on a terminal, generation by generation, and its front and features in one page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rich.table import Table

from bitcorn_ray.report.console import table
from bitcorn_ray.report.sweeps import shown_point

__all__ = [
    "evolution_figure",
    "evolution_page",
    "front_table",
    "generation_line",
    "generations_table",
    "importance_table",
]

_WHOLE, _FRONT, _WINNER, _HELD_OUT = "#636363", "#08519c", "#d95f02", "#31a354"
_SHOWN = 5
_PANEL, _ROW, _BETWEEN, _TOP, _BOTTOM = 480, 15, 120, 160, 120


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
    """Make the page, in HTML."""
    figure = evolution_figure(result)
    return str(figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False}))


def evolution_figure(result: Mapping[str, Any]) -> Any:
    """Make the figure: the Pareto front, how often each feature survives, and what the winner's are worth.

    result: as `Evolution.to_json` gives it.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    result = _escaped(result)
    features = list(result["generations"][-1]["survival"])
    panels = (_PANEL, 60 + _ROW * len(features), _PANEL // 2)  # in pixels, as all that follows
    inner = sum(panels) + 2 * _BETWEEN
    figure = make_subplots(
        rows=3,
        cols=1,
        vertical_spacing=_BETWEEN / inner,
        row_heights=list(panels),
        subplot_titles=(
            "Pareto front: loss and number of features",
            "Share of the survivors that have a feature",
            "Permutation importance of the winner's features on held-out test windows",
        ),
    )
    _add_front(figure, result)
    ordered = sorted(features, key=lambda name: result["generations"][-1]["survival"][name])
    figure.add_trace(
        go.Heatmap(
            x=[each["generation"] for each in result["generations"]],
            y=ordered,
            z=[[each["survival"][name] for each in result["generations"]] for name in ordered],
            zmin=0,
            zmax=1,
            colorscale="Blues",
            colorbar={"title": "share", "len": panels[1] / inner, "y": (panels[2] + _BETWEEN + panels[1] / 2) / inner},
            hovertemplate="%{y}, generation %{x}: %{z:.0%}<extra></extra>",
        ),
        row=2,
        col=1,
    )
    importance = result["importance"]
    figure.add_trace(
        go.Bar(
            x=[each["feature"] for each in importance],
            y=[each["increase"] for each in importance],
            error_y={"type": "data", "array": [each["standard_error"] or 0.0 for each in importance]},
            marker={"color": _WINNER},
            showlegend=False,
        ),
        row=3,
        col=1,
    )
    figure.update_xaxes(title="number of features", row=1, col=1)
    figure.update_yaxes(title="loss", row=1, col=1)
    figure.update_xaxes(title="generation", dtick=1 if len(result["generations"]) <= 30 else None, row=2, col=1)
    figure.update_yaxes(tickmode="linear", tickfont={"size": 10}, row=2, col=1)  # every feature has its name
    figure.update_yaxes(title="loss increase", row=3, col=1)
    figure.update_layout(
        template="plotly_white",
        title={"text": _title(result), "x": 0.02, "y": 1, "yanchor": "top", "pad": {"t": 24}, "font": {"size": 17}},
        legend={"orientation": "h", "y": 1 + 30 / inner, "x": 0, "yanchor": "bottom"},
        margin={"l": 150, "r": 30, "t": _TOP, "b": _BOTTOM},
        height=inner + _TOP + _BOTTOM,
    )
    return figure


def _escaped(value: Any) -> Any:
    """The same with all texts, names of features among them, as text: Plotly takes tags for markup."""
    if isinstance(value, Mapping):
        return {escape(str(name), quote=False): _escaped(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(each) for each in value]
    return escape(value, quote=False) if isinstance(value, str) else value


def _add_front(figure: Any, result: Mapping[str, Any]) -> None:
    import plotly.graph_objects as go

    front = result["front"]
    told = [f"{each['name']}: {', '.join(each['features'])}" for each in front]
    counts = [each["count"] for each in front]
    for name, field, colour, line in (
        ("front, validation loss on search folds", "loss", _FRONT, "lines+markers"),
        ("front, loss on held-out test windows", "held_out_loss", _HELD_OUT, "markers"),
    ):
        values = [each[field] for each in front]
        marker = {"color": colour, "size": 9}
        figure.add_trace(
            go.Scatter(x=counts, y=values, mode=line, name=name, marker=marker, customdata=told, hovertemplate=_HOVER),
            row=1,
            col=1,
        )
    winner = [each for each in front if each["name"] == result["winner"]]
    figure.add_trace(
        go.Scatter(
            x=[each["count"] for each in winner],
            y=[each["loss"] for each in winner],
            mode="markers",
            name="winner",
            marker={"color": _WINNER, "size": 17, "symbol": "circle-open", "line": {"width": 3}},
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )
    compared = result["compared"]
    figure.add_trace(
        go.Scatter(
            x=[each["count"] for each in compared],
            y=[each["held_out_loss"] for each in compared],
            mode="markers+text",
            text=[each["name"] for each in compared],
            textposition="top center",
            name="systems whole, on held-out test windows",
            marker={"color": _WHOLE, "size": 16, "symbol": "diamond-open", "line": {"width": 2}},  # others show through
        ),
        row=1,
        col=1,
    )


_HOVER = "%{x} features, loss %{y:.5f}<br>%{customdata}<extra></extra>"


def _title(result: Mapping[str, Any]) -> str:
    ended = {"done": "", "time": " (out of time)", "interrupted": " (interrupted)"}.get(result["ended"], "")
    return (
        f"<b>{len(result['generations'])} generations{ended}, {result['tried']} different individuals</b><br>"
        "<sub>the winner is chosen on the search folds; held-out folds choose nothing</sub>"
    )


def _most(survival: Mapping[str, float]) -> str:
    first = sorted(survival.items(), key=lambda each: -each[1])[:_SHOWN]
    return ", ".join(f"{name} {share:.0%}" for name, share in first)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"
