"""Forecasts: tables for a terminal, a live view of a watched source, and fan charts for pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.report.html import SERIES, SOFT, Chart, Section, note, page_of
from bitcorn_ray.report.table import Table, number, percent, price, printable, short_time
from bitcorn_ray.storage.storage import publish_file

if TYPE_CHECKING:
    from bitcorn_ray.forecasting.batch import PartitionForecast
    from bitcorn_ray.forecasting.forecasts import Forecasts

_UNKNOWN = "unknown whether the training has seen these bars"
FANS = 8  # in a chart of one partition, at most
_ALPHAS = (0.42, 0.30, 0.20, 0.14)  # of bands, the narrowest first; legible on white and on black


def forecast_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row per horizon. rows: from `Forecasts.to_table`."""
    shown = [
        (
            row["horizon"],
            short_time(row["time"]),
            f"{row['return']:+.3%}",
            f"{row['volatility']:.3%}",
            price(row["price"]),
            f"{price(row['lo80'])} – {price(row['hi80'])}",
            f"{price(row['lo95'])} – {price(row['hi95'])}",
        )
        for row in rows
    ]
    return Table((">horizon", "time (UTC)", ">return", ">volatility", ">price", ">80 % band", ">95 % band"), shown)


class WatchScreen:
    """What is shown while a source is watched: tables on a terminal, elsewhere a line per forecast.

    title: names what is watched. console: standard error by default.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title, self._console = title, console or Console(stderr=True)
        self._newest: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._live: Live | None = None

    def __enter__(self) -> WatchScreen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        else:
            self._print(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, entries: Sequence[Mapping[str, Any]], skill: Sequence[Mapping[str, Any]]) -> None:
        """Show new entries of the journal and the current skill."""
        self._newest |= {(e["symbol"], e["timeframe"]): e for e in entries if e["kind"] == "forecast"}
        if self._live:
            newest = [entry for _, entry in sorted(self._newest.items())]
            self._live.update(Group(Text(self._title), newest_table(newest), skill_table(skill)), refresh=True)
            return
        for entry in entries:
            if entry["kind"] != "outcome":
                self._print(printable(_entry_line(entry)))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def newest_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each horizon of each partition's newest forecast. entries: of the journal."""

    def rows() -> Iterator[tuple[str | int, ...]]:
        for entry in entries:
            start = (_name(entry), short_time(entry["cutoff"]), price(entry["close"]))
            for n, horizon in enumerate(entry["horizons"]):
                forecast, volatility = entry["return"][n], entry["volatility"][n]
                widths = [entry["widths"].get(level, [])[n : n + 1] for level in ("0.8", "0.95")]
                bands = [_band(forecast, volatility, width[0] if width else None) for width in widths]
                yield *(start if n == 0 else ("", "", "")), horizon, f"{forecast:+.3%}", f"{volatility:.3%}", *bands

    values = (">close", ">horizon", ">return", ">volatility", ">80 % band", ">95 % band")
    return Table(("partition", "last bar", *values), list(rows()), keys=2)


def skill_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row per partition and horizon: coverage, direction, and QLIKE compared with the baseline's."""
    shown = [
        (
            _name(row),
            row["horizon"],
            f"{row['scored']:,}" + (f" ({row['unknown']:,} unknown)" if row["unknown"] else ""),
            *(percent(row["coverage"].get(level), "-") for level in ("0.5", "0.8", "0.95")),
            percent(row["direction"], "-"),
            number(row["qlike"], missing="-"),
            number(row["ewma_qlike"], missing="-"),
            "-" if row["qlike"] is None else f"{row['ewma_qlike'] - row['qlike']:+.4f}",
        )
        for row in rows
    ]
    shares = (">in 50 %", ">in 80 %", ">in 95 %", ">direction")
    return Table(("partition", ">horizon", ">scored", *shares, ">QLIKE", ">EWMA", ">better by"), shown, keys=2)


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['symbol']} {row['timeframe']}"


def _entry_line(entry: Mapping[str, Any]) -> str:
    """Return a line about a forecast, or about a bar without one."""
    start = f"{_name(entry)} {short_time(entry['cutoff'])}"
    if entry["kind"] == "skipped":
        return f"{start}: no forecast, {entry['why']}"
    horizons = zip(entry["horizons"], entry["return"], entry["volatility"], strict=True)
    return f"{start}: " + ", ".join(f"{h} bars {r:+.3%} +- {v:.3%}" for h, r, v in horizons)


