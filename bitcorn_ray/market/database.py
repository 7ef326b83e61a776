"""Bars out of SQLite databases, whatever their tables are called.

1. A table (or view) is a table of bars when its columns match (see `columns`), with or without symbol and timeframe.
2. Where a column is missing, the file name says the symbol and the timeframe (``btcusdt_1h.db``); a timeframe that
   nothing says is the most frequent distance between the bars.
3. The rows of one partition are read through ADBC straight into Arrow. A column that mixes types in a way that ADBC
   cannot infer is read again, value by value, and refused where it holds text.

Databases are opened read-only: reading never creates, locks or changes a file.
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
from bitcorn_ray.market.columns import BAR_COLUMNS, match_columns, milliseconds
from bitcorn_ray.market.partition import (
    Partition,
    normalise_symbol,
    partition_of_file,
    same_timeframe,
    timeframe_ms,
    timeframe_of_ms,
)

__all__ = ["BarTable", "find_partition", "list_partitions", "read_bars"]

_SAMPLE_ROWS = 2_000


@dataclass(frozen=True)
class BarTable:
    """A table of bars: its name and, for each of our column names, the stored one."""

    name: str
    columns: dict[str, str]

    def column(self, ours: str) -> str:
        """Return the quoted name of one of our columns."""
        return quoted(self.columns[ours])

    def has(self, ours: str) -> bool:
        """Tell whether the table has one of our columns."""
        return ours in self.columns


def quoted(identifier: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def list_partitions(db_path: str | Path) -> list[Partition]:
    """Every symbol x timeframe of a database, sorted, as stored.

    Raises BitcornError where the file is missing, is no database, or has no bars.
    """
    path = _existing(db_path)
    with _metadata(path) as connection:
        tables = _bar_tables(connection, path)
        found = {partition for table in tables for partition in _partitions(connection, table, path)}
    if not found:
        raise BitcornError(f"{path} holds no bars: table {', '.join(t.name for t in tables)} is empty")
    return sorted(found)


def find_partition(db_path: str | Path, symbol: str, timeframe: str) -> tuple[BarTable, Partition]:
    """Return the table that holds a partition, and the partition as stored; spelling of the symbol does not matter.

    Raises BitcornError for an unknown symbol or timeframe (naming those that exist), for a partition that several
    tables hold, and for what `list_partitions` raises.
    """
    path = _existing(db_path)
    timeframe_ms(timeframe)
    wanted = normalise_symbol(symbol)
    with _metadata(path) as connection:
        tables = _bar_tables(connection, path)
        held = [(table, p) for table in tables for p in _partitions(connection, table, path, symbol)]
    matches = [
        (t, p) for t, p in held if normalise_symbol(p.symbol) == wanted and same_timeframe(p.timeframe, timeframe)
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(f"{p} in table {t.name}" for t, p in matches)
        raise BitcornError(f"{path} holds {symbol} {timeframe} more than once ({names}): keep one of them")
    if not held:
        raise BitcornError(f"{path} holds no bars: table {', '.join(t.name for t in tables)} is empty")
    of_symbol = sorted({p.timeframe for _, p in held if normalise_symbol(p.symbol) == wanted})
    if of_symbol:
        raise BitcornError(f"{path} has no {timeframe} bars of {symbol}: it has {', '.join(of_symbol)}")
    exist = sorted({p.symbol for _, p in held})
    raise BitcornError(f"{path} has no symbol {symbol!r}: it has {_shortened(exist)}")


def read_bars(db_path: str | Path, symbol: str, timeframe: str, limit: int | None = None) -> tuple[Bars, Partition]:
    """Read the bars of one partition, ascending in time; rows of one time stay side by side, in stored order.

    limit: only the rows of the newest so many different times.
    Returns (bars, the partition as stored). Raises BitcornError as `find_partition` does, and for times and values
    that are not numbers.
    """
    if limit is not None and limit < 1:
        raise BitcornError(f"limit is {limit}: it must be at least 1, or None for all bars")
    path = _existing(db_path)
    table, partition = find_partition(path, symbol, timeframe)
    keys = {name: getattr(partition, name) for name in ("symbol", "timeframe") if table.has(name)}
    conditions, parameters = [f"{table.column(name)} = ?" for name in keys], list(keys.values())
    time = table.column("timestamp")
    if limit is not None:
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        newest = f"SELECT DISTINCT {time} AS t FROM {quoted(table.name)}{where} ORDER BY t DESC LIMIT {int(limit)}"
        conditions, parameters = [*conditions, f"{time} >= (SELECT min(t) FROM ({newest}))"], parameters * 2
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    bars = _to_bars(_read_arrow(path, table, f"{where} ORDER BY {time}", parameters), path, table)
    assert bars.timestamp is not None
    if len(bars) > 1 and (np.diff(bars.timestamp) < 0).any():  # seconds and milliseconds mixed in one column
        bars = bars.take(np.argsort(bars.timestamp, kind="stable"))
    return bars, partition


def _existing(db_path: str | Path) -> Path:
    path = Path(db_path).expanduser()
    if not path.is_file():
        raise BitcornError(f"no database at {path}: check the path")
    return path


@contextmanager
def _metadata(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30.0)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise BitcornError(f"{path} cannot be read as a SQLite database: {error}") from error


def _bar_tables(connection: sqlite3.Connection, path: Path) -> list[BarTable]:
    names = [n for (n,) in connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")]
    tables, seen = [], []
    for name in names:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(name)})")]
        found, missing = match_columns(columns)
        if not missing:
            tables.append(BarTable(name, found))
        seen.append(f"{name} ({', '.join(columns)})")
    if not tables:
        what = f"its tables are {'; '.join(seen)}" if seen else "it has no tables"
        raise BitcornError(f"{path} has no table with ts or timestamp, open, high, low, close and volume: {what}")
    return tables


def _partitions(
    connection: sqlite3.Connection, table: BarTable, path: Path, asked_symbol: str | None = None
) -> Iterator[Partition]:
    """Partitions of a table; where neither a column nor the file name says the symbol, it is the asked one."""
    file_symbol, file_timeframe = partition_of_file(path)
    symbols = _distinct(connection, table, "symbol", {}) if table.has("symbol") else [file_symbol or asked_symbol]
    for symbol in symbols:
        if symbol is None:
            raise BitcornError(
                f"table {table.name} of {path} has no symbol column and the file name says none: rename the file to "
                "SYMBOL_TIMEFRAME.db, such as btcusdt_1h.db"
            )
        keys = {"symbol": symbol} if table.has("symbol") else {}
        if table.has("timeframe"):
            for timeframe in _distinct(connection, table, "timeframe", keys):
                yield Partition(symbol, str(timeframe))
        elif (step := _stored_step(connection, table, keys)) is not None:
            yield Partition(symbol, file_timeframe or timeframe_of_ms(step))


def _distinct(connection: sqlite3.Connection, table: BarTable, column: str, keys: dict[str, str]) -> list[str]:
    """Distinct values: by leaps through an index where one starts with the key, as DISTINCT would visit every row."""
    name, source = table.column(column), quoted(table.name)
    where = "".join(f" AND {table.column(key)} = :{key}" for key in keys)
    if _leading_columns(connection, table) & {table.columns["symbol"] if table.has("symbol") else column}:
        query = (
            f"WITH RECURSIVE leap(value) AS (SELECT min({name}) FROM {source} WHERE {name} IS NOT NULL{where} "
            f"UNION ALL SELECT (SELECT min({name}) FROM {source} WHERE {name} > value{where}) FROM leap "
            "WHERE value IS NOT NULL) SELECT value FROM leap WHERE value IS NOT NULL"
        )
    else:
        query = f"SELECT DISTINCT {name} FROM {source} WHERE {name} IS NOT NULL{where}"
    return [str(value) for (value,) in connection.execute(query, keys)]


def _leading_columns(connection: sqlite3.Connection, table: BarTable) -> set[str]:
    indexes = [row[1] for row in connection.execute(f"PRAGMA index_list({quoted(table.name)})")]
    firsts = (connection.execute(f"PRAGMA index_info({quoted(index)})").fetchone() for index in indexes)
    return {first[2] for first in firsts if first is not None}


def _stored_step(connection: sqlite3.Connection, table: BarTable, keys: dict[str, str]) -> int | None:
    """Return the most frequent step in the table's newest rows; None for an empty table."""
    where = " AND ".join(f"{table.column(key)} = :{key}" for key in keys)
    time = table.column("timestamp")
    query = f"SELECT {time} FROM {quoted(table.name)}{' WHERE ' + where if where else ''} ORDER BY {time} DESC"
    rows = connection.execute(f"{query} LIMIT {_SAMPLE_ROWS}", keys).fetchall()
    if not rows:
        return None
    return modal_step(np.sort(milliseconds(np.array(rows)[:, 0], f"column {time} of table {table.name}")))


