"""Pages that open offline: sections of text, tables and charts in one file, light or dark as the reader's device is.

A chart is what Plotly draws, in plain values. Texts such as ``var(--s1)`` in it are colours of the style sheet, taken
when it is drawn, so that one chart serves light and dark. Charts are drawn when they come near the screen, and all of
them before the page is printed. What is written into a page is escaped, unless it is `Html` already; so are the texts
of charts, in which Plotly takes tags for markup, but for line breaks and the templates of what is told on hovering.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.report.style import SCRIPT, STYLE

SERIES = tuple(f"var(--s{n})" for n in range(1, 7))
_DIGITS = 6


class Html(str):
    """Text that is markup already; all other text is escaped."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A Plotly chart in plain values.

    label: what it shows, for whoever cannot see it. data: traces. layout: beside what all charts have. height: pixels.
    narrow: what the layout has in place of its own on a narrow screen.
    """

    label: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 360
    narrow: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A card of a page: a title, and below it texts and charts."""

    title: str
    parts: Sequence[Html | Chart | str]


def page_of(title: str, sections: Sequence[Section], footer: str = "Times are UTC.") -> str:
    """Return a page of sections."""
    charts, body = dict[str, Any](), list[str]()
    for section in sections:
        parts = [f"<h2>{escape(section.title)}</h2>"]
        for part in section.parts:
            if isinstance(part, Chart):
                key = f"c{len(charts)}"
                charts[key] = {name: _literal(value) for name, value in asdict(part).items() if name != "label"}
                parts.append(f'<div class=figure id={key} role=img aria-label="{escape(part.label)}"></div>')
            else:
                parts.append(part if isinstance(part, Html) else f"<p>{escape(part)}</p>")
        body.append(f"<section>{''.join(parts)}</section>")
    return page(title, "".join(body), {"charts": charts}, footer=footer)


def page(title: str, body: str, data: Mapping[str, Any], script: str = "", footer: str = "") -> str:
    """Return a page. body: markup. data: for the script as `PAGE`, in plain values. script: beside what all have."""
    from plotly.offline import get_plotlyjs

    held = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{body}<footer>{escape(footer)} Written {datetime.now(UTC):%Y-%m-%d %H:%M}.</footer>"
        f"</main><script>{get_plotlyjs()}</script>"
        # A name may hold what would end the script.
        f"<script>const PAGE = {held.replace('<', chr(92) + 'u003c')};{SCRIPT}{script}</script></body></html>"
    )


def html_table(
    names: Sequence[str], rows: Iterable[Sequence[Any]], numeric: Sequence[int] = (), wide: bool = False
) -> Html:
    """Return a table that scrolls by itself. numeric: columns that are set to the right. wide: no cell is broken."""

    def row(tag: str, cells: Sequence[Any]) -> str:
        made = (f"<{tag}{' class=n' if n in numeric else ''}>{_markup(cell)}</{tag}>" for n, cell in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    body, kind = "".join(row("td", cells) for cells in rows), " class=wide" if wide else ""
    return Html(
        f"<div class=scroll tabindex=0 role=group aria-label='table'><table{kind}>"
        f"<thead>{row('th', names)}</thead><tbody>{body}</tbody></table></div>"
    )


def facts(values: Mapping[str, Any]) -> Html:
    """Names and what they are, side by side where there is room."""
    return Html(
        "<dl>" + "".join(f"<div><dt>{escape(k)}</dt><dd>{_markup(v)}</dd></div>" for k, v in values.items()) + "</dl>"
    )


def listed(items: Iterable[Any], kind: str = "") -> Html:
    """Return a list. kind: a class of the style sheet."""
    return Html(f"<ul{f' class={kind}' if kind else ''}>{''.join(f'<li>{_markup(item)}</li>' for item in items)}</ul>")


def note(text: str) -> Html:
    """Return a remark in small print."""
    return Html(f"<p class=note>{escape(text)}</p>")


def folded(title: str, *parts: str) -> Html:
    """Fold parts away under a title."""
    return Html(f"<details><summary>{_markup(title)}</summary>{''.join(map(_markup, parts))}</details>")


def json_text(values: Mapping[str, Any]) -> Html:
    """Values as indented JSON."""
    return Html(f"<pre tabindex=0>{escape(json.dumps(values, indent=1, ensure_ascii=False))}</pre>")


def plain(values: Iterable[Any]) -> list[float | None]:
    """Numbers to draw, with six digits; None for what is missing or infinite, where a line has a gap."""
    return [float(f"{value:.{_DIGITS}g}") if value is not None and np.isfinite(value) else None for value in values]


def stretches(rows: int, most: int) -> NDArray[np.int64]:
    """First rows of at most ``most`` stretches, about equally long, of so many rows.

    >>> stretches(5, 2).tolist(), stretches(2, 9).tolist()
    ([0, 2], [0, 1])
    """
    return np.unique(np.linspace(0, rows, min(rows, most), endpoint=False).astype(np.int64))


def _literal(value: Any, name: str = "") -> Any:
    """The same with all texts as text. name: under which it stands."""
    if isinstance(value, Mapping):
        return {key: _literal(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return value if value and isinstance(value[-1], int | float) else [_literal(each, name) for each in value]
    if not isinstance(value, str) or name == "hovertemplate":
        return value
    return escape(value, quote=False).replace("&lt;br&gt;", "<br>")


def _markup(value: Any) -> str:
    return value if isinstance(value, Html) else escape(str(value))