def _band(forecast: float, volatility: float, width: float | None) -> str:
    if width is None:
        return "∞"
    return f"{forecast - width * volatility:+.2%} to {forecast + width * volatility:+.2%}"


@dataclass(frozen=True, kw_only=True)
class Fan:
    """One forecast, from a bar that opened at `cutoff` and closed at the price `close`.

    times: of the forecast bars, ascending; price: the forecast for each. bands: lower and upper bounds by coverage;
    infinite bounds are not drawn. sample: whether the training has seen the cutoff, see `bands.data_split_of`.
    """

    cutoff: str
    close: float
    times: Sequence[str]
    price: Sequence[float]
    bands: Mapping[float, tuple[Sequence[float], Sequence[float]]]
    sample: str


@dataclass(frozen=True, kw_only=True)
class FanPanel:
    """The fans of one partition, in time order, over its bars: times and closes, ascending."""

    name: str
    times: Sequence[str]
    closes: Sequence[float]
    fans: Sequence[Fan]


def fan_panels(results: Sequence[PartitionForecast]) -> list[FanPanel]:
    """Return the panels of results with bars: successive fans that do not overlap, the last from the last cutoff."""
    panels = []
    for one in results:
        forecasts, bars = one.forecasts, one.bars
        if forecasts is None or bars is None or len(forecasts) == 0:
            continue
        span = max(forecasts.horizons) * timeframe_ms(forecasts.partition.timeframe)
        drawn = [len(forecasts) - 1]
        for row in range(len(forecasts) - 2, -1, -1):
            if len(drawn) < FANS and forecasts.cutoffs[row] <= forecasts.cutoffs[drawn[-1]] - span:
                drawn.append(row)
        fans = [_fan(forecasts, row) for row in reversed(drawn) if forecasts.cutoffs[row] >= bars.timestamp[0]]
        times = [show_time(int(time)) for time in bars.timestamp]
        panels.append(FanPanel(name=str(one.partition), times=times, closes=bars.close.tolist(), fans=fans))
    return panels


def bars_to_draw(horizons: Sequence[int]) -> int:
    """Return the number of bars in a fan chart: those under all fans, and some before them."""
    return FANS * max(horizons) + 120


def _fan(forecasts: Forecasts, row: int) -> Fan:
    """Return the forecast at one cutoff, by ascending horizon."""
    order, step = np.argsort(forecasts.horizons), timeframe_ms(forecasts.partition.timeframe)
    cutoff, close = int(forecasts.cutoffs[row]), float(forecasts.close[row])
    returns = forecasts.returns[row, order].astype(np.float64)
    bands = {}
    for k, coverage in enumerate(forecasts.coverages):
        half = forecasts.widths[row, k, order].astype(np.float64) * forecasts.volatilities[row, order]
        with np.errstate(over="ignore"):
            lower, upper = close * np.exp(returns - half), close * np.exp(returns + half)
        bands[coverage] = (lower.tolist(), upper.tolist())
    return Fan(
        cutoff=show_time(cutoff),
        close=close,
        times=[show_time(cutoff + forecasts.horizons[column] * step) for column in order],
        price=(close * np.exp(returns)).tolist(),
        bands=bands,
        sample=str(forecasts.sample[row]),
    )


def write_fan(panels: Sequence[FanPanel], path: str | Path) -> None:
    """Write a page of fan charts, completely or not at all.

    Raises BitcornError if there is no forecast or the page cannot be written.
    """
    sections = [fan_section(panel) for panel in panels if panel.fans]
    if not sections:
        raise BitcornError("there is no forecast to draw: see why each partition has none")
    one = len(sections) == 1
    title = f"Forecast of {sections[0].title}" if one else f"Forecasts of {len(sections)} partitions"
    publish_file(path, "fan chart", page_of(title, sections))


def fan_section(panel: FanPanel) -> Section:
    """Return the chart of a partition with a description."""
    chart = Chart(
        label=f"prices of {panel.name}, its forecasts with their bands, and the outcomes",
        data=[*_band_traces(panel), *_line_traces(panel)],
        layout=go.Layout(xaxis_type="date", yaxis={"title_text": "price", "tickformat": ",.6~g"}),
        height=480,
        narrow={"height": 420},
    )
    return Section(title=panel.name, parts=[note(_description(panel)), chart])


