"""Which tables of a SQLite database are tables of bars, and why the others are not.

1. A table's or view's columns say it (see `columns`), and a few of its rows confirm it: there are some, and what should
   be a time or a price is one in at least one of them.
2. A column that is called like a timeframe but holds other things (a bar's number) is taken for a further column,
   unless the user says that it is one.
3. Where the user names a table, it is the only one that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import PRICE_COLUMNS
from bitcorn_ray.market.names import Named, said_by_name
from bitcorn_ray.market.timeframe import numeric_steps, timeframe_word
from bitcorn_ray.sources.columns import match_columns, match_extra
from bitcorn_ray.sources.connection import Connection, quoted
from bitcorn_ray.sources.numbers import parse_numbers
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.times import read_times

_HEAD_ROWS, _AT_ONCE = 16, 200


@dataclass(frozen=True)
class BarTable:
    """A table of bars.

    columns: the stored name of each of our columns; extra: of the further columns that are asked for; all_columns: of
    all, in order. order: SQL that orders rows in time. leading: stored names of the columns that an index starts with.
    named: what its name says. doubt: what its first rows say against it. no_timeframes: the column that is called like
    a timeframe and is none.
    """

    name: str
    columns: dict[str, str]
    extra: dict[str, str]
    all_columns: tuple[str, ...]
    has_rowid: bool
    is_view: bool
    leading: frozenset[str]
    named: Named = field(default_factory=Named)
    doubt: str | None = None
    no_timeframes: str | None = None

    @property
    def source(self) -> str:
        """The quoted name of the table."""
        return quoted(self.name)

    @property
    def order(self) -> str:
        """SQL that orders rows by time as stored, and equal times as the rows are stored."""
        time = self.column("timestamp")
        return f"{time}, rowid" if self.has_rowid else time

    def column(self, ours: str) -> str:
        """Return the quoted name of one of our columns, or of a further one by the name that it was asked for."""
        return quoted(self.extra[ours] if ours in self.extra else self.columns[ours])

    def has(self, *ours: str) -> bool:
        """Tell whether the table has some of our columns."""
        return all(name in self.columns for name in ours)


@dataclass(frozen=True)
class IgnoredTable:
    """A table or view that is none of bars.

    empty: it would be one if it had rows. unclear: what it is called says that it could be one, and is told in errors.
    table: the same as a table of bars, where its first rows are all that speaks against it.
    """

    name: str
    columns: tuple[str, ...]
    reason: str
    empty: bool = False
    unclear: bool = False
    table: BarTable | None = None


def bar_tables(database: Connection, reading: Reading | None = None) -> list[BarTable]:
    """Tables and views of bars. Raises BitcornError, naming what there is, where there is none."""
    return find_tables(database, reading or Reading())[0]


def find_tables(database: Connection, reading: Reading) -> tuple[list[BarTable], list[IgnoredTable]]:
    """Tables and views of bars, and the others with the reason.

    Raises BitcornError where none is of bars, and where the table that is asked for is not there.
    """
    tables, ignored = list[BarTable](), list[IgnoredTable]()
    found = _described(database)
    if reading.table is not None:
        found = _asked(database, found, reading.table)
    leading, seen = _leading_columns(database), dict[tuple[str, ...], _Matched]()
    likely = list[BarTable]()
    for described in found:
        if described.columns not in seen:
            seen[described.columns] = _matched(described.columns, reading)
        match = seen[described.columns]
        if match.reason:
            ignored.append(IgnoredTable(described.name, described.columns, match.reason, unclear=match.unclear))
        else:
            likely.append(_bar_table(described, match, leading.get(described.name, frozenset())))
    said = dict(reading.mapping)
    for start in range(0, len(likely), _AT_ONCE):
        for table in _confirmed(database, likely[start : start + _AT_ONCE], said):
            if isinstance(table, BarTable):
                tables.append(table)
            else:
                ignored.append(table)
    if not tables:
        # Where nothing else holds bars, dirt in the first rows is told by the one who reads them.
        tables = [each.table for each in ignored if each.table is not None]
        ignored = [each for each in ignored if each.table is None]
    if not tables:
        raise BitcornError(_no_tables(database, ignored, reading))
    return tables, ignored


@dataclass(frozen=True)
class _Described:
    name: str
    is_view: bool
    has_rowid: bool
    columns: tuple[str, ...]


def _described(database: Connection) -> list[_Described]:
    """Every table and view with its columns; those of SQLite itself, and those inside virtual tables, are left out."""
    kinds = dict(database.rows("SELECT name, type FROM pragma_table_list WHERE schema = 'main'"))
    without = {name for (name,) in database.rows("SELECT name FROM pragma_table_list WHERE wr AND schema = 'main'")}
    stored = database.rows("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")
    columns: dict[str, list[str]] = {}
    query = (
        "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_xinfo(t.name) c "
        "WHERE t.type = 'table' AND t.sql NOT LIKE 'CREATE VIRTUAL%' AND c.hidden <> 1"
    )
    for table, column in database.rows(query):
        columns.setdefault(table, []).append(column)
    return [
        _Described(
            name=name,
            is_view=kinds.get(name) == "view",
            has_rowid=kinds.get(name) == "table" and name not in without,
            columns=tuple(columns[name] if name in columns else _columns_of_view(database, name)),
        )
        for (name,) in stored
        if kinds.get(name) != "shadow" and not name.startswith("sqlite_")
    ]


def _columns_of_view(database: Connection, name: str) -> list[str]:
    from adbc_driver_manager import Error

    try:
        return [row[1] for row in database.rows(f"PRAGMA table_xinfo({quoted(name)})") if row[6] != 1]
    except Error:  # of what is no longer there, or of a module that is not loaded
        return []


def _leading_columns(database: Connection) -> dict[str, frozenset[str]]:
    query = (
        "SELECT t.name, x.name FROM sqlite_schema t, pragma_index_list(t.name) i, pragma_index_info(i.name) x "
        "WHERE t.type = 'table' AND x.seqno = 0 AND x.name IS NOT NULL AND i.partial = 0"
    )
    leading: dict[str, set[str]] = {}
    for table, column in database.rows(query):
        leading.setdefault(table, set()).add(column)
    return {table: frozenset(columns) for table, columns in leading.items()}


def _asked(database: Connection, found: list[_Described], name: str) -> list[_Described]:
    chosen = [each for each in found if each.name == name] or [
        each for each in found if each.name.lower() == name.lower()
    ]
    if len(chosen) != 1:
        there = ", ".join(each.name for each in found) or "none"
        raise BitcornError(f"{database.path} has no table {name!r}: it has {there}")
    return chosen


@dataclass(frozen=True)
class _Matched:
    """What the names of columns say: the columns of bars and the further ones, or why they are none of bars."""

    found: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    unclear: bool = False


def _matched(columns: tuple[str, ...], reading: Reading) -> _Matched:
    if not columns:
        return _Matched(reason="it cannot be read: what it shows is not there")
    try:
        found, missing = match_columns(columns, dict(reading.mapping))
        if missing:
            return _Matched(reason=f"it has no column for {', '.join(missing)}")
        return _Matched(found, match_extra(columns, reading.columns, found))
    except BitcornError as error:
        return _Matched(reason=str(error), unclear=True)


def _bar_table(described: _Described, match: _Matched, leading: frozenset[str]) -> BarTable:
    return BarTable(
        name=described.name,
        columns=match.found,
        extra=match.extra,
        all_columns=described.columns,
        has_rowid=described.has_rowid,
        is_view=described.is_view,
        leading=leading,
        named=said_by_name(described.name),
    )


def _confirmed(database: Connection, tables: list[BarTable], said: Mapping[str, str]) -> list[BarTable | IgnoredTable]:
    """Look at a few rows of each table: whether the columns hold what they are called, or said to be."""
    from adbc_driver_manager import Error

    heads = [_head_query(place, table) for place, table in enumerate(tables)]
    try:
        head = database.table(" UNION ALL ".join(heads), batch_rows=_HEAD_ROWS * len(tables))
    except Error as error:
        if len(tables) > 1:  # one of them cannot be read: each for itself
            return [each for table in tables for each in _confirmed(database, [table], said)]
        what = str(error).partition("\n")[0].rpartition(": ")[2]
        return [IgnoredTable(tables[0].name, tables[0].all_columns, f"it cannot be read: {what}")]
    places = head.column("place").to_numpy()
    starts = np.searchsorted(places, np.arange(len(tables) + 1))
    wrong = {name: parse_numbers(head.column(name))[1] for name in PRICE_COLUMNS}
    wrong["timestamp"] = read_times(head.column("timestamp"))[1] & ~np.asarray(head.column("timestamp").is_null())
    return [
        _judged(table, head.slice(start, stop - start), {name: rows[start:stop] for name, rows in wrong.items()}, said)
        for table, start, stop in zip(tables, starts[:-1], starts[1:], strict=True)
    ]


def _head_query(place: int, table: BarTable) -> str:
    names = [(table.column(name), name) for name in ("timestamp", *PRICE_COLUMNS)]
    # One blob would turn the numbers of all tables into blobs.
    columns = ", ".join(f"CASE typeof({c}) WHEN 'blob' THEN quote({c}) ELSE {c} END AS {name}" for c, name in names)
    timeframe = table.column("timeframe") if table.has("timeframe") else "NULL"
    select = f"SELECT {place} AS place, {columns}, {timeframe} AS timeframe FROM {table.source} LIMIT {_HEAD_ROWS}"
    return f"SELECT * FROM ({select})"


def _judged(
    table: BarTable, head: pa.Table, wrong: Mapping[str, NDArray[np.bool_]], said: Mapping[str, str]
) -> BarTable | IgnoredTable:
    if head.num_rows == 0:
        return IgnoredTable(table.name, table.all_columns, "it is empty", empty=True)
    for name, rows in wrong.items():
        if rows.any() and (rows | np.asarray(head.column(name).is_null())).all():
            value, what = head.column(name)[int(rows.argmax())].as_py(), "time" if name == "timestamp" else "number"
            reason = f"column {table.column(name)} of table {table.name} holds {value!r}, which is not a {what}"
            doubtful = replace(table, doubt=reason)
            return IgnoredTable(table.name, table.all_columns, reason, unclear=True, table=doubtful)
    if not table.has("timeframe") or "timeframe" in said:
        return table
    if _mostly_timeframes(head.column("timeframe").to_pylist()):
        return table
    columns = {ours: stored for ours, stored in table.columns.items() if ours != "timeframe"}
    return replace(table, columns=columns, no_timeframes=table.columns["timeframe"])


def _mostly_timeframes(values: list[object]) -> bool:
    """Tell whether a column holds timeframes; a bar's number, which counts up, is one now and then."""

    def is_one(value: object) -> bool:
        text = str(value).strip()
        return bool(timeframe_word(text) or numeric_steps(value) or text.endswith(("M", "mo", "month", "1mon")))

    told = [is_one(value) for value in values if value is not None]
    return any(told) and 2 * sum(told) >= len(told)


def _no_tables(database: Connection, ignored: list[IgnoredTable], reading: Reading) -> str:
    """Say why no table of a database is one of bars."""
    path = database.path
    if unclear := [each for each in ignored if each.unclear]:
        return "; ".join(f"table {each.name} of {path}: {each.reason}" for each in unclear)
    if empty := [each.name for each in ignored if each.empty]:
        return f"{path} holds no bars: table {', '.join(empty)} is empty"
    if reading.table is not None and ignored:
        return f"table {ignored[0].name} of {path} holds no bars: {ignored[0].reason}"
    told = [f"{each.name} ({', '.join(each.columns)}): {each.reason}" for each in ignored]
    what = f"its tables are {'; '.join(told)}" if told else "it has no tables"
    if path.stat().st_size == 0:
        what = "the file is empty (0 bytes)"
    return f"{path} has no table with a time, open, high, low, close and volume: {what}"
