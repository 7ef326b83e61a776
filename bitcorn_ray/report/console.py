"""Results and progress on a terminal: tables or JSON on standard output, a progress bar on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def show(result: dict[str, Any], shown: Callable[[], Any], as_json: bool, title: str | None = None) -> None:
    """Print a result as JSON, or what `shown` makes of it: a table, a text, or several of these."""
    if as_json:
        print(json.dumps(result, indent=1, allow_nan=False))
        return
    # A pipe or a file has no width of its own: 80 columns would fold the tables.
    console = Console(width=None if sys.stdout.isatty() else 160)
    made = shown()
    for item in [title, *(made if isinstance(made, tuple) else (made,))]:
        if item is not None:
            console.print(printable(item) if isinstance(item, str) else item, highlight=False, markup=False)


def printable(text: str) -> str:
    r"""A text in which control characters are written out: names from files could steer the terminal by them.

    >>> printable("\x1b[31mred\nnext")
    '\\x1b[31mred\nnext'
    """
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text
    )


def plain_rows(rows: Sequence[dict[Any, Any]]) -> list[dict[str, Any]]:
    """Rows with times as text, and None for a bound that is infinite: JSON has neither."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value.strftime("%Y-%m-%dT%H:%M:%SZ") if hasattr(value, "strftime") else value

    return [{str(name): plain(value) for name, value in row.items()} for row in rows]