def _description(panel: FanPanel) -> str:
    last = panel.fans[-1]
    levels = [f"{100 * coverage:.0f}" for coverage in sorted(last.bands)]
    bands = f"bands of {', '.join(levels[:-1])} and {levels[-1]} % coverage" if levels[1:] else f"{levels[0]} % band"
    what = f"forecast from {short_time(last.cutoff)} UTC"
    if len(panel.fans) > 1:
        what = f"forecasts from {len(panel.fans)} cutoffs, the last at {short_time(last.cutoff)} UTC"
    return f"{what}; {bands}; {_samples([fan.sample for fan in panel.fans])}"


def _samples(samples: Sequence[str]) -> str:
    """Return which part of the data the cutoffs are from; the last cutoff matters most."""
    words = [_UNKNOWN if sample == "unknown" else sample for sample in samples]
    before = sorted(set(words[:-1]) or {words[-1]})
    return words[-1] if before == [words[-1]] else f"the last is {words[-1]}, those before {' and '.join(before)}"


def _band_traces(panel: FanPanel) -> list[Any]:
    """Return an area for each band, the widest first, and its symbol in the legend."""
    traces, clear = list[Any](), 1.0
    coverages = sorted({coverage for fan in panel.fans for coverage in fan.bands}, reverse=True)
    for n, coverage in enumerate(coverages):
        alpha = _ALPHAS[min(len(coverages) - 1 - n, len(_ALPHAS) - 1)]
        clear *= 1 - alpha
        name = {"name": f"{coverage:.0%} band", "legendgroup": f"{panel.name} {coverage}"}
        outlines = [outline for fan in panel.fans if (outline := _outline(fan, coverage))]
        area = {"mode": "lines", "fill": "toself", "fillcolor": _shade(alpha), "line_width": 0, "hoverinfo": "skip"}
        traces += [go.Scatter(**outline, **area, **name, showlegend=False) for outline in outlines]
        if outlines:
            # Bands overlap, so that the visible colour of one is that of all wider ones together.
            symbol = {"symbol": "square", "size": 12, "color": _shade(round(1 - clear, 2))}
            traces.append(go.Scatter(x=[None], y=[None], mode="markers", marker=symbol, **name))
    return traces


def _outline(fan: Fan, coverage: float) -> dict[str, list[Any]]:
    """Return the outline of one band, from the close on; nothing if no bound is finite."""
    bounds = [
        bound
        for bound in zip(fan.times, *fan.bands[coverage], strict=True)
        if math.isfinite(bound[1]) and math.isfinite(bound[2])
    ]
    if not bounds:
        return {}
    times, lower, upper = zip((fan.cutoff, fan.close, fan.close), *bounds, strict=True)
    return {"x": [*times, *reversed(times)], "y": [*upper, *reversed(lower)]}


def _shade(alpha: float) -> str:
    return f"rgba(70,140,200,{alpha})"


def _line_traces(panel: FanPanel) -> list[Any]:
    """Return the closes until the first cutoff, those after it, and each forecast."""
    known = sum(1 for time in panel.times if time <= panel.fans[0].cutoff)
    lines = [("close", slice(known), {"color": SOFT, "width": 1.5})]
    if known < len(panel.times):
        lines.append(("what happened", slice(max(known - 1, 0), None), {"color": SERIES[1], "width": 2}))
    traces = [
        go.Scatter(x=list(panel.times[rows]), y=list(panel.closes[rows]), mode="lines", line=line, name=name)
        for name, rows, line in lines
    ]
    for n, fan in enumerate(panel.fans):
        count = len(fan.times)
        trace = go.Scatter(
            x=[fan.cutoff, *fan.times],
            y=[fan.close, *fan.price],
            mode="lines+markers",
            line={"color": SERIES[0], "width": 1.5, "dash": "dot"},
            marker={"size": [7, *[5] * count], "symbol": ["diamond", *["circle"] * count]},
            text=_hover(fan),
            hovertemplate="%{text}<extra></extra>",
            name="forecast",
            legendgroup=f"{panel.name} forecast",
            showlegend=n == 0,
        )
        traces.append(trace)
    return traces


def _hover(fan: Fan) -> list[str]:
    lines = [f"cutoff {short_time(fan.cutoff)}, close {fan.close:.6g}, {fan.sample}"]
    for n, (time, forecast) in enumerate(zip(fan.times, fan.price, strict=True)):
        bands = "".join(
            f"<br>{coverage:.0%}: {lower[n]:.6g} to {upper[n]:.6g}"
            for coverage, (lower, upper) in sorted(fan.bands.items())
        )
        lines.append(f"{short_time(time)}: {forecast:.6g}{bands}")
    return lines
