"""Pages that open offline: sections of texts, tables and charts in one file, light or dark as the reader's device is.

A chart is made of Plotly objects. Texts such as ``var(--s1)`` in it are colours of the style sheet, resolved when it is
drawn, so that one chart serves light and dark. Charts are drawn when they come near the screen, and all of them before
the page is printed. All texts are escaped unless they are `Html`. So are the texts of charts, in which Plotly reads
tags as markup, except for line breaks and hover templates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from bitcorn_ray.report.style import SCRIPT, STYLE
from bitcorn_ray.report.table import Facts, Html, Table, markup

SERIES = tuple(f"var(--s{n})" for n in range(1, 7))
INK, SOFT = "var(--ink)", "var(--soft)"
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A Plotly chart.

    label: a description for readers who cannot see it. data: traces. layout: what differs from the common layout.
    height: in pixels. narrow: what replaces parts of the layout on a narrow screen. scale_button: add a button that
    switches the y axis between linear and logarithmic.
    """

    label: str
    data: Sequence[Any]
    layout: Any = field(default_factory=go.Layout)
    height: int = 360
    narrow: Mapping[str, Any] = field(default_factory=dict)
    scale_button: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with all texts escaped."""
        traces, layout = [trace.to_plotly_json() for trace in self.data], self.layout.to_plotly_json()
        values: dict[str, Any] = {"data": traces, "layout": layout, "height": self.height, "narrow": self.narrow}
        return {name: _escaped(value) for name, value in values.items()}


Part = Html | Chart | Table | Facts | str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A card of a page: a title with parts below it.

    id: for links to it. badge: stands left of the title and the first part.
    """

    title: str
    parts: Sequence[Part]
    id: str = ""
    badge: Html | None = None


def page_of(title: str, sections: Sequence[Section], footer: str = "Times are UTC.") -> str:
    """Return a page of sections."""
    from plotly.offline import get_plotlyjs

    charts = dict[str, Chart]()
    body = "".join(_section(section, charts) for section in sections)
    data = json.dumps(
        {"charts": {key: chart.to_json() for key, chart in charts.items()}}, allow_nan=False, separators=(",", ":")
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{body}<footer>{escape(footer)} Written {datetime.now(UTC):%Y-%m-%d %H:%M}.</footer>"
        f"</main><script>{get_plotlyjs()}</script>"
        # Escape "<", because a name may contain the end tag of a script.
        f"<script>const PAGE = {data.replace('<', chr(92) + 'u003c')};{SCRIPT}</script></body></html>"
    )


def _section(section: Section, charts: dict[str, Chart]) -> str:
    """Return the markup of a section, and add its charts to `charts`."""
    parts = list[str]()
    for part in section.parts:
        if isinstance(part, Chart):
            key = f"c{len(charts)}"
            charts[key] = part
            if part.scale_button:
                other = "linear" if part.layout.yaxis.type == "log" else "logarithmic"
                parts.append(f"<button data-of={key}>{other} scale</button>")
            parts.append(f'<div class=figure id={key} role=img aria-label="{escape(part.label)}"></div>')
        else:
            parts.append(
                f"<p>{escape(part)}</p>" if isinstance(part, str) and not isinstance(part, Html) else markup(part)
            )
    title = f"<h2>{escape(section.title)}</h2>"
    if section.badge is not None:
        title = f"<header>{section.badge}<div>{title}{parts.pop(0)}</div></header>"
    return f"<section{f' id={section.id}' if section.id else ''}>{title}{''.join(parts)}</section>"


def heading(text: str) -> Html:
    """Return a heading inside a section."""
    return Html(f"<h3>{escape(text)}</h3>")


def listed(items: Iterable[Any], kind: str = "") -> Html:
    """Return a list. kind: a class of the style sheet."""
    return Html(f"<ul{f' class={kind}' if kind else ''}>{''.join(f'<li>{markup(item)}</li>' for item in items)}</ul>")


def note(text: str) -> Html:
    """Return a remark in small print."""
    return Html(f"<p class=note>{escape(text)}</p>")


def folded(title: str, *parts: Any) -> Html:
    """Return parts that are hidden until the reader opens their title."""
    return Html(f"<details><summary>{markup(title)}</summary>{''.join(map(markup, parts))}</details>")


def json_text(values: Mapping[str, Any]) -> Html:
    """Return values as indented JSON."""
    return Html(f"<pre tabindex=0>{escape(json.dumps(values, indent=1, ensure_ascii=False))}</pre>")


def bar_chart(label: str, names: Sequence[str], values: Iterable[float], title: str, **axis: Any) -> Chart:
    """Return a chart of horizontal bars, the first at the bottom. title: of the axis of values; axis: its options."""
    bars = go.Bar(orientation="h", y=list(names), x=plain(values), marker_color=SERIES[0])
    layout = go.Layout(xaxis={"title_text": title, **axis}, yaxis_type="category", showlegend=False)
    return Chart(label=label, data=[bars], layout=layout, height=110 + 28 * len(names))


def plain(values: Iterable[Any]) -> list[float | None]:
    """Return numbers with six digits; None, a gap in a line, for values that are missing or infinite."""
    return [float(f"{value:.{_DIGITS}g}") if value is not None and np.isfinite(value) else None for value in values]


def stretches(rows: int, most: int) -> NDArray[np.int64]:
    """Return the first rows of at most ``most`` stretches of about equal length.

    >>> stretches(5, 2).tolist(), stretches(2, 9).tolist()
    ([0, 2], [0, 1])
    """
    return np.unique(np.linspace(0, rows, min(rows, most), endpoint=False).astype(np.int64))


def _escaped(value: Any, name: str = "") -> Any:
    """Return a value with all texts escaped. name: its key."""
    if isinstance(value, Mapping):
        return {key: _escaped(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return value if value and isinstance(value[-1], int | float) else [_escaped(item, name) for item in value]
    if not isinstance(value, str) or name == "hovertemplate":
        return value
    return escape(value, quote=False).replace("&lt;br&gt;", "<br>")
