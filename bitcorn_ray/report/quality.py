"""The quality of bars: tables for a terminal, and a page with the score, its reasons, and every defect.

For each partition the page has a calendar of coverage, the prices with their defects, and lists of the defects. Long
series of prices are drawn as stretches, from the lowest to the highest price of each; defects are marked at their exact
times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from bitcorn_ray.report.html import Chart, Part, Section, folded, heading, note, page_of, stretches
from bitcorn_ray.report.table import Facts, Html, Styled, Table, counted, short_time
from bitcorn_ray.storage.storage import publish_file

if TYPE_CHECKING:
    from bitcorn_ray.market.diagnosis import Diagnosis
    from bitcorn_ray.market.partition import Partition
    from bitcorn_ray.sources.options import SourceOptions

_DRAWN, _STRETCHES, _LEAST_STRETCHES = 12, 4_000, 700
_MARKED, _LISTED, _FIRST = 300, 100, 3
_FOOTER = "Times are UTC. The bars are unchanged; a cleaning policy can repair them."

MARKS: dict[str, tuple[str, str, str]] = {
    # kind: name, colour (legible on white and on black), symbol
    "bad_prints": ("bad prints", "#e4002b", "x"),
    "missing_values": ("missing values", "#b5179e", "square-open"),
    "non_positive_prices": ("prices of 0 or less", "#b5179e", "square"),
    "negative_volume": ("negative volume", "#9d4edd", "square-open"),
    "ohlc_violations": ("OHLC violations", "#9d4edd", "diamond"),
    "duplicates": ("duplicates", "#e07a00", "triangle-up-open"),
    "off_grid": ("off the grid", "#0096c7", "triangle-down-open"),
    "invented_bars": ("invented bars", "#c98500", "line-ew-open"),
    "stale_bars": ("stale bars", "#5f9e00", "line-ew-open"),
    "level_changes": ("change of level", "#e4002b", "x-thin-open"),
    "outages": ("outages", "#e4002b", "line-ns-open"),
    "extreme_bars": ("extreme, but real", "#808080", "circle-open"),
}
_TIMES_ONLY = (
    "missing_values",
    "non_positive_prices",
    "negative_volume",
    "ohlc_violations",
    "off_grid",
    "stale_bars",
)
_COVERAGE = ("none", "under half", "half or more", "90 % or more", "all")


@dataclass(frozen=True, kw_only=True)
class PartitionQuality:
    """The diagnosis of one partition of a source."""

    partition: Partition
    source: str
    diagnosis: Diagnosis

    @property
    def report(self) -> dict[str, Any]:
        """Return the report of the diagnosis."""
        return self.diagnosis.report

    def to_json(self) -> dict[str, Any]:
        """Return symbol, timeframe, source and the report as plain values."""
        names = {"symbol": self.partition.symbol, "timeframe": self.partition.timeframe}
        return {**names, "source": self.source, **self.report}


def diagnose_source(
    source: str | Path,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    source_options: SourceOptions | None = None,
) -> Iterator[PartitionQuality]:
    """Yield the diagnosis of each partition of a source. Raises as `Source.stored_rows` does."""
    from bitcorn_ray.market.diagnosis import diagnose
    from bitcorn_ray.sources.source import open_source

    for stored in open_source(source, source_options).stored_rows(symbols, timeframes):
        diagnosis = diagnose(
            stored.rows,
            stored.partition.timeframe,
            units=stored.units,
            formats=stored.formats,
            set_aside=stored.set_aside,
        )
        yield PartitionQuality(partition=stored.partition, source=stored.source, diagnosis=diagnosis)


def quality_tables(results: Sequence[PartitionQuality]) -> tuple[Table, ...]:
    """Return a row per partition with its score, a row per reason, and the changes of level."""
    last_bar = {"no": "finished", "suspected": "unfinished?", "certain": "unfinished"}
    scores = [
        (
            str(one.partition),
            Styled(f"{one.report['score']:.1f}", _grade(one.report["score"])),
            *(one.report[name] for name in ("rows", "bars", "expected_bars")),
            short_time(one.report["first_timestamp"]),
            short_time(one.report["last_timestamp"]),
            last_bar[one.report["last_bar"]["unfinished"]],
        )
        for one in results
    ]
    reasons = [
        (str(one.partition), f"-{reason['cost']:.1f}", reason["text"], _first_times(one.report, reason["kind"]))
        for one in results
        for reason in one.report["reasons"]
    ]
    columns = ("partition", ">score", ">rows", ">bars", ">expected", "from", "to", "last bar")
    levels = [
        (str(one.partition), short_time(change["at"]), change["what"])
        for one in results
        for change in one.report["level_changes"]["list"][:_FIRST]
    ]
    return (
        Table(columns, scores),
        *([Table(("partition", ">points", "what is wrong", "first at"), reasons)] if reasons else []),
        *([Table(("partition", "level changes at", "what it looks like"), levels)] if levels else []),
    )


def _first_times(report: Mapping[str, Any], kind: str) -> str:
    """Return the times of the first defects of a kind that lowers the score."""
    duplicates, gaps, zero_volume = (report[name]["list"] for name in ("duplicates", "gaps", "zero_volume"))
    chosen = {
        "duplicates_different": [row for row in duplicates if row["kind"] != "equal"],
        "duplicates_equal": [row for row in duplicates if row["kind"] == "equal"],
        "outage_bars": [gap for gap in gaps if gap["kind"] == "outage"],
        "no_trade_bars": [gap for gap in gaps if gap["kind"] != "outage"],
        "invented_bars": [run for run in zero_volume if run["kind"] == "outage"],
        "unfinished_last_bar": [report["last_bar"]],
    }
    found = chosen.get(kind) or (report[kind]["list"] if isinstance(report.get(kind), dict) else [])
    return ", ".join(short_time(one if isinstance(one, str) else one["at"]) for one in found[:_FIRST])


def lightened(results: Sequence[PartitionQuality]) -> list[PartitionQuality]:
    """Return the results without the bars of those partitions that a page does not draw, to save memory."""
    kept = {id(one) for one in _worst_first(results)[:_DRAWN]}
    return [one if id(one) in kept else _without_bars(one) for one in results]


def _worst_first(results: Sequence[PartitionQuality]) -> list[PartitionQuality]:
    return sorted(results, key=lambda one: float(one.report["score"]))


def _without_bars(result: PartitionQuality) -> PartitionQuality:
    empty = result.diagnosis.bars.take(slice(0))
    return replace(result, diagnosis=replace(result.diagnosis, bars=empty, marks={}))


def write_quality(results: Sequence[PartitionQuality], path: str | Path) -> None:
    """Write the page, completely or not at all. Raises BitcornError if it cannot be written."""
    publish_file(path, "quality page", quality_page(results))


def quality_page(results: Sequence[PartitionQuality]) -> str:
    """Return the page. It draws the worst partitions and lists all."""
    ranked = _worst_first(results)
    most = max(_LEAST_STRETCHES, _STRETCHES // max(len(ranked[:_DRAWN]), 1))
    sections = [_section(f"p{n}", one, most) for n, one in enumerate(ranked[:_DRAWN])]
    if len(results) == 1:
        return page_of(f"Quality of {results[0].partition}", sections, _FOOTER)
    return page_of(f"Quality of {len(results)} partitions", [_overview(ranked), *sections], _FOOTER)


def _overview(ranked: Sequence[PartitionQuality]) -> Section:
    rows = list[Any]()
    for n, one in enumerate(ranked):
        name, report, score = str(one.partition), one.report, one.report["score"]
        link = Html(f'<a href="#p{n}">{escape(name)}</a>') if n < _DRAWN else name
        rows.append((link, Styled(f"{score:g}", _grade(score)), report["bars"], _span(report), main_reasons(report)))
    table = Table(("partition", ">score", ">bars", "from, to", "main reasons"), rows)
    remark = [note(f"The {_DRAWN} worst are drawn below.")] if len(ranked) > _DRAWN else []
    return Section(title="Partitions", id="overview", parts=[table, *remark])


def main_reasons(report: Mapping[str, Any]) -> str:
    """Return the reasons that lower a score most."""
    return "; ".join(reason["text"] for reason in report["reasons"][:3]) or "nothing is wrong"


def _section(key: str, one: PartitionQuality, most: int) -> Section:
    report, score, name = one.report, one.report["score"], str(one.partition)
    share = report["bars"] / max(report["expected_bars"], 1)
    facts = {
        "bars": f"{report['bars']:,} of {report['expected_bars']:,} ({_percent(share)})",
        "rows as stored": f"{report['rows']:,}, {report['order']['stored']}",
        "from, to": _span(report),
        "source": one.source,
    }
    reasons = [(reason["text"], f"{reason['cost']:.1f}") for reason in report["reasons"]]
    legend = "".join(f"<span><i class=c{n}></i>{text}</span>" for n, text in enumerate(_COVERAGE))
    parts: list[Part] = [
        Facts(facts),
        Table(("why not 100", ">points"), reasons) if reasons else "Nothing is wrong with these bars.",
    ]
    if len(one.diagnosis.bars):
        parts += [heading("Coverage, day by day"), Html(f"<div class=legend>{legend}</div>"), _calendar(one, name)]
        parts += [heading("Prices and their defects"), note(_drawn(one, most)), _prices(one, name, most)]
    badge = Html(f"<div class='score {_grade(score)}'>{score:g}<small>of 100</small></div>")
    return Section(title=name, id=key, badge=badge, parts=[*parts, *_defects(report)])


def _calendar(one: PartitionQuality, name: str) -> Chart:
    """Draw the coverage of each day: a row for each weekday of each year, a column for each week."""
    coverage = one.diagnosis.days
    days = np.arange(coverage.first_day, coverage.first_day + len(coverage.expected)).view("M8[D]")
    years = days.astype("M8[Y]").astype(int) + 1970
    day_of_year = (days - days.astype("M8[Y]").astype("M8[D]")).astype(int)
    # 1970 began on a Thursday, and weeks begin on Monday.
    weekday = (days.astype(int) + 3) % 7
    week = (day_of_year + (weekday - day_of_year) % 7) // 7
    level = np.digitize(coverage.there / np.maximum(coverage.expected, 1), (1e-9, 0.5, 0.9, 1.0))
    shown = list(range(years[0], years[-1] + 1))
    levels, texts = np.full((8 * len(shown), 54), None, object), np.full((8 * len(shown), 54), "", object)
    row_of_day = 8 * (years - years[0]) + weekday
    counts = (coverage.there, coverage.expected)
    for row, column, step, day, there, expected in zip(row_of_day, week, level, days, *counts, strict=True):
        if expected:
            levels[row, column], texts[row, column] = int(step), f"{day}: {there:,} of {expected:,}"
    steps = [[edge / 5, f"var(--c{n})"] for n in range(5) for edge in (n, n + 1)]
    heatmap = go.Heatmap(
        z=levels.tolist(),
        text=texts.tolist(),
        hoverinfo="text",
        hoverongaps=False,
        zmin=-0.5,
        zmax=4.5,
        colorscale=steps,
        showscale=False,
        xgap=2,
        ygap=2,
    )
    axis = {"showgrid": False, "zeroline": False, "fixedrange": True}
    months = {"tickvals": [4.35 * n + 2 for n in range(12)], "ticktext": list("JFMAMJJASOND"), "range": [-0.7, 53.7]}
    year_ticks = {"tickvals": [8 * n + 3 for n in range(len(shown))], "ticktext": list(map(str, shown))}
    layout = go.Layout(
        xaxis={"side": "top", **months, **axis},
        yaxis={"autorange": "reversed", **year_ticks, **axis},
        margin={"l": 42, "r": 6, "t": 22, "b": 6},
    )
    height, narrow = (8 * pixels * len(shown) + 44 for pixels in (10, 6))
    return Chart(
        label=f"calendar of the coverage of {name}",
        data=[heatmap],
        layout=layout,
        height=height,
        narrow={"height": narrow},
    )


def _prices(one: PartitionQuality, name: str, most: int) -> Chart:
    """Draw the lowest, highest and last price of stretches of equally many bars, and mark the defects."""
    bars = one.diagnosis.bars
    starts = stretches(len(bars), most)
    ends = np.append(starts[1:], len(bars)) - 1
    times = bars.timestamp[ends].tolist()
    low, high = _known(np.fmin.reduceat(bars.low, starts)), _known(np.fmax.reduceat(bars.high, starts))
    bound = {"x": times, "mode": "lines", "line_width": 0, "hoverinfo": "skip"}
    traces = [
        go.Scatter(y=high, showlegend=False, **bound),
        go.Scatter(
            y=low, name="lowest to highest", fill="tonexty", fillcolor="rgba(90,140,190,0.35)", legendrank=2, **bound
        ),
        go.Scatter(
            x=times,
            y=_known(bars.close[ends]),
            name="close",
            mode="lines",
            line={"width": 1, "color": "var(--link)"},
            legendrank=1,
            hovertemplate="%{x|%Y-%m-%d %H:%M}  %{y:,.6~g}<extra></extra>",
        ),
        *_marks(one),
    ]
    lows, highs = [price for price in low if price], [price for price in high if price]
    logarithmic = bool(lows and highs) and max(highs) > 8 * min(lows)
    scale = {"type": "log", "nticks": 3} if logarithmic else {"type": "linear"}
    layout = go.Layout(
        xaxis_type="date",
        yaxis={"tickformat": ",.6~g", **scale},
        margin={"l": 56, "r": 8, "t": 8, "b": 30},
        legend={"orientation": "h", "y": -0.12, "yanchor": "top", "x": 0},
    )
    label = f"prices of {name}, with their defects marked"
    return Chart(label=label, data=traces, layout=layout, height=480, narrow={"height": 420}, scale_button=True)


def _marks(one: PartitionQuality) -> Iterator[Any]:
    """Mark each kind of defect at the close of its bar, or of the bar before if there is none."""
    bars, prints = one.diagnosis.bars, one.report["bad_prints"]["list"][:_MARKED]
    for kind, (words, colour, symbol) in MARKS.items():
        times = one.diagnosis.marks.get(kind, np.empty(0, np.int64))
        if not len(times):
            continue
        chosen = times[np.unique(np.linspace(0, len(times) - 1, min(len(times), _MARKED)).astype(np.int64))]
        prices = _known(bars.close[np.clip(np.searchsorted(bars.timestamp, chosen, side="right") - 1, 0, None)])
        if kind == "bad_prints":  # at the wrong price
            chosen = np.array([each["at"].removesuffix("Z") for each in prints], "M8[ms]").astype(np.int64)
            prices = _known(np.array([each["price"] for each in prints]))
        size = 11 if symbol.startswith("line") else 8
        yield go.Scatter(
            x=chosen.tolist(),
            y=prices,
            name=f"{words} ({len(times):,})",
            mode="markers",
            legendrank=10,
            marker={"symbol": symbol, "color": colour, "size": size, "line": {"width": 2, "color": colour}},
            hovertemplate=f"{words} %{{x|%Y-%m-%d %H:%M}}<extra></extra>",
        )


def _known(values: NDArray[np.float64]) -> list[float | None]:
    """Return prices with seven digits, None for those that are missing or not positive."""
    return [float(f"{value:.7g}") if np.isfinite(value) and value > 0 else None for value in values.tolist()]


def _drawn(one: PartitionQuality, most: int) -> str:
    """Return what the chart of prices leaves out."""
    bars, remarks = one.diagnosis.bars, list[str]()
    if len(bars) > most:
        remarks.append(f"{len(bars):,} bars, drawn as {most:,} stretches from their lowest to their highest price.")
    if many := [MARKS[kind][0] for kind, times in one.diagnosis.marks.items() if len(times) > _MARKED]:
        remarks.append(f"Of {', '.join(many)} only {_MARKED} are marked, evenly chosen.")
    if extremes := one.report["extreme_bars"]["count"]:
        remarks.append(f"{counted(extremes, 'bar is', 'bars are')} extreme and real; the largest are marked as such.")
    return " ".join(remarks)


def _defects(report: Mapping[str, Any]) -> list[Html]:
    """Return lists of all defects, folded."""
    zero_volume = report["zero_volume"]
    months = [{**month, "share": _percent(month["share"])} for month in report["coverage"]]
    listed = [
        ("Bad prints", report["bad_prints"], ("at", "kind", ">price", ">expected")),
        ("Extreme bars, which are real", report["extreme_bars"], ("at", "what", ">change", ">times_usual")),
        ("Changes of the level of prices", report["level_changes"], ("at", ">factor", "what")),
        ("Gaps", report["gaps"], ("at", ">missing_bars", "kind")),
        ("Runs without volume", {"count": zero_volume["runs"], "list": zero_volume["list"]}, ("at", ">bars", "kind")),
        ("Rows with a duplicate timestamp", report["duplicates"], ("at", "kind")),
    ]
    for kind in _TIMES_ONLY:
        times = [{"at": at} for at in report[kind]["list"]]
        listed.append((MARKS[kind][0].capitalize(), {"count": report[kind]["count"], "list": times}, ("at",)))
    columns = ("month", ">expected", ">there", ">share")
    listed.append(("Coverage by month", {"count": len(months), "list": months}, columns))
    return [_folded_list(title, found, columns) for title, found, columns in listed if found["count"]]


def _folded_list(title: str, found: Mapping[str, Any], columns: Sequence[str]) -> Html:
    most = 600 if columns[0] == "month" else _LISTED
    rows = [[_cell(one[column.removeprefix(">")]) for column in columns] for one in found["list"][:most]]
    more = note(f"The first {len(rows)} of {found['count']:,}.") if len(rows) < found["count"] else Html()
    table = Table([column.replace("_", " ") for column in columns], rows)
    return folded(Html(f"{title} <b>{found['count']:,}</b>"), table, more)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:,.6g}"
    if not isinstance(value, str):
        return value
    return value.replace("T", " ").removesuffix(":00Z") if value.endswith("Z") else value.replace("_", " ")


def _span(report: Mapping[str, Any]) -> str:
    return f"{short_time(report['first_timestamp'])} to {short_time(report['last_timestamp'])}"


def _grade(score: float) -> str:
    return "good" if score >= 95 else "fair" if score >= 80 else "poor"


def _percent(share: float) -> str:
    """Return a share in percent; an incomplete one is never rounded to 100 %.

    >>> _percent(0.99996), _percent(1.0)
    ('99.99 %', '100 %')
    """
    return "100 %" if share >= 1 else f"{min(100 * share, 99.99):.2f} %"