def _shortened(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _read_arrow(path: Path, table: BarTable, tail: str, parameters: list[str]) -> pa.Table:
    plain = ", ".join(f"{table.column(name)} AS {name}" for name in BAR_COLUMNS)
    by_value = ", ".join(
        f"CASE typeof({c}) WHEN 'integer' THEN CAST({c} AS REAL) WHEN 'real' THEN {c} WHEN 'null' THEN NULL "
        f"ELSE 'text' END AS {name}"
        for name, c in ((name, table.column(name)) for name in BAR_COLUMNS)
    )
    for columns in (plain, by_value):
        arrow = _query(path, f"SELECT {columns} FROM {quoted(table.name)}{tail}", parameters)
        if arrow is not None:
            return arrow
    raise BitcornError(_first_text(path, table))


def _query(path: Path, sql: str, parameters: list[str]) -> pa.Table | None:
    """Rows as numbers, or None where a column holds text or changes its type from one batch of rows to the next."""
    from adbc_driver_manager import Error as AdbcError
    from adbc_driver_sqlite import dbapi

    try:
        with (
            dbapi.connect(f"{path.absolute().as_uri()}?mode=ro") as connection,
            connection.cursor(adbc_stmt_kwargs={"adbc.sqlite.query.batch_rows": 65_536}) as cursor,
        ):
            cursor.execute(sql, parameters)
            arrow = cursor.fetch_arrow_table()
    except (AdbcError, OSError) as error:
        if "Type mismatch" in str(error):
            return None
        raise BitcornError(f"{path} cannot be read: {error}") from error
    return arrow if all(_is_number(field.type) for field in arrow.schema) else None


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _first_text(path: Path, table: BarTable) -> str:
    time = table.column("timestamp")
    with _metadata(path) as connection:
        for name in BAR_COLUMNS:
            column = table.column(name)
            query = (
                f"SELECT {time}, {column} FROM {quoted(table.name)} WHERE typeof({column}) IN ('text', 'blob') LIMIT 1"
            )
            row = connection.execute(query).fetchone()
            if row is not None:
                return (
                    f"column {column} of table {table.name} in {path} holds {row[1]!r} (at {time} = {row[0]!r}), which "
                    "is not a number: store numbers, with times as epoch seconds or milliseconds"
                )
    return f"table {table.name} in {path} could not be read as numbers"


def _to_bars(arrow: pa.Table, path: Path, table: BarTable) -> Bars:
    def values(name: str) -> Any:
        column = arrow.column(name)
        return column.cast(pa.float64()).to_numpy() if name != "timestamp" else column.to_numpy()

    if arrow.column("timestamp").null_count:
        raise BitcornError(
            f"{arrow.column('timestamp').null_count} rows of table {table.name} in {path} have no time: remove them"
        )
    times = milliseconds(values("timestamp"), f"column {table.column('timestamp')} of table {table.name} in {path}")
    return Bars(timestamp=times, **{name: values(name) for name in BAR_COLUMNS[1:]})
