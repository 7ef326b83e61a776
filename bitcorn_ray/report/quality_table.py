"""The quality of bars on a terminal: a row a partition, and what is wrong with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from bitcorn_ray.report.console import short_time, table

_PLACES = 3


def quality_tables(rows: Sequence[dict[str, Any]]) -> tuple[Table | str, ...]:
    """Tables of reports as `Diagnosis.report`, with `symbol` and `timeframe`; of one partition, also the places."""
    return (_scores(rows), _reasons(rows)) if any(row["reasons"] for row in rows) else (_scores(rows),)


def _scores(rows: Sequence[dict[str, Any]]) -> Table:
    def score(row: dict[str, Any]) -> Text:
        style = "green" if row["score"] >= 95 else "yellow" if row["score"] >= 80 else "red"
        return Text(f"{row['score']:.1f}", style=style)

    return table(
        ("partition", "score", "rows", "bars", "expected", "from", "to", "last bar"),
        (
            (
                f"{row['symbol']} {row['timeframe']}",
                score(row),
                *(f"{row[name]:,}" for name in ("rows", "bars", "expected_bars")),
                short_time(row["first_timestamp"]),
                short_time(row["last_timestamp"]),
                {"no": "finished", "suspected": "unfinished?", "certain": "unfinished"}[row["last_bar"]["unfinished"]],
            )
            for row in rows
        ),
        left=(0, 5, 6, 7),
    )


def _reasons(rows: Sequence[dict[str, Any]]) -> Table:
    return table(
        ("partition", "points", "what is wrong", "first at"),
        (
            (
                f"{row['symbol']} {row['timeframe']}",
                f"-{reason['cost']:.1f}",
                reason["text"],
                ", ".join(short_time(at) for at in _first(row, reason["kind"])),
            )
            for row in rows
            for reason in row["reasons"]
        ),
        left=(0, 2, 3),
    )


def _first(row: dict[str, Any], kind: str) -> list[str]:
    """Return the first places of a kind, where it has any."""
    chosen = {
        "duplicates_different": [each for each in row["duplicates"]["list"] if each["kind"] != "equal"],
        "duplicates_equal": [each for each in row["duplicates"]["list"] if each["kind"] == "equal"],
        "outage_bars": [each for each in row["gaps"]["list"] if each["kind"] == "outage"],
        "invented_bars": [each for each in row["zero_volume"]["list"] if each["kind"] == "outage"],
        "no_trade_bars": [each for each in row["gaps"]["list"] if each["kind"] != "outage"],
        "unfinished_last_bar": [row["last_bar"]],
    }
    places = chosen.get(kind) or (row[kind]["list"] if isinstance(row.get(kind), dict) else [])
    return [place if isinstance(place, str) else place["at"] for place in places[:_PLACES]]
