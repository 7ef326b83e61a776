"""Bars on their way between files, databases, exchanges and stores: a running count, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bitcorn_ray.report.console import printable, short_time, size, table


@contextmanager
def counter(what: str, quiet: bool = False) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """Show a running number for the length of a block; gives (a function that adds to it, one that shows a text)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} {task.description}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None, last="")
        yield lambda count: bar.advance(task, count), lambda text: bar.update(task, last=printable(text))


def partition_rows(results: Sequence[Any]) -> list[dict[str, Any]]:
    """Results that are dataclasses with a `partition`, as flat rows that start with its symbol and timeframe."""
    return [
        {"symbol": result.partition.symbol, "timeframe": result.partition.timeframe}
        | {each.name: getattr(result, each.name) for each in fields(result) if each.name != "partition"}
        for result in results
    ]


def ingest_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What became of each file's rows, and why some were rejected."""
    counts = ("rows", "inserted", "updated", "unchanged")
    return table(
        ("partition", *counts, "rejected", "file", "why rejected"),
        (
            (
                f"{row['symbol']} {row['timeframe']}" if row["symbol"] else "-",
                *(f"{row[name]:,}" for name in counts),
                f"{sum(row['rejected'].values()):,}",
                row["source"].rpartition("/")[2],
                "; ".join(f"{count:,} {reason}" for reason, count in row["rejected"].items()),
            )
            for row in rows
        ),
        left=(0, 6, 7),
    )


def download_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What became of each downloaded partition."""
    counts = ("rows", "inserted", "updated")
    return table(
        ("partition", *counts, "last bar (UTC)"),
        (
            (
                f"{row['symbol']} {row['timeframe']}",
                *(f"{row[name]:,}" for name in counts),
                short_time(row["last_timestamp"]),
            )
            for row in rows
        ),
        left=(0, 4),
    )


def export_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row a written partition."""
    return table(
        ("partition", "bars", "size", "file"),
        ((f"{row['symbol']} {row['timeframe']}", f"{row['rows']:,}", size(row["bytes"]), row["file"]) for row in rows),
        left=(0, 3),
    )
