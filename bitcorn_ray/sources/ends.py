"""How many rows each partition of a table has, and its smallest and largest time: in one pass over the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitcorn_ray.sources.connection import Connection
from bitcorn_ray.sources.held import StoredPartition
from bitcorn_ray.sources.tables import BarTable

_AT_ONCE = 200
_Place = tuple[str, tuple[Any, ...]]  # a table, and the values of its keys


@dataclass(frozen=True)
class Ends:
    """Rows of a partition, its smallest and largest time where these are numbers, and how many rows have no time."""

    rows: int
    smallest: int | float | None
    largest: int | float | None
    untimed: int = 0


def ends_of(database: Connection, held: Iterable[StoredPartition]) -> list[Ends]:
    """Return the ends of each partition; a table is gone through once, and those of one partition several at once."""
    held, ends = list(held), dict[_Place, Ends]()
    for table, keys in {each.table.name: (each.table, tuple(each.keys)) for each in held if each.keys}.values():
        ends |= _of_keys(database, table, keys)
    plain = [each.table for each in held if not each.keys]
    for start in range(0, len(plain), _AT_ONCE):
        ends |= _of_tables(database, plain[start : start + _AT_ONCE])
    return [ends[each.table.name, tuple(each.keys.values())] for each in held]


_SUMMARY = (
    "n, CASE WHEN typeof(a) IN ('integer', 'real') THEN a END AS a, "
    "CASE WHEN typeof(z) IN ('integer', 'real') THEN z END AS z, n - timed AS untimed"
)


def _of_keys(database: Connection, table: BarTable, keys: Sequence[str]) -> Mapping[_Place, Ends]:
    columns, time = [table.column(key) for key in keys], table.column("timestamp")
    names = ", ".join(f"k{place}" for place in range(len(keys)))
    select = ", ".join(f"{column} AS k{place}" for place, column in enumerate(columns))
    groups = (
        f"SELECT {select}, count(*) AS n, min({time}) AS a, max({time}) AS z, count({time}) AS timed "
        f"FROM {table.source} GROUP BY {', '.join(columns)}"
    )
    found = database.rows(f"SELECT {names}, {_SUMMARY} FROM ({groups})")
    return {(table.name, row[: len(keys)]): Ends(*row[len(keys) :]) for row in found}


def _of_tables(database: Connection, tables: Sequence[BarTable]) -> Mapping[_Place, Ends]:
    each = " UNION ALL ".join(
        f"SELECT {place} AS place, count(*) AS n, min({table.column('timestamp')}) AS a, "
        f"max({table.column('timestamp')}) AS z, count({table.column('timestamp')}) AS timed FROM {table.source}"
        for place, table in enumerate(tables)
    )
    found = database.rows(f"SELECT place, {_SUMMARY} FROM ({each})")
    return {(tables[place].name, ()): Ends(*ends) for place, *ends in found}
