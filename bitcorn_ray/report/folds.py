"""Folds over time, in one page that opens offline: what trains, validates and tests, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.table import Table

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import table
from bitcorn_ray.report.page import Chart, Section, note, page_of
from bitcorn_ray.storage.storage import publish_file

_COLOURS = {"train": "var(--s1)", "validation": "var(--s6)", "test": "var(--s2)"}
_PURGED, _BARS = "var(--line)", "var(--soft)"
_ROW_PIXELS, _MOST_PIXELS = 22, 1_600


def folds_table(plan: dict[str, Any]) -> Table:
    """A row a fold: the first and last closing instant of each range, and its bars, those of all partitions together.

    plan: as `FoldPlan.to_json` gives it.
    """

    def cells(fold: dict[str, Any], part: str) -> tuple[str, str]:
        own = fold[part]
        if own is None:
            return "none", ""
        return f"{own['first'][:16]} to {own['last'][:16]}".replace("T", " "), f"{sum(own['bars']):,}"

    parts = ("train", "validation", "test")
    rows = [(str(fold["fold"]), *(cell for part in parts for cell in cells(fold, part))) for fold in plan["folds"]]
    return table(("fold", *(name for part in parts for name in (part, "bars"))), rows, left=(1, 3, 5))


def write_folds(plan: dict[str, Any], path: str | Path) -> None:
    """Write the page, whole or not at all. Raises BitcornError without folds, or where it cannot be written."""
    publish_file(path, "picture of the folds", page_of("Folds", [folds_section(plan)]))


def folds_section(plan: dict[str, Any]) -> Section:
    """Part of a page: a row a fold, the first on top, and below them from when to when each partition has bars.

    plan: as `FoldPlan.to_json` gives it. Raises BitcornError without folds.
    """
    if not plan["folds"]:
        raise BitcornError("there is no fold to draw")
    names = [f"fold {fold['fold']}" for fold in plan["folds"]]
    partitions = [one["name"] for one in plan["partitions"]]
    traces = [_bar("bars", _BARS, partitions, _held(plan["partitions"]), 0.25)]
    for part, colour in _COLOURS.items():
        held = {name: fold for name, fold in zip(names, plan["folds"], strict=True) if fold[part]}
        traces.append(_bar(part, colour, list(held), [_drawn(fold, part, plan) for fold in held.values()]))
    traces.append(_bar("purge and embargo", _PURGED, *_purged(names, plan["folds"])))
    rows = len(names) + len(partitions)
    rows_axis = {
        "categoryorder": "array",
        "categoryarray": [*names, *partitions],
        "autorange": "reversed",
        "dtick": 1 if rows * _ROW_PIXELS <= _MOST_PIXELS else None,
    }
    chart = Chart(
        label="when each fold trains, validates and tests",
        data=traces,
        layout={
            "barmode": "overlay",
            "xaxis": {"type": "date", "side": "top"},
            "yaxis": rows_axis,
            "legend": {"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0},
            "margin": {"l": 60, "r": 12, "t": 30, "b": 40},
        },
        height=max(220, min(_MOST_PIXELS, rows * _ROW_PIXELS) + 110),
    )
    count, window = len(plan["folds"]), plan["window"]
    return Section(title=f"{count} {window} fold{'s' * (count != 1)}", parts=[note(_left_out(plan)), chart])


def _left_out(plan: dict[str, Any]) -> str:
    horizon, days = plan["horizon"], plan["folds"][0]["purge_ms"] / 86_400_000
    left_out = f"{days:.3g} days" if days >= 2 else f"{24 * days:.3g} hours"
    return f"longest horizon {horizon} bar{'s' * (horizon != 1)}; {left_out} left out before validation and before test"


def _drawn(fold: dict[str, Any], part: str, plan: dict[str, Any]) -> tuple[int, int, str]:
    """Start and stop of a range, and what is said of it."""
    own = fold[part]
    counts = [f"{one['name']}: {bars:,} bars" for one, bars in zip(plan["partitions"], own["bars"], strict=True)]
    return *own["span"], "<br>".join([f"{own['first']} to {own['last']}", *counts])


def _held(partitions: Sequence[dict[str, Any]]) -> list[tuple[int, int, str]]:
    return [
        (_ms(one["first"]), _ms(one["last"]), f"{one['first']} to {one['last']}<br>{one['bars']:,} bars")
        for one in partitions
    ]


def _ms(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1_000)


def _purged(names: Sequence[str], folds: Sequence[dict[str, Any]]) -> tuple[list[str], list[tuple[int, int, str]]]:
    """Of each fold the stretches between the end of a range and the start of the next."""
    rows, spans = list[str](), list[tuple[int, int, str]]()
    for name, fold in zip(names, folds, strict=True):
        ranges = [fold[part]["span"] for part in _COLOURS if fold[part]]
        for (_, stop), (start, _) in pairwise(ranges):
            rows.append(name)
            spans.append((stop, start, "left out: labels would reach into the next range"))
    return rows, spans


def _bar(
    name: str, colour: str, rows: Sequence[str], spans: Sequence[tuple[int, int, str]], width: float = 0.7
) -> dict[str, Any]:
    """Stretches (start, stop, remark) in ms, each in a row of the picture."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": list(rows),
        "base": [start for start, _, _ in spans],
        "x": [stop - start for start, stop, _ in spans],
        "width": width,
        "marker": {"color": colour, "line": {"width": 0}},
        "customdata": [remark for _, _, remark in spans],
        "hovertemplate": "%{y}, " + name + "<br>%{customdata}<extra></extra>",
    }
