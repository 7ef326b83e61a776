"""Results on standard output, and progress on standard error."""

from __future__ import annotations

import codecs
import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable
from rich.text import Text

from bitcorn_ray.report.table import printable

if TYPE_CHECKING:
    from bitcorn_ray.on_ray.doctor import Check

_LAST = TextColumn("{task.fields[last]}", markup=False)
_HANDLER = "bitcorn"
_ALIKE = {"∞": "inf", "–": "-", "—": "-", "…": "...", "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "→": "->"}
_ALIKE |= {"\u00a0": " "}
_ALIKE |= dict.fromkeys("─━╸╺", "-") | dict.fromkeys("‘’", "'") | dict.fromkeys("“”", '"')
_CHECKS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def make_printable(*streams: TextIO) -> None:
    """Let streams print every character: one that their encoding lacks as a word or sign like it, else as "?"."""

    def alike(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        missing = error.object[error.start : error.end]
        return "".join(_ALIKE.get(letter, "?") for letter in missing), error.end

    codecs.register_error(_HANDLER, alike)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def show(shown: Any, title: str | None = None) -> None:
    """Print a table, a text, or a tuple of these and None on standard output, below a title."""
    # A pipe or a file has no width of its own: 80 columns would fold the tables.
    console = Console(width=None if sys.stdout.isatty() else 160)
    for item in [title, *(shown if isinstance(shown, tuple) else (shown,))]:
        if item is not None:
            console.print(printable(item) if isinstance(item, str) else item, highlight=False, markup=False)


def plain_rows(rows: Sequence[dict[Any, Any]]) -> list[dict[str, Any]]:
    """Return rows that JSON can hold: times as text, None for an infinite bound."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value.strftime("%Y-%m-%dT%H:%M:%SZ") if hasattr(value, "strftime") else value

    return [{str(name): plain(value) for name, value in row.items()} for row in rows]


@contextmanager
def progress(what: str, total: int, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show a progress bar for the duration of a block; the yielded function advances it and shows its argument."""
    left = (TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *left, _LAST)
    with _progress(columns, quiet) as bar:
        task = bar.add_task(what, total=total, last="")
        yield lambda last: bar.update(task, advance=1, last=printable(last))


@contextmanager
def counter(what: str, quiet: bool = False) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """Show a running count for the duration of a block; yields a function that adds to it and one that shows a text."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} {task.description}"), TimeElapsedColumn(), _LAST)
    with _progress(columns, quiet) as bar:
        task = bar.add_task(what, total=None, last="")
        yield lambda count: bar.advance(task, count), lambda text: bar.update(task, last=printable(text))


Advance = Callable[[int, float, float, float], None]
Finish = Callable[[int, float], None]


@contextmanager
def training_progress(
    epochs: int, quiet: bool = False, console: Console | None = None
) -> Iterator[tuple[Advance, Finish]]:
    """Show one progress bar over all epochs of a training for the duration of a block.

    Yields two functions. The first takes the epoch (from 1), the completed share of it, its mean loss and the windows
    per second. The second takes a finished epoch and its validation loss.
    """
    left = (TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    with _progress((*columns, TimeElapsedColumn(), *left, _LAST), quiet, console) as bar:
        task = bar.add_task("training", total=epochs, epoch=f"1/{epochs}", last="")

        def advance(epoch: int, share: float, loss: float, samples_per_second: float) -> None:
            last = f"loss {loss:.4f}, {samples_per_second:,.0f} samples/s"
            bar.update(task, completed=epoch - 1 + min(share, 1.0), epoch=f"{epoch}/{epochs}", last=last)

        def finish(epoch: int, val_loss: float) -> None:
            bar.update(task, completed=epoch, last=f"validation loss {val_loss:.4f}")

        yield advance, finish


def _progress(columns: Sequence[ProgressColumn], quiet: bool, console: Console | None = None) -> Progress:
    console = console or Console(stderr=True)
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)


def checks_table(checks: Sequence[Check]) -> RichTable:
    """Return a line per check of an installation, with the remedy below it."""
    made = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    for check in checks:
        found = Text(check.found)
        if check.remedy:
            found.append(f"\n→ {check.remedy}", style="italic")
        made.add_row(Text(check.state, style=_CHECKS[check.state]), Text(check.name), found)
    return made
