"""What a check of an installation found, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def checks_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line a check, and below it what to do about it. rows: name, state, found and remedy of each."""
    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        found = Text(row["found"])
        if row["remedy"]:
            found.append(f"\n→ {row['remedy']}", style="italic")
        made.add_row(Text(row["state"], style=_STYLES[row["state"]]), Text(row["name"]), found)
    return made