@contextmanager
def progress(what: str, total: int, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show a bar for the length of a block; the given function advances it by one and shows its argument."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total, last="")
        yield lambda last: bar.update(task, advance=1, last=printable(last))


def features_table(statuses: Sequence[dict[str, Any]]) -> Table:
    """A row a partition: rows, hit or computed, seconds, what is wrong with the bars."""

    def outcome(status: dict[str, Any]) -> str | Text:
        if status["error"]:
            return Text("failed", style="red")
        if status["unread"]:
            return "unchanged"
        return "hit" if status["hit"] else f"computed {status['computed']} of {status['chunks']}"

    return table(
        ("partition", "rows", "cache", "seconds", "bars"),
        (
            (
                f"{s['symbol']} {s['timeframe']}",
                f"{s['rows']:,}",
                outcome(s),
                f"{s['seconds']:.2f}",
                s["flags"] or ("" if s["error"] else "clean"),
            )
            for s in statuses
        ),
        left=(0, 2, 4),
    )


def audit_tables(rows: Sequence[dict[str, Any]]) -> tuple[Table | str, ...]:
    """A row a partition, with the largest value of any feature, then a row a finding."""

    def outcome(row: dict[str, Any]) -> Text:
        if row["error"]:
            return Text("not audited", style="red")
        count = len(row["report"]["findings"])
        return Text(f"{count} findings", style="red") if count else Text("passed", style="green")

    def largest(report: dict[str, Any]) -> str:
        sizes = {name: each["largest"] for name, each in report["profile"].items() if each["largest"] is not None}
        name = max(sizes, key=lambda name: sizes[name], default="")
        return f"{sizes[name]:.4g} ({name})" if name else ""

    def facts(report: dict[str, Any] | None) -> tuple[str, ...]:
        if report is None:
            return ("",) * 4
        return f"{report['rows']:,}", str(len(report["features"])), f"{report['cuts']:,}", largest(report)

    audited = [row for row in rows if row["report"]]
    summary = table(
        ("partition", "rows", "features", "cuts", "largest value", "seconds", "outcome"),
        (
            (f"{row['symbol']} {row['timeframe']}", *facts(row["report"]), f"{row['seconds']:.1f}", outcome(row))
            for row in rows
        ),
        left=(0, 4, 6),
    )
    findings = [(row, finding) for row in audited for finding in row["report"]["findings"]]
    if not findings:
        return (summary,)
    listed = table(
        ("partition", "feature", "what", "bar", "size", "cuts", "detail"),
        (
            (
                f"{row['symbol']} {row['timeframe']}",
                finding["feature"],
                finding["kind"],
                finding["at"],
                f"{finding['size']:.3g}",
                f"{finding['cuts']:,}",
                finding["detail"],
            )
            for row, finding in findings
        ),
        left=(0, 1, 2, 3, 6),
    )
    return summary, listed


def explain_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row a partition: hit or miss, chunks to compute, why."""
    colours = {"hit": "green", "miss": "yellow", "failure": "red"}
    return table(
        ("partition", "outcome", "to compute", "why"),
        (
            (
                f"{row['symbol']} {row['timeframe']}",
                Text(row["outcome"], style=colours[row["outcome"]]),
                f"{row['to_compute']} of {row['chunks']}" if row["chunks"] else "",
                "; ".join(row["causes"]),
            )
            for row in rows
        ),
        left=(0, 1, 3),
    )


def forecast_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row a horizon: time, return, volatility, price and bands."""
    return table(
        ("horizon", "time (UTC)", "return", "volatility", "price", "80 % band", "95 % band"),
        (
            (
                str(row["horizon"]),
                short_time(row["time"]),
                f"{row['return']:+.3%}",
                f"{row['volatility']:.3%}",
                price(row["price"]),
                f"{price(row['lo80'])} – {price(row['hi80'])}",
                f"{price(row['lo95'])} – {price(row['hi95'])}",
            )
            for row in rows
        ),
        left=(1,),
    )


def cache_table(entries: Sequence[dict[str, Any]]) -> Table:
    """A row a cache entry."""

    def users(entry: dict[str, Any]) -> str:
        return ", ".join(sorted({f"{u['symbol'] or '?'} {u['timeframe'] or '?'}" for u in entry["used_by"]})) or "-"

    return table(
        ("key", "system", "rows", "first", "last", "size", "partitions", "hits", "last used"),
        (
            (
                entry["key"][:12],
                entry["system"],
                f"{entry['rows']:,}",
                short_time(entry["first_timestamp"]),
                short_time(entry["last_timestamp"]),
                size(entry["bytes"]),
                users(entry),
                f"{entry['hits']:,}",
                short_time(entry["last_used"]),
            )
            for entry in entries
        ),
        left=(0, 1, 3, 4, 6, 8),
    )


def price(value: float | None) -> str:
    """Six significant digits, whatever the coin costs; None is a bound that there is not.

    >>> price(63747.612929), price(0.0000123456789), price(None)
    ('63747.6', '0.0000123457', '∞')
    """
    if value is None:
        return "∞"
    text = f"{value:.6g}"
    return f"{value:.{int(text.split('e-')[1]) + 5}f}" if "e-" in text else text


def short_time(time: str | None) -> str:
    """Time to the minute, as tables show it, in UTC.

    >>> short_time("2026-06-20T10:00:00Z")
    '2026-06-20 10:00'
    """
    return "-" if time is None else time[:16].replace("T", " ")


def ahead(horizon: int) -> str:
    """Say a horizon in words.

    >>> ahead(1), ahead(4)
    ('1 bar ahead', '4 bars ahead')
    """
    return f"{counted(horizon, 'bar', 'bars')} ahead"


def counted(count: int, one: str, many: str) -> str:
    """A number with its noun.

    >>> counted(1, "entry", "entries")
    '1 entry'
    """
    return f"{count:,} {one if count == 1 else many}"


def size(count: int) -> str:
    """Bytes as people read them.

    >>> size(4_483_948)
    '4.5 MB'
    """
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def table(names: Sequence[str], rows: Iterable[Sequence[str | Text]], left: Sequence[int]) -> Table:
    """A plain table. left: the columns that are aligned at the left."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(names):
        made.add_column(name, justify="left" if place in left else "right", overflow="fold")
    for row in rows:
        # As text: a symbol or a file name may hold what rich would take for markup.
        made.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return made
