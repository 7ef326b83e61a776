"""Folds over time: a table for a terminal, and a page with the ranges that train, validate and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.html import SERIES, SOFT, Chart, Section, note, page_of
from bitcorn_ray.report.table import Table, counted, short_time
from bitcorn_ray.storage.storage import publish_file

_COLOURS = {"train": SERIES[0], "validation": SERIES[5], "test": SERIES[1]}
_ROW_PIXELS, _MOST_PIXELS = 22, 1_600

# A bar of the chart: its row, start and stop in ms, and the text that is shown on hovering.
_Bar = tuple[str, int, int, str]


def folds_table(plan: Mapping[str, Any]) -> Table:
    """Return a row per fold: the first and last close of each range, and the bars of all partitions in it.

    plan: from `FoldPlan.to_json`.
    """

    def cells(part: Mapping[str, Any] | None) -> tuple[str, int | None]:
        if part is None:
            return "none", None
        return f"{short_time(part['first'])} to {short_time(part['last'])}", sum(part["bars"])

    rows = [(fold["fold"], *(cell for part in _COLOURS for cell in cells(fold[part]))) for fold in plan["folds"]]
    return Table((">fold", *(name for part in _COLOURS for name in (part, ">bars"))), rows)


def write_folds(plan: Mapping[str, Any], path: str | Path) -> None:
    """Write the page, completely or not at all. Raises BitcornError without folds, or if it cannot be written."""
    publish_file(path, "picture of the folds", page_of("Folds", [folds_section(plan)]))


def folds_section(plan: Mapping[str, Any]) -> Section:
    """Return a chart with a row per fold, the first on top, and below them the bars of each partition.

    plan: from `FoldPlan.to_json`. Raises BitcornError without folds.
    """
    folds, partitions = plan["folds"], plan["partitions"]
    if not folds:
        raise BitcornError("there is no fold to draw")
    traces = [_trace("bars", SOFT, [_partition_bar(one) for one in partitions], 0.25)]
    for part, colour in _COLOURS.items():
        traces.append(_trace(part, colour, [_range_bar(fold, part, partitions) for fold in folds if fold[part]]))
    traces.append(_trace("purge and embargo", "var(--line)", [bar for fold in folds for bar in _purged(fold)]))
    names = [*(_name(fold) for fold in folds), *(one["name"] for one in partitions)]
    pixels = len(names) * _ROW_PIXELS
    rows = {"categoryorder": "array", "categoryarray": names, "autorange": "reversed"}
    layout = go.Layout(
        barmode="overlay",
        xaxis={"type": "date", "side": "top"},
        yaxis={**rows, "dtick": 1 if pixels <= _MOST_PIXELS else None},
        legend={"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0},
        margin={"l": 60, "r": 12, "t": 30, "b": 40},
    )
    label, height = "when each fold trains, validates and tests", max(220, min(_MOST_PIXELS, pixels) + 110)
    chart = Chart(label=label, data=traces, layout=layout, height=height)
    days = folds[0]["purge_ms"] / 86_400_000
    purge = f"{days:.3g} days" if days >= 2 else f"{24 * days:.3g} hours"
    remark = f"longest horizon {counted(plan['horizon'], 'bar')}; {purge} left out before validation and before test"
    return Section(title=counted(len(folds), f"{plan['window']} fold"), parts=[note(remark), chart])


def _name(fold: Mapping[str, Any]) -> str:
    return f"fold {fold['fold']}"


def _range_bar(fold: Mapping[str, Any], part: str, partitions: Sequence[Mapping[str, Any]]) -> _Bar:
    own = fold[part]
    counts = [f"{one['name']}: {bars:,} bars" for one, bars in zip(partitions, own["bars"], strict=True)]
    return _name(fold), *own["span"], "<br>".join([f"{own['first']} to {own['last']}", *counts])


def _partition_bar(one: Mapping[str, Any]) -> _Bar:
    start, stop = (int(datetime.fromisoformat(one[end]).timestamp() * 1_000) for end in ("first", "last"))
    return one["name"], start, stop, f"{one['first']} to {one['last']}<br>{one['bars']:,} bars"


def _purged(fold: Mapping[str, Any]) -> Iterator[_Bar]:
    """Yield the time between the end of a range and the start of the next."""
    ranges = [fold[part]["span"] for part in _COLOURS if fold[part]]
    for (_, stop), (start, _) in pairwise(ranges):
        yield _name(fold), stop, start, "left out: labels would reach into the next range"


def _trace(name: str, colour: str, bars: Sequence[_Bar], width: float = 0.7) -> Any:
    return go.Bar(
        orientation="h",
        name=name,
        y=[row for row, *_ in bars],
        base=[start for _, start, _, _ in bars],
        x=[stop - start for _, start, stop, _ in bars],
        width=width,
        marker={"color": colour, "line_width": 0},
        customdata=[text for *_, text in bars],
        hovertemplate="%{y}, " + name + "<br>%{customdata}<extra></extra>",
    )
