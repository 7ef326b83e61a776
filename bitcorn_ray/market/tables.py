"""Which tables of a SQLite database are tables of bars: those whose columns match (see `columns`)."""

from __future__ import annotations

from dataclasses import dataclass

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.columns import match_columns
from bitcorn_ray.market.connection import Connection, quoted

__all__ = ["BarTable", "bar_tables"]


@dataclass(frozen=True)
class BarTable:
    """A table of bars: its name, for each of our column names the stored one, and how rows are ordered in time.

    leading: stored names of the columns that an index starts with.
    """

    name: str
    columns: dict[str, str]
    order: str
    is_view: bool
    leading: frozenset[str]

    @property
    def source(self) -> str:
        """The quoted name of the table."""
        return quoted(self.name)

    def column(self, ours: str) -> str:
        """Return the quoted name of one of our columns."""
        return quoted(self.columns[ours])

    def has(self, *ours: str) -> bool:
        """Tell whether the table has some of our columns."""
        return all(name in self.columns for name in ours)


def bar_tables(database: Connection) -> list[BarTable]:
    """Tables and views of bars. Raises BitcornError, naming what there is, where there is none."""
    tables, seen = [], []
    for name, kind in database.rows("SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view')"):
        columns = _column_names(database, name)
        found, missing = match_columns(columns)
        if not missing:
            time, is_view = quoted(found["timestamp"]), kind == "view"
            order = f"{time}, rowid" if not is_view and _has_rowid(database, name) else time
            tables.append(BarTable(name, found, order, is_view, _leading_columns(database, name)))
        seen.append(f"{name} ({', '.join(columns)})")
    if not tables:
        what = f"its tables are {'; '.join(seen)}" if seen else "it has no tables"
        raise BitcornError(
            f"{database.path} has no table with ts or timestamp, open, high, low, close and volume: {what}"
        )
    return tables


def _column_names(database: Connection, table: str) -> list[str]:
    from adbc_driver_manager import ProgrammingError

    try:
        return [row[1] for row in database.rows(f"PRAGMA table_info({quoted(table)})")]
    except ProgrammingError:  # a view of what is no longer there
        return []


def _has_rowid(database: Connection, table: str) -> bool:
    from adbc_driver_manager import ProgrammingError

    try:
        database.rows(f"SELECT rowid FROM {quoted(table)} LIMIT 0")
    except ProgrammingError:
        return False
    return True


def _leading_columns(database: Connection, table: str) -> frozenset[str]:
    indexes = [row[1] for row in database.rows(f"PRAGMA index_list({quoted(table)})")]
    return frozenset(row[2] for index in indexes for row in database.rows(f"PRAGMA index_info({quoted(index)})")[:1])
