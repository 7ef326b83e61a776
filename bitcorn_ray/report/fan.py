"""Fan charts: the prices before a forecast, its bands, and what happened, in one page that opens offline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.storage import publish_file

__all__ = ["Fan", "FanPanel", "fan_figure", "write_fan"]

_HISTORY, _HAPPENED, _FORECAST = "#4d4d4d", "#d95f02", "#08519c"
_SHADES = ("rgba(8,81,156,0.38)", "rgba(49,130,189,0.30)", "rgba(107,174,214,0.26)", "rgba(158,202,225,0.22)")


@dataclass(frozen=True, kw_only=True)
class Fan:
    """One forecast, made at a bar that opened at `cutoff` and closed at the price `close`.

    times: of the bars forecast, ascending; price: forecast for each. bands: by coverage, lower and upper bounds; a
    bound that is not finite is not drawn. sample: what the training knew of the cutoff.
    """

    cutoff: Any
    close: float
    times: Sequence[Any]
    price: Sequence[float]
    bands: Mapping[float, tuple[Sequence[float], Sequence[float]]]
    sample: str


@dataclass(frozen=True, kw_only=True)
class FanPanel:
    """The fans of one partition, in time order, over its bars: times and closes, ascending."""

    name: str
    times: Sequence[Any]
    closes: Sequence[float]
    fans: Sequence[Fan]


def write_fan(panels: Sequence[FanPanel], path: str | Path) -> None:
    """Write the page, whole or not at all. Raises BitcornError where nothing is to be shown or it cannot be written."""
    page = fan_figure(panels).to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    publish_file(path, "fan chart", page)


def fan_figure(panels: Sequence[FanPanel]) -> Any:
    """Make the figure: one partition is seen at a time, and a menu chooses it.

    Raises BitcornError where no panel has a fan.
    """
    import plotly.graph_objects as go

    shown = [panel for panel in panels if panel.fans]
    if not shown:
        raise BitcornError("there is no forecast to draw: see why each partition has none")
    traces, owners = list[Any](), list[int]()
    for place, panel in enumerate(shown):
        made = [*_band_traces(panel), *_line_traces(panel)]
        for trace in made:
            trace.visible = place == 0
        traces += made
        owners += [place] * len(made)
    figure = go.Figure(traces)
    figure.update_layout(
        template="plotly_white",
        title={"text": _title(shown[0]), "x": 0.02, "font": {"size": 17}},
        xaxis={"title": "UTC", "showspikes": True, "spikethickness": 1, "spikedash": "dot"},
        yaxis={"title": "price", "tickformat": ",.6~g"},
        legend={"orientation": "h", "y": 1.01, "x": 0, "yanchor": "bottom", "traceorder": "reversed"},
        margin={"l": 80, "r": 30, "t": 120, "b": 60},
        hovermode="closest",
    )
    if len(shown) > 1:
        buttons = [
            {
                "label": _name(panel),
                "method": "update",
                "args": [{"visible": [owner == place for owner in owners]}, {"title.text": _title(panel)}],
            }
            for place, panel in enumerate(shown)
        ]
        menu = {"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.18, "yanchor": "top", "showactive": True}
        figure.update_layout(updatemenus=[menu])
    return figure


def _name(panel: FanPanel) -> str:
    """The name as text: Plotly takes tags in texts for markup."""
    return escape(panel.name, quote=False)


def _title(panel: FanPanel) -> str:
    last = panel.fans[-1]
    levels = [f"{coverage:.0%}".removesuffix("%") for coverage in sorted(last.bands)]
    bands = (
        f"bands of {', '.join(levels[:-1])} and {levels[-1]} % coverage" if len(levels) > 1 else f"{levels[0]} % band"
    )
    what = f"forecast from {_minute(last.cutoff)} UTC"
    if len(panel.fans) > 1:
        what = f"forecasts from {len(panel.fans)} cutoffs, the last at {_minute(last.cutoff)} UTC"
    samples = sorted({fan.sample for fan in panel.fans})
    return f"<b>{_name(panel)}</b>, {what}<br><sub>{bands}; {', '.join(samples)}</sub>"


def _band_traces(panel: FanPanel) -> list[Any]:
    """An area for each band, the widest first; those of one level share their place in the legend."""
    import plotly.graph_objects as go

    traces = []
    coverages = sorted({coverage for fan in panel.fans for coverage in fan.bands}, reverse=True)
    for place, coverage in enumerate(coverages):
        shade = _SHADES[min(len(coverages) - 1 - place, len(_SHADES) - 1)]
        in_legend = True
        for fan in panel.fans:
            lower, upper = fan.bands[coverage]
            bounds = [
                (time, low, high)
                for time, low, high in zip(fan.times, lower, upper, strict=True)
                if math.isfinite(low) and math.isfinite(high)
            ]
            if not bounds:
                continue
            times = [fan.cutoff, *(time for time, _, _ in bounds)]
            low_line, high_line = [fan.close, *(b[1] for b in bounds)], [fan.close, *(b[2] for b in bounds)]
            traces.append(
                go.Scatter(
                    x=[*times, *reversed(times)],
                    y=[*high_line, *reversed(low_line)],
                    mode="lines",
                    fill="toself",
                    fillcolor=shade,
                    line={"width": 0},
                    hoverinfo="skip",
                    name=f"{coverage:.0%} band",
                    legendgroup=f"{_name(panel)} {coverage}",
                    showlegend=in_legend,
                )
            )
            in_legend = False
    return traces


def _line_traces(panel: FanPanel) -> list[Any]:
    """The closes until the first cutoff, what happened after it, and each forecast."""
    import plotly.graph_objects as go

    first = panel.fans[0].cutoff
    until = sum(1 for time in panel.times if time <= first)
    traces = [
        go.Scatter(
            x=list(panel.times[:until]),
            y=list(panel.closes[:until]),
            mode="lines",
            line={"color": _HISTORY, "width": 1.5},
            name="close",
        )
    ]
    if until < len(panel.times):
        traces.append(
            go.Scatter(
                x=list(panel.times[max(until - 1, 0) :]),
                y=list(panel.closes[max(until - 1, 0) :]),
                mode="lines",
                line={"color": _HAPPENED, "width": 2},
                name="what happened",
            )
        )
    for place, fan in enumerate(panel.fans):
        traces.append(
            go.Scatter(
                x=[fan.cutoff, *fan.times],
                y=[fan.close, *fan.price],
                mode="lines+markers",
                line={"color": _FORECAST, "width": 1.5, "dash": "dot"},
                marker={"size": [7, *[5] * len(fan.times)], "symbol": ["diamond", *["circle"] * len(fan.times)]},
                text=_hover(fan),
                hovertemplate="%{text}<extra></extra>",
                name="forecast",
                legendgroup=f"{_name(panel)} forecast",
                showlegend=place == 0,
            )
        )
    return traces


def _hover(fan: Fan) -> list[str]:
    lines = [f"cutoff {_minute(fan.cutoff)}, close {fan.close:.6g}, {fan.sample}"]
    for place, (time, price) in enumerate(zip(fan.times, fan.price, strict=True)):
        bands = "".join(
            f"<br>{coverage:.0%}: {lower[place]:.6g} to {upper[place]:.6g}"
            for coverage, (lower, upper) in sorted(fan.bands.items())
        )
        lines.append(f"{_minute(time)}: {price:.6g}{bands}")
    return lines


def _minute(time: Any) -> str:
    return str(time)[:16].replace("T", " ")
