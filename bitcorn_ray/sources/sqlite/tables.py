"""Which tables of a SQLite database hold bars, and why the others do not.

1. The columns of a table or view decide (see `columns`), and its first rows confirm it: a time or a price is one in at
   least one of them.
2. A column named like a timeframe that holds something else (a bar's number) counts as a further column, unless the
   user maps it.
3. If the user names a table, it is the only one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import PRICE_COLUMNS
from bitcorn_ray.market.names import ParsedName, parse_name
from bitcorn_ray.market.timeframe import numeric_steps, timeframe_word
from bitcorn_ray.sources.columns import TOGETHER, Sample, match_columns, match_extra
from bitcorn_ray.sources.numbers import parse_numbers
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.sqlite.connection import OWN_TABLES, Connection, quoted
from bitcorn_ray.sources.times import TimeForm, read_times

_HEAD_ROWS, _SAMPLE_ROWS, _TABLES_PER_QUERY = 16, 1_000, 200


@dataclass(frozen=True, kw_only=True)
class BarTable:
    """A table of bars.

    columns: our names to the stored ones. extra: the same for the requested further columns. all_columns: in order.
    leading: stored names of the columns that an index starts with. named: what the table's name says. doubt: what its
    first rows say against it. no_timeframes: the column that is named like a timeframe and holds none.
    """

    name: str
    columns: dict[str, str]
    extra: dict[str, str]
    all_columns: tuple[str, ...]
    has_rowid: bool
    is_view: bool
    leading: frozenset[str]
    named: ParsedName
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
        """Return the SQL of one of our columns or of a requested further one: its quoted name, mostly."""
        if ours == "volume" and ours not in self.columns:  # the user says that there is none
            return "0.0"
        stored = self.extra[ours] if ours in self.extra else self.columns[ours]
        if stored in self.all_columns:
            return quoted(stored)
        return "({})".format(" || ' ' || ".join(map(quoted, stored.split(TOGETHER))))

    def has(self, *ours: str) -> bool:
        """Return True if the table has all of these columns of ours."""
        return all(name in self.columns for name in ours)


@dataclass(frozen=True)
class IgnoredTable:
    """A table or view that holds no bars.

    empty: it would hold bars if it had rows. unclear: its column names say that it may hold bars; errors mention it.
    table: the table of bars that it would be, if only its first rows speak against it.
    """

    name: str
    columns: tuple[str, ...]
    reason: str
    empty: bool = False
    unclear: bool = False
    table: BarTable | None = None


def find_tables(database: Connection, options: SourceOptions) -> tuple[list[BarTable], list[IgnoredTable]]:
    """Return the tables and views of bars, and the others with the reason.

    Raises BitcornError if none holds bars, and if the requested table does not exist.
    """
    found = _schema(database)
    if options.table is not None:
        found = _requested(database, found, options.table)
    leading, matches = _leading_columns(database), dict[tuple[str, ...], _Match]()
    likely, ignored = list[BarTable](), list[IgnoredTable]()
    for table in found:
        match = matches.get(table.columns)
        if match is None:
            sampled = list[Sequence[str]]()
            match = _match(table.columns, options, partial(_sample, database, table, sampled))
            if not sampled:  # names decide for all tables that have them
                matches[table.columns] = match
        if match.reason:
            ignored.append(IgnoredTable(table.name, table.columns, match.reason, unclear=match.unclear))
        else:
            likely.append(_bar_table(table, match, leading.get(table.name, frozenset())))
    mapping, tables = dict(options.mapping), list[BarTable]()
    for start in range(0, len(likely), _TABLES_PER_QUERY):
        for checked in _confirmed(database, likely[start : start + _TABLES_PER_QUERY], mapping, options.times):
            if isinstance(checked, BarTable):
                tables.append(checked)
            else:
                ignored.append(checked)
    if not tables:
        # If nothing else holds bars, reading the table reports what is wrong with it.
        tables = [table.table for table in ignored if table.table is not None]
        ignored = [table for table in ignored if table.table is None]
    if not tables:
        raise BitcornError(_no_tables(database, ignored, options))
    return tables, ignored


@dataclass(frozen=True)
class _Table:
    name: str
    is_view: bool
    has_rowid: bool
    columns: tuple[str, ...]


def _schema(database: Connection) -> list[_Table]:
    """Return every table and view with its columns, except SQLite's own and those inside virtual tables."""
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
        _Table(
            name=name,
            is_view=kinds.get(name) == "view",
            has_rowid=kinds.get(name) == "table" and name not in without,
            columns=tuple(columns[name] if name in columns else _columns_of_view(database, name)),
        )
        for (name,) in stored
        if kinds.get(name) != "shadow" and not name.startswith(("sqlite_", OWN_TABLES))
    ]


