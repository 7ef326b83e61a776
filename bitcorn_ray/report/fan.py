"""Fan charts: the prices before a forecast, its bands, and what happened, in one page that opens offline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.report.page import Chart, Section, note, page_of
from bitcorn_ray.storage.storage import publish_file

if TYPE_CHECKING:
    from bitcorn_ray.forecasting.batch import PartitionForecast
    from bitcorn_ray.forecasting.forecasts import Forecasts

_HISTORY, _HAPPENED, _FORECAST = "var(--soft)", "var(--s2)", "var(--s1)"
_UNKNOWN = "of bars of which is not known whether they were trained on"
_FANS = 8  # in a chart of one partition, at most
_ALPHAS = (0.42, 0.30, 0.20, 0.14)  # of bands, the narrowest first; legible on white and on black


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
    """Write a page of them, whole or not at all.

    Raises BitcornError where nothing is to be shown or it cannot be written.
    """
    sections = [fan_section(panel) for panel in panels if panel.fans]
    if not sections:
        raise BitcornError("there is no forecast to draw: see why each partition has none")
    names = [section.title for section in sections]
    title = f"Forecast of {names[0]}" if len(names) == 1 else f"Forecasts of {len(names)} partitions"
    publish_file(path, "fan chart", page_of(title, sections))


def fan_section(panel: FanPanel) -> Section:
    """Part of a page: the chart of a partition, and what it is."""
    chart = Chart(
        label=f"prices of {panel.name}, the bands of its forecasts, and what happened",
        data=[*_band_traces(panel), *_line_traces(panel)],
        layout={"xaxis": {"type": "date"}, "yaxis": {"title": {"text": "price"}, "tickformat": ",.6~g"}},
        height=480,
        narrow={"height": 420},
    )
    return Section(title=panel.name, parts=[note(_told(panel)), chart])


def _told(panel: FanPanel) -> str:
    last = panel.fans[-1]
    levels = [f"{coverage:.0%}".removesuffix("%") for coverage in sorted(last.bands)]
    bands = (
        f"bands of {', '.join(levels[:-1])} and {levels[-1]} % coverage" if len(levels) > 1 else f"{levels[0]} % band"
    )
    what = f"forecast from {_minute(last.cutoff)} UTC"
    if len(panel.fans) > 1:
        what = f"forecasts from {len(panel.fans)} cutoffs, the last at {_minute(last.cutoff)} UTC"
    return f"{what}; {bands}; {_samples([fan.sample for fan in panel.fans])}"


def _samples(samples: Sequence[str]) -> str:
    """What the training knew of the cutoffs, the last of which counts most."""
    words = [_UNKNOWN if sample == "unknown" else sample for sample in samples]
    before = sorted(set(words[:-1]) or {words[-1]})
    return words[-1] if before == [words[-1]] else f"the last is {words[-1]}, those before {' and '.join(before)}"


def _band_traces(panel: FanPanel) -> list[dict[str, Any]]:
    """An area for each band, the widest first, and its sign in the legend."""
    traces, clear = list[dict[str, Any]](), 1.0
    coverages = sorted({coverage for fan in panel.fans for coverage in fan.bands}, reverse=True)
    for place, coverage in enumerate(coverages):
        alpha = _ALPHAS[min(len(coverages) - 1 - place, len(_ALPHAS) - 1)]
        clear *= 1 - alpha
        named = {"name": f"{coverage:.0%} band", "legendgroup": f"{panel.name} {coverage}"}
        areas = [_area(fan, coverage, _shade(alpha)) for fan in panel.fans]
        there = [{**named, **area, "showlegend": False} for area in areas if area]
        if there:
            # Bands lie on each other: what the eye sees of one is all of them together.
            sign = {"symbol": "square", "size": 12, "color": _shade(round(1 - clear, 2))}
            traces += [*there, {**named, "x": [None], "y": [None], "mode": "markers", "marker": sign}]
    return traces


def _area(fan: Fan, coverage: float, colour: str) -> dict[str, Any]:
    """The area of one band, from the close on; nothing where no bound is finite."""
    bounds = [
        (time, low, high)
        for time, low, high in zip(fan.times, *fan.bands[coverage], strict=True)
        if math.isfinite(low) and math.isfinite(high)
    ]
    if not bounds:
        return {}
    times = [fan.cutoff, *(time for time, _, _ in bounds)]
    low_line, high_line = [fan.close, *(b[1] for b in bounds)], [fan.close, *(b[2] for b in bounds)]
    drawn = {"x": [*times, *reversed(times)], "y": [*high_line, *reversed(low_line)]}
    return {**drawn, "mode": "lines", "fill": "toself", "fillcolor": colour, "line": {"width": 0}, "hoverinfo": "skip"}


def _shade(alpha: float) -> str:
    return f"rgba(70,140,200,{alpha})"


def _line_traces(panel: FanPanel) -> list[dict[str, Any]]:
    """The closes until the first cutoff, what happened after it, and each forecast."""
    first = panel.fans[0].cutoff
    until = sum(1 for time in panel.times if time <= first)
    traces: list[dict[str, Any]] = [
        {
            "x": list(panel.times[:until]),
            "y": list(panel.closes[:until]),
            "mode": "lines",
            "line": {"color": _HISTORY, "width": 1.5},
            "name": "close",
        }
    ]
    if until < len(panel.times):
        traces.append(
            {
                "x": list(panel.times[max(until - 1, 0) :]),
                "y": list(panel.closes[max(until - 1, 0) :]),
                "mode": "lines",
                "line": {"color": _HAPPENED, "width": 2},
                "name": "what happened",
            }
        )
    for place, fan in enumerate(panel.fans):
        traces.append(
            {
                "x": [fan.cutoff, *fan.times],
                "y": [fan.close, *fan.price],
                "mode": "lines+markers",
                "line": {"color": _FORECAST, "width": 1.5, "dash": "dot"},
                "marker": {"size": [7, *[5] * len(fan.times)], "symbol": ["diamond", *["circle"] * len(fan.times)]},
                "text": _hover(fan),
                "hovertemplate": "%{text}<extra></extra>",
                "name": "forecast",
                "legendgroup": f"{panel.name} forecast",
                "showlegend": place == 0,
            }
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


def fan_panels(results: Sequence[PartitionForecast]) -> list[FanPanel]:
    """Make a fan chart's panels of results that kept bars: fans one after another, the last from the last cutoff."""
    panels = []
    for each in results:
        done, bars = each.forecasts, each.bars
        if done is None or bars is None or len(done) == 0:
            continue
        apart = max(done.horizons) * timeframe_ms(done.partition.timeframe)
        drawn = [len(done) - 1]
        for place in range(len(done) - 2, -1, -1):
            if len(drawn) < _FANS and done.cutoffs[place] <= done.cutoffs[drawn[-1]] - apart:
                drawn.append(place)
        shown = [place for place in reversed(drawn) if done.cutoffs[place] >= bars.timestamp[0]]
        fans = [_fan(done, place) for place in shown]
        times = [show_time(int(time)) for time in bars.timestamp]
        panels.append(FanPanel(name=str(each.partition), times=times, closes=bars.close.tolist(), fans=fans))
    return panels


def bars_to_draw(horizons: Sequence[int]) -> int:
    """How many bars a fan chart shows: under all fans, and some before them."""
    return _FANS * max(horizons) + 120


def _fan(done: Forecasts, place: int) -> Fan:
    """One cutoff's forecast, by rising horizon."""
    order, step = np.argsort(done.horizons), timeframe_ms(done.partition.timeframe)
    cutoff, close = int(done.cutoffs[place]), float(done.close[place])
    forecast = done.returns[place, order].astype(np.float64)
    bands = {}
    for k, coverage in enumerate(done.coverages):
        half = done.widths[place, k, order].astype(np.float64) * done.volatilities[place, order]
        with np.errstate(over="ignore"):
            lower, upper = close * np.exp(forecast - half), close * np.exp(forecast + half)
        bands[coverage] = (lower.tolist(), upper.tolist())
    return Fan(
        cutoff=show_time(cutoff),
        close=close,
        times=[show_time(cutoff + done.horizons[column] * step) for column in order],
        price=(close * np.exp(forecast)).tolist(),
        bands=bands,
        sample=str(done.sample[place]),
    )
