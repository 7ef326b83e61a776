"""The quality of bars as one page that opens offline.

Score and reasons, a calendar of coverage, prices with what is wrong with them, and the places one by one; light or dark
as the reader's device is, and readable on a phone.

Prices are drawn as at most some thousand stretches, each from its lowest to its highest price, and the page says so;
what is marked stands where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.report.console import counted
from bitcorn_ray.report.page import Html, facts, folded, html_table, note, page, stretches
from bitcorn_ray.report.quality_style import MARKS, SCRIPT
from bitcorn_ray.storage.storage import publish_file

_DRAWN, _STRETCHES, _LEAST_STRETCHES = 12, 4_000, 700
_MARKED, _LISTED = 300, 100


@dataclass(frozen=True, kw_only=True)
class QualityPanel:
    """One partition: T bars, D days.

    source: where it is from. report: as `Diagnosis.report`. times: (T,) ms UTC; low, high, close: (T,). marks: times of
    what is wrong, by kind. first_day: days since 1970. expected, there: (D,) bars of each day.
    """

    name: str
    source: str
    report: Mapping[str, Any]
    times: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    close: NDArray[np.float64]
    marks: Mapping[str, NDArray[np.int64]]
    first_day: int
    expected: NDArray[np.int64]
    there: NDArray[np.int64]


def write_quality(panels: Sequence[QualityPanel], path: str | Path) -> None:
    """Write the page, whole or not at all. Raises BitcornError where it cannot be written."""
    publish_file(path, "quality page", quality_page(panels))


def lightened(panels: Sequence[QualityPanel]) -> list[QualityPanel]:
    """Sort panels, the worst first, and take the bars away from those that are too many to be drawn."""
    ranked = sorted(panels, key=lambda panel: float(panel.report["score"]))
    none, nothing = np.zeros(0, np.int64), np.zeros(0)
    empty: dict[str, Any] = {"times": none, "low": nothing, "high": nothing, "close": nothing, "marks": {}}
    return ranked[:_DRAWN] + [replace(panel, **empty, expected=none, there=none) for panel in ranked[_DRAWN:]]


def quality_page(panels: Sequence[QualityPanel]) -> str:
    """Return the page. Of many partitions the worst are drawn, and all are in its table."""
    ranked = lightened(panels)
    drawn = ranked[:_DRAWN]
    most = max(_LEAST_STRETCHES, _STRETCHES // max(len(drawn), 1))
    figures = {f"p{n}": _figure(panel, most) for n, panel in enumerate(drawn)}
    sections = "".join(_section(f"p{n}", panel, most) for n, panel in enumerate(drawn))
    title = f"Quality of {panels[0].name}" if len(panels) == 1 else f"Quality of {len(panels)} partitions"
    overview = _overview(ranked) if len(panels) > 1 else ""
    footer = "Times are UTC. Nothing was changed: what is to be repaired is for a cleaning policy to say."
    return page(title, overview + sections, {"figures": figures, "marks": MARKS}, SCRIPT, footer)


def _overview(ranked: Sequence[QualityPanel]) -> str:
    rows = []
    for n, panel in enumerate(ranked):
        report = panel.report
        reasons = "; ".join(reason["text"] for reason in report["reasons"][:3]) or "nothing is wrong"
        link = Html(f'<a href="#p{n}">{escape(panel.name)}</a>') if n < _DRAWN else panel.name
        rows.append([link, _score(report["score"]), f"{report['bars']:,}", _span(report), reasons])
    table = html_table(["partition", "score", "bars", "from, to", "most of all"], rows, numeric=(1, 2))
    remark = note(f"The {_DRAWN} worst are drawn below.") if len(ranked) > _DRAWN else ""
    return f"<section class=overview>{table}{remark}</section>"


def _section(key: str, panel: QualityPanel, most: int) -> str:
    report = panel.report
    share = report["bars"] / max(report["expected_bars"], 1)
    told = {
        "bars": f"{report['bars']:,} of {report['expected_bars']:,} ({_percent(share)})",
        "rows as stored": f"{report['rows']:,}, {report['order']['stored']}",
        "from, to": _span(report),
        "source": panel.source,
    }
    score, name = report["score"], escape(panel.name)
    return (
        f"<section id={key}><header><div class='score {_grade(score)}'>{score:g}<small>of 100</small></div><div>"
        f"<h2>{name}</h2>{facts(told)}</div></header>"
        f"{_reasons(report)}"
        f"<h3>Coverage, day by day</h3><div class=legend>{_legend()}</div>"
        f'<div class=figure id={key}-days role=img aria-label="calendar of the coverage of {name}"></div>'
        f"<h3>Price, and what is wrong with it</h3><div class=bar>"
        f"{note(_told(panel, most))}<button data-of={key}>logarithmic scale</button></div>"
        f'<div class=figure id={key}-price role=img aria-label="prices of {name}, with what is wrong marked"></div>'
        f"{_places(report)}</section>"
    )


def _reasons(report: Mapping[str, Any]) -> str:
    if not report["reasons"]:
        return "<p>Nothing is wrong with these bars.</p>"
    rows = [[each["text"], f"{each['cost']:.1f}"] for each in report["reasons"]]
    return html_table(["why not 100", "points"], rows, numeric=(1,))


def _told(panel: QualityPanel, most: int) -> str:
    told = ""
    if len(panel.times) > most:
        told = f"{len(panel.times):,} bars, drawn as {most:,} stretches from their lowest to their highest price. "
    many = [MARKS[kind][0] for kind, times in panel.marks.items() if kind in MARKS and len(times) > _MARKED]
    if many:
        told += f"Of {', '.join(many)} only {_MARKED} are marked, evenly chosen. "
    extremes = panel.report["extreme_bars"]["count"]
    if not extremes:
        return told
    return f"{told}{counted(extremes, 'bar is', 'bars are')} extreme and real; the largest are marked as such."


def _legend() -> str:
    steps = ("none", "under half", "half or more", "90 % or more", "all")
    return "".join(f"<span><i class=c{n}></i>{text}</span>" for n, text in enumerate(steps))


def _places(report: Mapping[str, Any]) -> str:
    """The places of what is wrong, one by one, folded away."""
    gaps, zero, same = report["gaps"], report["zero_volume"], report["duplicates"]
    parts = [
        _details("Bad prints", report["bad_prints"], ("at", "kind", "price", "expected")),
        _details("Extreme bars, which are real", report["extreme_bars"], ("at", "what", "change", "times_usual")),
        _details("Gaps", gaps, ("at", "missing_bars", "kind")),
        _details("Runs without volume", {"count": zero["runs"], "list": zero["list"]}, ("at", "bars", "kind")),
        _details("Rows of a time that stands twice", same, ("at", "kind")),
    ]
    for kind in (
        "missing_values",
        "non_positive_prices",
        "negative_volume",
        "ohlc_violations",
        "off_grid",
        "stale_bars",
    ):
        places = {"count": report[kind]["count"], "list": [{"at": at} for at in report[kind]["list"]]}
        parts.append(_details(MARKS[kind][0].capitalize(), places, ("at",)))
    months = [{**each, "share": _percent(each["share"])} for each in report["coverage"]]
    parts.append(
        _details(
            "Coverage by month", {"count": len(months), "list": months}, ("month", "expected", "there", "share"), 600
        )
    )
    return "".join(parts)


def _details(title: str, places: Mapping[str, Any], columns: Sequence[str], most: int = _LISTED) -> str:
    if not places["count"]:
        return ""
    rows = [[_cell(place[column]) for column in columns] for place in places["list"][:most]]
    more = note(f"The first {len(rows)} of {places['count']:,}.") if len(rows) < places["count"] else Html()
    names = [column.replace("_", " ") for column in columns]
    numeric = tuple(n for n, column in enumerate(columns) if column not in ("at", "kind", "what", "month"))
    return folded(Html(f"{title} <b>{places['count']:,}</b>"), html_table(names, rows, numeric), more)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}"
    text = f"{value:,}" if isinstance(value, int) else str(value).replace("_", " ")
    return text.replace("T", " ").removesuffix(":00Z") if text.endswith("Z") else text


def _figure(panel: QualityPanel, most: int) -> dict[str, Any]:
    """Everything that the script draws for one partition, in plain lists."""
    return {"days": _calendar(panel), "price": _price(panel, most), "marks": _marks(panel)}


def _calendar(panel: QualityPanel) -> dict[str, Any]:
    """A row of cells for each weekday of each year, a column for each week.

    level: 0 nothing is there, 1 less than half, 2 less than 90 %, 3 not all, 4 all; None where no bar is expected.
    """
    if not len(panel.expected):
        return {"years": [], "level": [], "text": []}
    days = np.arange(panel.first_day, panel.first_day + len(panel.expected)).view("M8[D]")
    years = days.astype("M8[Y]").astype(int) + 1970
    of_year = (days - days.astype("M8[Y]").astype("M8[D]")).astype(int)
    # 1970 began on a Thursday, and weeks begin on Monday.
    weekday = (days.astype(int) + 3) % 7
    first = (weekday - of_year) % 7
    week = (of_year + first) // 7
    share = panel.there / np.maximum(panel.expected, 1)
    level = np.digitize(share, (1e-9, 0.5, 0.9, 1.0))
    shown = list(range(int(years[0]), int(years[-1]) + 1))
    cells: list[list[int | None]] = [[None] * 54 for _ in range(8 * len(shown))]
    texts: list[list[str]] = [[""] * 54 for _ in range(8 * len(shown))]
    rows = 8 * (years - shown[0]) + weekday
    numbers = (panel.there.tolist(), panel.expected.tolist())
    for row, at, step, day, there, expected in zip(
        rows.tolist(), week.tolist(), level.tolist(), days.astype(str).tolist(), *numbers, strict=True
    ):
        if expected:
            cells[row][at] = step
            texts[row][at] = f"{day}: {there:,} of {expected:,}"
    return {"years": shown, "level": cells, "text": texts}


def _price(panel: QualityPanel, most: int) -> dict[str, Any]:
    """Lowest, highest and last price of stretches of bars, equally many in each; None where nothing is known."""
    rows = len(panel.times)
    if rows == 0:
        return {"time": [], "low": [], "high": [], "close": []}
    starts = stretches(rows, most)
    ends = np.append(starts[1:], rows) - 1
    return {
        "time": panel.times[ends].tolist(),
        "low": _plain(np.fmin.reduceat(panel.low, starts)),
        "high": _plain(np.fmax.reduceat(panel.high, starts)),
        "close": _plain(panel.close[ends]),
    }


def _marks(panel: QualityPanel) -> dict[str, Any]:
    """Where each kind is marked: at the close of its bar, or of the bar before where there is none."""
    marks = dict[str, dict[str, Any]]()
    for kind, times in panel.marks.items():
        if kind not in MARKS or len(times) == 0 or len(panel.times) == 0:
            continue
        chosen = times[np.unique(np.linspace(0, len(times) - 1, min(len(times), _MARKED)).astype(np.int64))]
        rows = np.clip(np.searchsorted(panel.times, chosen, side="right") - 1, 0, None)
        marks[kind] = {"time": chosen.tolist(), "price": _plain(panel.close[rows]), "count": len(times)}
    if "bad_prints" in marks:  # at the wrong price, which is what is to be seen
        wrong = panel.report["bad_prints"]["list"][:_MARKED]
        at = [int(np.datetime64(each["at"].removesuffix("Z"), "ms").astype(np.int64)) for each in wrong]
        prices = _plain(np.array([each["price"] for each in wrong]))
        marks["bad_prints"] |= {"time": at, "price": prices}
    return marks


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [float(f"{value:.7g}") if np.isfinite(value) and value > 0 else None for value in values.tolist()]


def _span(report: Mapping[str, Any]) -> str:
    return " to ".join(str(report[name])[:16].replace("T", " ") for name in ("first_timestamp", "last_timestamp"))


def _score(score: float) -> Html:
    return Html(f"<span class='dot {_grade(score)}'></span>{score:g}")


def _grade(score: float) -> str:
    return "good" if score >= 95 else "fair" if score >= 80 else "poor"


def _percent(share: float) -> str:
    """A share that is not quite all is never shown as all.

    >>> _percent(0.99996), _percent(1.0)
    ('99.99 %', '100 %')
    """
    return "100 %" if share >= 1 else f"{min(100 * share, 99.99):.2f} %"