def _columns_of_view(database: Connection, name: str) -> list[str]:
    from adbc_driver_manager import Error

    try:
        return [row[1] for row in database.rows(f"PRAGMA table_xinfo({quoted(name)})") if row[6] != 1]
    except Error:  # it shows a table that is gone, or needs a module that is not loaded
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


def _requested(database: Connection, found: list[_Table], name: str) -> list[_Table]:
    chosen = [table for table in found if table.name == name] or [
        table for table in found if table.name.lower() == name.lower()
    ]
    if len(chosen) != 1:
        exist = ", ".join(table.name for table in found) or "none"
        raise BitcornError(f"{database.path} has no table {name!r}: it has {exist}")
    return chosen


@dataclass(frozen=True)
class _Match:
    """What column names say: the columns of bars and the requested further ones, or why they are not those of bars."""

    columns: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    unclear: bool = False


def _sample(
    database: Connection, table: _Table, sampled: list[Sequence[str]], names: Sequence[str]
) -> Mapping[str, pa.Array]:
    """Return the first, middle and last rows of some columns of a table as text, and note the names in `sampled`."""
    sampled.append(names)
    select = f"SELECT {', '.join(f'CAST({quoted(name)} AS TEXT)' for name in names)} FROM {quoted(table.name)}"
    parts = [f"{select} LIMIT {_SAMPLE_ROWS}"]
    if table.has_rowid:
        ends = f"SELECT (SELECT min(rowid) FROM {quoted(table.name)}), (SELECT max(rowid) FROM {quoted(table.name)})"
        first, last = database.rows(ends)[0]
        if last is not None and last - first >= 3 * _SAMPLE_ROWS:
            starts = (first, (first + last - _SAMPLE_ROWS) // 2, last - _SAMPLE_ROWS + 1)
            parts = [f"{select} WHERE rowid >= {start} ORDER BY rowid LIMIT {_SAMPLE_ROWS}" for start in starts]
    rows = [row for part in parts for row in database.rows(part)]
    return {name: pa.array([row[index] for row in rows], pa.string()) for index, name in enumerate(names)}


def _match(columns: tuple[str, ...], options: SourceOptions, sample: Sample) -> _Match:
    if not columns:
        return _Match(reason="it cannot be read: what it shows does not exist")
    try:
        found, missing = match_columns(columns, dict(options.mapping), sample)
        if missing:
            return _Match(reason=f"it has no column for {', '.join(missing)}")
        return _Match(found, match_extra(columns, options.columns, found))
    except BitcornError as error:
        return _Match(reason=str(error), unclear=True)


def _bar_table(table: _Table, match: _Match, leading: frozenset[str]) -> BarTable:
    return BarTable(
        name=table.name,
        columns=match.columns,
        extra=match.extra,
        all_columns=table.columns,
        has_rowid=table.has_rowid,
        is_view=table.is_view,
        leading=leading,
        named=parse_name(table.name),
    )


def _confirmed(
    database: Connection, tables: list[BarTable], mapping: Mapping[str, str], form: TimeForm
) -> list[BarTable | IgnoredTable]:
    """Check by the first rows of each table that its columns hold what their names or the mapping say."""
    from adbc_driver_manager import Error

    selects = [_select_head(index, table) for index, table in enumerate(tables)]
    try:
        heads = database.table(" UNION ALL ".join(selects), batch_rows=_HEAD_ROWS * len(tables))
    except Error as error:
        if len(tables) > 1:  # one of them cannot be read
            return [checked for table in tables for checked in _confirmed(database, [table], mapping, form)]
        what = str(error).partition("\n")[0].rpartition(": ")[2]
        return [IgnoredTable(tables[0].name, tables[0].all_columns, f"it cannot be read: {what}")]
    starts = np.searchsorted(heads.column("table_index").to_numpy(), np.arange(len(tables) + 1))
    wrong = {name: parse_numbers(heads.column(name))[1] for name in PRICE_COLUMNS}
    wrong["timestamp"] = read_times(heads.column("timestamp"), form)[1] & ~np.asarray(
        heads.column("timestamp").is_null()
    )
    return [
        _checked(
            table,
            heads.slice(start, stop - start),
            {name: rows[start:stop] for name, rows in wrong.items()},
            may_be_renamed="timeframe" not in mapping,
        )
        for table, start, stop in zip(tables, starts[:-1], starts[1:], strict=True)
    ]


def _select_head(index: int, table: BarTable) -> str:
    names = [(table.column(name), name) for name in ("timestamp", *PRICE_COLUMNS)]
    # One blob would turn the numbers of all tables into blobs.
    columns = ", ".join(f"CASE typeof({c}) WHEN 'blob' THEN quote({c}) ELSE {c} END AS {name}" for c, name in names)
    timeframe = table.column("timeframe") if table.has("timeframe") else "NULL"
    select = f"SELECT {index} AS table_index, {columns}, {timeframe} AS timeframe FROM {table.source}"
    return f"SELECT * FROM ({select} LIMIT {_HEAD_ROWS})"


def _checked(
    table: BarTable, head: pa.Table, wrong: Mapping[str, NDArray[np.bool_]], may_be_renamed: bool
) -> BarTable | IgnoredTable:
    if head.num_rows == 0:
        return IgnoredTable(table.name, table.all_columns, "it is empty", empty=True)
    for name, rows in wrong.items():
        if rows.any() and (rows | np.asarray(head.column(name).is_null())).all():
            value, what = head.column(name)[int(rows.argmax())].as_py(), "time" if name == "timestamp" else "number"
            reason = f"column {table.column(name)} of table {table.name} holds {value!r}, which is not a {what}"
            return IgnoredTable(table.name, table.all_columns, reason, unclear=True, table=replace(table, doubt=reason))
    if not (table.has("timeframe") and may_be_renamed) or _mostly_timeframes(head.column("timeframe").to_pylist()):
        return table
    columns = {ours: stored for ours, stored in table.columns.items() if ours != "timeframe"}
    return replace(table, columns=columns, no_timeframes=table.columns["timeframe"])


def _mostly_timeframes(values: list[object]) -> bool:
    """Return True if a column holds timeframes; some of the numbers of a count look like one."""

    def is_timeframe(value: object) -> bool:
        text = str(value).strip()
        return bool(timeframe_word(text) or numeric_steps(value) or text.endswith(("M", "mo", "month", "1mon")))

    found = [is_timeframe(value) for value in values if value is not None]
    return any(found) and 2 * sum(found) >= len(found)


def _no_tables(database: Connection, ignored: list[IgnoredTable], options: SourceOptions) -> str:
    """Return the message that says why no table holds bars."""
    path = database.path
    if unclear := [table for table in ignored if table.unclear]:
        return "; ".join(f"table {table.name} of {path}: {table.reason}" for table in unclear)
    if empty := [table.name for table in ignored if table.empty]:
        return f"{path} holds no bars: table {', '.join(empty)} is empty"
    if options.table is not None and ignored:
        return f"table {ignored[0].name} of {path} holds no bars: {ignored[0].reason}"
    described = [f"{table.name} ({', '.join(table.columns)}): {table.reason}" for table in ignored]
    tables = f"its tables are {'; '.join(described)}" if described else "it has no tables"
    if path.stat().st_size == 0:
        tables = "the file is empty (0 bytes)"
    return f"{path} has no table with a time, open, high, low, close and volume: {tables}"
