"""What was understood of a source of bars, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from bitcorn_ray.report.console import table


def inspection_tables(result: dict[str, Any]) -> tuple[Table | str, ...]:
    """A row a partition, then a row a table with what its columns were taken for, then what is wrong."""
    partitions = table(
        ("partition", "rows", "first (UTC)", "last (UTC)", "table", "times", "symbol by", "timeframe by", "problem"),
        (
            (
                f"{each['symbol']} {each['timeframe']}",
                f"{each['rows']:,}",
                _shown(each["first"]),
                _shown(each["last"]),
                each["table"],
                each["time"],
                each["symbol_from"],
                each["timeframe_from"],
                Text(each["problem"] or "", style="red"),
            )
            for each in result["partitions"]
        ),
        left=(0, 2, 3, 4, 5, 6, 7, 8),
    )
    tables = table(
        ("table", "kind", "columns", "further columns", "ignored"),
        (
            (
                each["name"],
                each["kind"],
                ", ".join(ours if ours == stored else f"{ours}={stored}" for ours, stored in each["columns"].items()),
                ", ".join(each["further"]),
                each["ignored"] or "",
            )
            for each in result["tables"]
        ),
        left=(0, 1, 2, 3, 4),
    )
    return (partitions, tables, *(f"problem: {problem}" for problem in result["problems"]))


def _shown(time: str | None) -> str:
    return "" if time is None else time[:16].replace("T", " ")
