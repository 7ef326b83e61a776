"""Bars out of SQLite databases, whatever their tables are called.

1. A table (or view) is a table of bars when its columns match (see `columns`), with or without symbol and timeframe.
2. Where a column is missing, the file name says the symbol and the timeframe (``btcusdt_1h.db``); a timeframe that
   nothing says is the most frequent distance between the bars.
3. The rows of one partition are read through ADBC straight into Arrow, as one batch: a column whose numbers change
   their type from row to row is then still one column of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, modal_step
from bitcorn_ray.market.columns import BAR_COLUMNS, is_number, milliseconds, mixes_units
from bitcorn_ray.market.connection import Connection, connected
from bitcorn_ray.market.partition import (
    Partition,
    normalise_symbol,
    partition_of_file,
    same_timeframe,
    timeframe_ms,
    timeframe_of_ms,
)
from bitcorn_ray.market.tables import BarTable, bar_tables

__all__ = ["BarReader", "list_partitions", "opened_bars", "read_bars"]

_SAMPLE_ROWS = 2_000


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


def list_partitions(db_path: str | Path) -> list[Partition]:
    """Every symbol x timeframe of a database, sorted, as stored.

    Where no timeframe is stored or named, a symbol with fewer than two bars has none and is not listed.
    Raises BitcornError where the file is missing, is no database, or has no bars.
    """
    with opened_bars(db_path) as reader:
        return reader.partitions


def read_bars(db_path: str | Path, symbol: str, timeframe: str, limit: int | None = None) -> tuple[Bars, Partition]:
    """Read the bars of one partition; see `BarReader.read` for what is returned and raised."""
    with opened_bars(db_path, symbol) as reader:
        return reader.read(symbol, timeframe, limit)


@contextmanager
def opened_bars(db_path: str | Path, symbol: str | None = None) -> Iterator[BarReader]:
    """Open a database for as long as a block lasts, which sees one state of it.

    symbol: name of the bars where neither a column nor the file name says one.
    Raises BitcornError where the file is missing, is no database, or has no bars.
    """
    with connected(db_path) as database:
        yield BarReader(database, symbol)


class BarReader:
    """The partitions of one open database."""

    def __init__(self, database: Connection, symbol: str | None) -> None:
        self._database, self._asked, self._tables = database, symbol, bar_tables(database)

    @cached_property
    def _held(self) -> list[StoredPartition]:
        return _held(self._database, self._tables, self._asked)

    @cached_property
    def _by_symbol(self) -> dict[str, list[StoredPartition]]:
        found: dict[str, list[StoredPartition]] = {}
        for held in self._held:
            found.setdefault(normalise_symbol(held.partition.symbol), []).append(held)
        return found

    @property
    def partitions(self) -> list[Partition]:
        """Every symbol x timeframe, sorted, as stored."""
        return sorted({held.partition for held in self._held})

    def sizes(self) -> dict[Partition, int]:
        """About how many bars each partition has, by its first and last time: counting would read every row."""
        sizes: dict[Partition, int] = {}
        for held in self._held:
            time, source = held.table.column("timestamp"), f"{held.table.source}{held.where()}"
            query = f"SELECT (SELECT min({time}) FROM {source}) AS first, (SELECT max({time}) FROM {source}) AS last"
            times = [value for value in self._database.rows(query, held.keys)[0] if isinstance(value, int | float)]
            span = np.diff(milliseconds(np.array(times), time)).sum()
            sizes[held.partition] = 1 + int(span) // _step_or_day(held.partition)
        return sizes

    def read_stored(self, partition: Partition) -> tuple[Bars, Partition]:
        """Read a partition that is named exactly as it is stored, without listing the others.

        Raises BitcornError as `read` does.
        """
        keys = {"symbol": partition.symbol, "timeframe": partition.timeframe}
        found = [
            held
            for held in (StoredPartition(t, partition, keys) for t in self._tables if t.has("symbol", "timeframe"))
            if self._database.rows(f"SELECT 1 FROM {held.table.source}{held.where()} LIMIT 1", keys)
        ]
        if len(found) == 1:
            return self._bars(found[0], None), partition
        return self.read(partition.symbol, partition.timeframe)

    def read(self, symbol: str, timeframe: str, limit: int | None = None) -> tuple[Bars, Partition]:
        """Read the bars of one partition, ascending in time; rows of one time stay side by side, in stored order.

        symbol: in any spelling. limit: only the rows of the newest so many different times.
        Returns (bars, the partition as stored).
        Raises BitcornError for an unknown symbol or timeframe (naming those that exist), for a partition that several
        tables hold, and for times and values that are not numbers.
        """
        if limit is not None and limit < 1:
            raise BitcornError(f"limit is {limit}: it must be at least 1, or None for all bars")
        held = self._find(symbol, timeframe)
        return self._bars(held, limit), held.partition

    def _bars(self, held: StoredPartition, limit: int | None) -> Bars:
        bars = _to_bars(self._read(held, limit), f"table {held.table.name} in {self._database.path}")
        assert bars.timestamp is not None
        times = bars.timestamp
        if (np.diff(times) < 0).any():  # seconds and milliseconds in one column: their order is not SQL's
            order = np.argsort(times, kind="stable")
            bars, times = bars.take(order), times[order]
        if limit is not None and len(bars) > limit:
            bars = bars.take(times >= np.unique(times)[-limit:][0])
        return bars

    def _read(self, held: StoredPartition, limit: int | None) -> pa.Table:
        database, table, time = self._database, held.table, held.table.column("timestamp")
        keys, newest = dict(held.keys), list[str]()
        if limit is not None and not _mixes_units(database, held):
            distinct = f"SELECT DISTINCT {time} AS t FROM {table.source}{held.where()} ORDER BY t DESC LIMIT :limit"
            keys, newest = {**keys, "limit": limit}, [f"{time} >= (SELECT min(t) FROM ({distinct}))"]
        source = f"FROM {table.source}{held.where(*newest)}"
        count = database.rows(f"SELECT count(*) {source}", keys)[0][0]
        columns = ", ".join(f"{table.column(name)} AS {name}" for name in BAR_COLUMNS)
        arrow = database.table(f"SELECT {columns} {source} ORDER BY {table.order}", keys, batch_rows=count)
        if not all(is_number(field.type) for field in arrow.schema):
            raise BitcornError(_first_text(database, held))
        return arrow

    def _find(self, symbol: str, timeframe: str) -> StoredPartition:
        timeframe_ms(timeframe)
        path, held = self._database.path, self._held
        of_symbol = self._by_symbol.get(normalise_symbol(symbol), [])
        matches = [h for h in of_symbol if same_timeframe(h.partition.timeframe, timeframe)]
        # A view shows what a table holds.
        matches = [h for h in matches if not h.table.is_view] or matches
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


def _step_or_day(partition: Partition) -> int:
    try:
        return timeframe_ms(partition.timeframe)
    except BitcornError:  # what is stored under it is refused when it is read
        return timeframe_ms("1d")


def _held(database: Connection, tables: list[BarTable], asked_symbol: str | None) -> list[StoredPartition]:
    """Return what a database holds, at least one partition.

    asked_symbol: name of the bars where neither a column of any table nor the file name says one.
    """
    path = database.path
    file_symbol, file_timeframe = partition_of_file(path)
    named = [table for table in tables if table.has("symbol")]
    nameless = file_symbol or (None if named else asked_symbol)
    held = list[StoredPartition]()
    for table in tables if nameless else named:
        keys = [{"symbol": s} for s in _distinct(database, table, "symbol", {})] if table.has("symbol") else [{}]
        for key in keys:
            held += _with_timeframes(database, table, key, nameless or "", file_timeframe)
    if not (named or nameless):
        raise BitcornError(
            f"{path} has no symbol column and its name says no symbol: rename it to SYMBOL_TIMEFRAME.db, such as "
            "btcusdt_1h.db"
        )
    if not held:
        raise BitcornError(f"{path} holds no bars: table {', '.join(t.name for t in tables)} is empty")
    return held


def _with_timeframes(
    database: Connection, table: BarTable, key: dict[str, Any], symbol: str, file_timeframe: str | None
) -> Iterator[StoredPartition]:
    name = str(key.get("symbol", symbol))
    if table.has("timeframe"):
        for timeframe in _distinct(database, table, "timeframe", key):
            yield StoredPartition(table, Partition(name, str(timeframe)), {**key, "timeframe": timeframe})
        return
    times = _newest_times(database, StoredPartition(table, Partition(name, ""), key))
    if file_timeframe and len(times):
        yield StoredPartition(table, Partition(name, file_timeframe), key)
    elif step := modal_step(times):
        yield StoredPartition(table, Partition(name, timeframe_of_ms(step)), key)


def _distinct(database: Connection, table: BarTable, column: str, keys: dict[str, Any]) -> list[Any]:
    """Distinct values: by leaps through an index where one starts with the key, as DISTINCT would visit every row."""
    name, source = table.column(column), table.source
    where = "".join(f" AND {table.column(key)} = :{key}" for key in keys)
    if table.columns.get("symbol", table.columns[column]) in table.leading:
        query = (
            f"WITH RECURSIVE leap(value) AS (SELECT min({name}) FROM {source} WHERE {name} IS NOT NULL{where} "
            f"UNION ALL SELECT (SELECT min({name}) FROM {source} WHERE {name} > value{where}) FROM leap "
            "WHERE value IS NOT NULL) SELECT value FROM leap WHERE value IS NOT NULL"
        )
    else:
        query = f"SELECT DISTINCT {name} FROM {source} WHERE {name} IS NOT NULL{where}"
    return [value for (value,) in database.rows(query, keys)]


def _newest_times(database: Connection, held: StoredPartition) -> NDArray[np.int64]:
    """Return the times of the newest rows, ascending."""
    time = held.table.column("timestamp")
    where = held.where(f"{time} IS NOT NULL")
    query = f"SELECT {time} FROM {held.table.source}{where} ORDER BY {time} DESC LIMIT {_SAMPLE_ROWS}"
    times = np.array([value for (value,) in database.rows(query, held.keys)])
    return np.sort(milliseconds(times, f"column {time} of table {held.table.name}"))


def _mixes_units(database: Connection, held: StoredPartition) -> bool:
    time = held.table.column("timestamp")
    query = f"SELECT min({time}), max({time}) FROM {held.table.source}{held.where()}"
    return mixes_units(*database.rows(query, held.keys)[0])


def _shortened(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _first_text(database: Connection, held: StoredPartition) -> str:
    time = held.table.column("timestamp")
    for name in BAR_COLUMNS:
        column = held.table.column(name)
        where = held.where(f"typeof({column}) IN ('text', 'blob')")
        query = f"SELECT {time}, {column} FROM {held.table.source}{where} LIMIT 1"
        for at, value in database.rows(query, held.keys):
            return (
                f"column {column} of table {held.table.name} in {database.path} holds {value!r} (at {time} = {at!r}), "
                "which is not a number: store numbers, with times as epoch seconds or milliseconds"
            )
    return f"table {held.table.name} in {database.path} could not be read as numbers"


def _to_bars(arrow: pa.Table, where: str) -> Bars:
    times = arrow.column("timestamp")
    if times.null_count:
        raise BitcornError(f"{times.null_count} rows of {where} have no time: remove them")
    # A volume beyond 2^53 is rounded, as any float64 would round it.
    columns = {name: arrow.column(name).cast(pa.float64(), safe=False).to_numpy() for name in BAR_COLUMNS[1:]}
    return Bars(timestamp=milliseconds(times.to_numpy(), f"the time column of {where}"), **columns)
