"""Bars out of SQLite databases, whatever their tables are called.

1. A table (or view) is a table of bars when its columns match (see `columns`), with or without symbol and timeframe.
2. Where a column is missing, the file name says the symbol and the timeframe (``btcusdt_1h.db``); a timeframe that
   nothing says is the most frequent distance between the bars.
3. The rows of one partition are read through ADBC straight into Arrow, as one batch: a column whose numbers change
   their type from row to row is then still one column of numbers.

Databases are opened read-only: reading never creates, blocks or changes one. (Beside a database in WAL mode SQLite may
leave its two small side files. And ADBC brings its own copy of SQLite: do not read a database while this process is
inside a write transaction on it, as POSIX drops all of a process's locks when one of its copies closes the file.)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, modal_step
from bitcorn_ray.market.columns import BAR_COLUMNS, is_number, match_columns, milliseconds, mixes_units
from bitcorn_ray.market.partition import (
    Partition,
    normalise_symbol,
    partition_of_file,
    same_timeframe,
    timeframe_ms,
    timeframe_of_ms,
)

__all__ = ["BarTable", "StoredPartition", "find_partition", "list_partitions", "read_bars"]

_SAMPLE_ROWS = 2_000
_BUSY_MS = 30_000


@dataclass(frozen=True)
class BarTable:
    """A table of bars: its name, for each of our column names the stored one, and how rows are ordered in time."""

    name: str
    columns: dict[str, str]
    order: str

    @property
    def source(self) -> str:
        """The quoted name of the table."""
        return quoted(self.name)

    def column(self, ours: str) -> str:
        """Return the quoted name of one of our columns."""
        return quoted(self.columns[ours])

    def has(self, ours: str) -> bool:
        """Tell whether the table has one of our columns."""
        return ours in self.columns


@dataclass(frozen=True)
class StoredPartition:
    """A partition in a table: keys are the stored values of its symbol and timeframe columns, where there are such."""

    table: BarTable
    partition: Partition
    keys: dict[str, Any]

    def where(self, *more: str) -> str:
        """Return the SQL condition that selects its rows, with the named parameters of `keys`."""
        conditions = [*(f"{self.table.column(key)} = :{key}" for key in self.keys), *more]
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def quoted(identifier: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def list_partitions(db_path: str | Path) -> list[Partition]:
    """Every symbol x timeframe of a database, sorted, as stored.

    Where no timeframe is stored or named, a symbol with fewer than two bars has none and is not listed.
    Raises BitcornError where the file is missing, is no database, or has no bars.
    """
    return sorted({held.partition for held in _held(_existing(db_path), None)})


def find_partition(db_path: str | Path, symbol: str, timeframe: str) -> StoredPartition:
    """Return where a partition is stored; spelling of the symbol does not matter.

    Raises BitcornError for an unknown symbol or timeframe (naming those that exist), for a partition that several
    tables hold, and for what `list_partitions` raises.
    """
    path = _existing(db_path)
    timeframe_ms(timeframe)
    held = _held(path, symbol)
    of_symbol = [h for h in held if normalise_symbol(h.partition.symbol) == normalise_symbol(symbol)]
    matches = [h for h in of_symbol if same_timeframe(h.partition.timeframe, timeframe)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(f"{h.partition} in table {h.table.name}" for h in matches)
        raise BitcornError(f"{path} holds {symbol} {timeframe} more than once ({names}): keep one of them")
    if of_symbol:
        exist = ", ".join(sorted({h.partition.timeframe for h in of_symbol}))
        raise BitcornError(f"{path} has no {timeframe} bars of {symbol}: it has {exist}")
    raise BitcornError(
        f"{path} has no symbol {symbol!r}: it has {_shortened(sorted({h.partition.symbol for h in held}))}"
    )


def read_bars(db_path: str | Path, symbol: str, timeframe: str, limit: int | None = None) -> tuple[Bars, Partition]:
    """Read the bars of one partition, ascending in time; rows of one time stay side by side, in stored order.

    limit: only the rows of the newest so many different times.
    Returns (bars, the partition as stored). Raises BitcornError as `find_partition` does, and for times and values
    that are not numbers.
    """
    if limit is not None and limit < 1:
        raise BitcornError(f"limit is {limit}: it must be at least 1, or None for all bars")
    path = _existing(db_path)
    held = find_partition(path, symbol, timeframe)
    table, time = held.table, held.table.column("timestamp")
    keys, newest = dict(held.keys), list[str]()
    if limit is not None and not _mixes_units(path, held):
        distinct = f"SELECT DISTINCT {time} AS t FROM {table.source}{held.where()} ORDER BY t DESC LIMIT :limit"
        keys, newest = {**keys, "limit": limit}, [f"{time} >= (SELECT min(t) FROM ({distinct}))"]
    columns = ", ".join(f"{table.column(name)} AS {name}" for name in BAR_COLUMNS)
    query = f"SELECT {columns} FROM {table.source}{held.where(*newest)} ORDER BY {table.order}"
    arrow = _query(path, query, keys)
    if not all(is_number(field.type) for field in arrow.schema):
        raise BitcornError(_first_text(path, held))
    bars = _to_bars(arrow, f"table {table.name} in {path}")
    assert bars.timestamp is not None
    times = bars.timestamp
    if (np.diff(times) < 0).any():  # seconds and milliseconds in one column: their order is not SQL's
        order = np.argsort(times, kind="stable")
        bars, times = bars.take(order), times[order]
    if limit is not None and len(bars) > limit:
        bars = bars.take(times >= np.unique(times)[-limit:][0])
    return bars, held.partition


def _existing(db_path: str | Path) -> Path:
    path = Path(db_path).expanduser()
    if not path.is_file():
        raise BitcornError(f"no database at {path}: check the path")
    return path


@contextmanager
def _metadata(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_MS / 1000)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise BitcornError(f"{path} cannot be read as a SQLite database: {error}") from error


def _held(path: Path, asked_symbol: str | None) -> list[StoredPartition]:
    """Return what a database holds, at least one partition.

    asked_symbol: name of the bars where neither a column of any table nor the file name says one.
    """
    file_symbol, file_timeframe = partition_of_file(path)
    with _metadata(path) as connection:
        tables = _bar_tables(connection, path)
        named = [table for table in tables if table.has("symbol")]
        nameless = file_symbol or (None if named else asked_symbol)
        held = list[StoredPartition]()
        for table in tables if nameless else named:
            keys = [{"symbol": s} for s in _distinct(connection, table, "symbol", {})] if table.has("symbol") else [{}]
            for key in keys:
                held += _with_timeframes(connection, table, key, nameless or "", file_timeframe)
    if not (named or nameless):
        raise BitcornError(
            f"{path} has no symbol column and its name says no symbol: rename it to SYMBOL_TIMEFRAME.db, such as "
            "btcusdt_1h.db"
        )
    if not held:
        raise BitcornError(f"{path} holds no bars: table {', '.join(t.name for t in tables)} is empty")
    return held


def _bar_tables(connection: sqlite3.Connection, path: Path) -> list[BarTable]:
    tables, seen = [], []
    schema = "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view')"
    for name, kind in connection.execute(schema).fetchall():
        try:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(name)})")]
        except sqlite3.OperationalError:  # a view of what is no longer there
            continue
        found, missing = match_columns(columns)
        if not missing:
            time = quoted(found["timestamp"])
            tables.append(BarTable(name, found, f"{time}, rowid" if _has_rowid(connection, name, kind) else time))
        seen.append(f"{name} ({', '.join(columns)})")
    if not tables:
        what = f"its tables are {'; '.join(seen)}" if seen else "it has no tables"
        raise BitcornError(f"{path} has no table with ts or timestamp, open, high, low, close and volume: {what}")
    return tables


def _has_rowid(connection: sqlite3.Connection, name: str, kind: str) -> bool:
    try:
        connection.execute(f"SELECT rowid FROM {quoted(name)} LIMIT 0")
    except sqlite3.OperationalError:
        return False
    return kind == "table"


def _with_timeframes(
    connection: sqlite3.Connection, table: BarTable, key: dict[str, Any], symbol: str, file_timeframe: str | None
) -> Iterator[StoredPartition]:
    name = str(key.get("symbol", symbol))
    if table.has("timeframe"):
        for timeframe in _distinct(connection, table, "timeframe", key):
            yield StoredPartition(table, Partition(name, str(timeframe)), {**key, "timeframe": timeframe})
        return
    step = _stored_step(connection, StoredPartition(table, Partition(name, ""), key))
    if step:
        yield StoredPartition(table, Partition(name, file_timeframe or timeframe_of_ms(step)), key)


def _distinct(connection: sqlite3.Connection, table: BarTable, column: str, keys: dict[str, Any]) -> list[Any]:
    """Distinct values: by leaps through an index where one starts with the key, as DISTINCT would visit every row."""
    name, source = table.column(column), table.source
    where = "".join(f" AND {table.column(key)} = :{key}" for key in keys)
    if table.columns.get("symbol", table.columns[column]) in _leading_columns(connection, table):
        query = (
            f"WITH RECURSIVE leap(value) AS (SELECT min({name}) FROM {source} WHERE {name} IS NOT NULL{where} "
            f"UNION ALL SELECT (SELECT min({name}) FROM {source} WHERE {name} > value{where}) FROM leap "
            "WHERE value IS NOT NULL) SELECT value FROM leap WHERE value IS NOT NULL"
        )
    else:
        query = f"SELECT DISTINCT {name} FROM {source} WHERE {name} IS NOT NULL{where}"
    return [value for (value,) in connection.execute(query, keys)]


def _leading_columns(connection: sqlite3.Connection, table: BarTable) -> set[str]:
    indexes = [row[1] for row in connection.execute(f"PRAGMA index_list({table.source})")]
    firsts = (connection.execute(f"PRAGMA index_info({quoted(index)})").fetchone() for index in indexes)
    return {first[2] for first in firsts if first is not None}


def _stored_step(connection: sqlite3.Connection, held: StoredPartition) -> int:
    """Return the most frequent step in the newest rows; 0 for fewer than two bars."""
    time = held.table.column("timestamp")
    where = held.where(f"{time} IS NOT NULL")
    query = f"SELECT {time} FROM {held.table.source}{where} ORDER BY {time} DESC LIMIT {_SAMPLE_ROWS}"
    times = np.array([value for (value,) in connection.execute(query, held.keys)])
    return modal_step(np.sort(milliseconds(times, f"column {time} of table {held.table.name}")))


def _mixes_units(path: Path, held: StoredPartition) -> bool:
    time = held.table.column("timestamp")
    with _metadata(path) as connection:
        query = f"SELECT min({time}), max({time}) FROM {held.table.source}{held.where()}"
        first, last = connection.execute(query, held.keys).fetchone()
    return mixes_units(first, last)


def _shortened(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _query(path: Path, sql: str, keys: dict[str, Any]) -> pa.Table:
    from adbc_driver_manager import Error as AdbcError
    from adbc_driver_sqlite import dbapi

    # ADBC decides a column's type in its first batch and refuses another in a later one: let there be one.
    one_batch = {"adbc.sqlite.query.batch_rows": 1_000_000_000}
    try:
        with dbapi.connect(f"{path.absolute().as_uri()}?mode=ro") as connection:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            with connection.cursor(adbc_stmt_kwargs=one_batch) as cursor:
                # The driver binds by position; SQLite counts a name once, where it first occurs, as `keys` are ordered.
                cursor.execute(sql, list(keys.values()))
                return cursor.fetch_arrow_table()
    except (AdbcError, OSError) as error:
        raise BitcornError(f"{path} cannot be read: {error}") from error


def _first_text(path: Path, held: StoredPartition) -> str:
    time = held.table.column("timestamp")
    with _metadata(path) as connection:
        for name in BAR_COLUMNS:
            column = held.table.column(name)
            where = held.where(f"typeof({column}) IN ('text', 'blob')")
            query = f"SELECT {time}, {column} FROM {held.table.source}{where} LIMIT 1"
            row = connection.execute(query, held.keys).fetchone()
            if row is not None:
                return (
                    f"column {column} of table {held.table.name} in {path} holds {row[1]!r} (at {time} = {row[0]!r}), "
                    "which is not a number: store numbers, with times as epoch seconds or milliseconds"
                )
    return f"table {held.table.name} in {path} could not be read as numbers"


def _to_bars(arrow: pa.Table, where: str) -> Bars:
    times = arrow.column("timestamp")
    if times.null_count:
        raise BitcornError(f"{times.null_count} rows of {where} have no time: remove them")
    # A volume beyond 2^53 is rounded, as any float64 would round it.
    columns = {name: arrow.column(name).cast(pa.float64(), safe=False).to_numpy() for name in BAR_COLUMNS[1:]}
    return Bars(timestamp=milliseconds(times.to_numpy(), f"the time column of {where}"), **columns)
