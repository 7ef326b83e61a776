"""Which partitions the tables of a database hold, and how each symbol and timeframe is decided.

1. The symbol comes from a column, together with the exchange column if a table holds several exchanges; else from the
   table's name; else from the file's name. If nothing says it, each of several tables is a symbol of its own name, and
   a single table is taken for the requested symbol. Tables without symbols do not count beside tables with a symbol
   column, unless their names say one.
2. The timeframe comes from a column, else from the table's name, else from the file's name, else it is the most
   frequent distance of the bars. A column of bare numbers counts minutes or seconds, whichever fits the bars' distance.
   Partitions of months are listed here; `database` leaves them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import modal_step
from bitcorn_ray.market.names import ParsedName, parse_name, without_endings
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import choose_step, numeric_steps, stored_step, timeframe_ms, timeframe_of_ms
from bitcorn_ray.sources.sqlite.columns import merged_times, one_unit, split_column
from bitcorn_ray.sources.sqlite.connection import Connection
from bitcorn_ray.sources.sqlite.tables import BarTable
from bitcorn_ray.sources.times import PLAIN, TimeForm

_SAMPLE_ROWS = 200
_TABLES_PER_QUERY = 200
_RowKey = tuple[str, tuple[Any, ...]]  # a table, and the values of its key columns


@dataclass(frozen=True)
class StoredPartition:
    """A partition in a table.

    keys: stored values of its key columns (symbol, timeframe, exchange), as far as there are such columns.
    symbol_from, timeframe_from: how each was decided, in words.
    """

    table: BarTable
    partition: Partition
    keys: dict[str, Any]
    symbol_from: str = ""
    timeframe_from: str = ""

    def where(self, *more: str) -> str:
        """Return the SQL condition that selects its rows, with the named parameters of `keys`."""
        conditions = [*(f"{self.table.column(key)} = :{key}" for key in self.keys), *more]
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""


@dataclass(frozen=True)
class _Symbol:
    """A symbol of a table. keys: as in `StoredPartition`."""

    table: BarTable
    name: str
    keys: dict[str, Any]
    decided_by: str


class Catalog:
    """The partitions of the tables of one open database.

    default_symbol: symbol of the bars if nothing else says one. times: how they are written.
    problems: partitions that cannot be identified.
    """

    def __init__(
        self,
        database: Connection,
        tables: list[BarTable],
        default_symbol: str | None = None,
        times: TimeForm = PLAIN,
    ) -> None:
        self._database, self._tables, self._default_symbol, self._form = database, tables, default_symbol, times
        self.problems: list[str] = []
        self._timeframes: dict[str, dict[Any, list[Any]]] = {}  # by table and symbol
        self._times: dict[str, dict[Any, NDArray[np.int64]]] = {}  # likewise

    @cached_property
    def partitions(self) -> list[StoredPartition]:
        """Every partition, at least one. Raises BitcornError if nothing says a symbol, or if there are no bars."""
        stored = [partition for symbol in self._symbols for partition in self._partitions_of(symbol)]
        if not stored:
            if self.problems:
                raise BitcornError("; ".join(self.problems))
            tables = ", ".join(table.name for table in self._tables)
            raise BitcornError(f"{self._database.path} holds no bars: table {tables} is empty")
        return stored

    def of_symbol(self, symbol: str) -> list[StoredPartition]:
        """Return the partitions of a symbol in any spelling, without looking for the timeframes of others."""
        wanted = normalise_symbol(symbol)
        return [
            partition
            for candidate in self._symbols
            if normalise_symbol(candidate.name) == wanted
            for partition in self._partitions_of(candidate)
        ]

    @cached_property
    def symbols(self) -> list[str]:
        """Every symbol, sorted, as stored."""
        return sorted({symbol.name for symbol in self._symbols})

    @cached_property
    def _symbols(self) -> list[_Symbol]:
        keyed = [table for table in self._tables if table.has("symbol")]
        plain = [table for table in self._tables if not table.has("symbol")]
        found = [symbol for table in keyed for symbol in self._in_columns(table)]
        named = [symbol for table in plain if (symbol := self._in_names(table, plain, bool(keyed))) is not None]
        if not (keyed or named):
            raise BitcornError(
                f"{self._database.path} has no symbol column and its name says no symbol: rename it to "
                "SYMBOL_TIMEFRAME.db, such as btcusdt_1h.db"
            )
        return found + named

    def _in_columns(self, table: BarTable) -> list[_Symbol]:
        if table.has("exchange") and (several := self._of_exchanges(table)):
            return several
        decided_by = f"column {table.columns['symbol']}"
        return [
            _Symbol(table, str(value), {"symbol": value}, decided_by) for value in self._distinct(table, "symbol", {})
        ]

    def _in_names(self, table: BarTable, plain: Sequence[BarTable], any_keyed: bool) -> _Symbol | None:
        """Return the symbol of a table without a symbol column; None if it is unknown."""
        by_table, by_file = table.named, self._of_file
        if by_table.symbol and not by_table.uncertain:
            return _Symbol(table, by_table.symbol, {}, "the table's name")
        if by_file.symbol and not by_file.uncertain:
            return _Symbol(table, by_file.symbol, {}, "the file's name")
        if any_keyed:
            return None
        if by_table.symbol and (len(plain) > 1 or _is_ticker(table.name)):
            return _Symbol(table, by_table.symbol, {}, "the table's name")
        if self._default_symbol:
            return _Symbol(table, self._default_symbol, {}, "the requested symbol, as nothing says it")
        return None

    def _of_exchanges(self, table: BarTable) -> list[_Symbol]:
        """Return the symbols of a table with several exchanges; one that is on several of them is SYMBOL.EXCHANGE."""
        symbol, exchange = table.column("symbol"), table.column("exchange")
        first, last = self._database.rows(f"SELECT min({exchange}), max({exchange}) FROM {table.source}")[0]
        if first == last:
            return []
        where = f"{symbol} IS NOT NULL AND {exchange} IS NOT NULL"
        pairs = self._database.rows(f"SELECT DISTINCT {symbol}, {exchange} FROM {table.source} WHERE {where}")
        exchanges = Counter(name for name, _ in pairs)
        decided_by = f"columns {table.columns['symbol']} and {table.columns['exchange']}"
        return [
            _Symbol(
                table,
                str(name) if exchanges[name] == 1 else f"{name}.{venue}",
                {"symbol": name, "exchange": venue},
                decided_by,
            )
            for name, venue in pairs
        ]

    def _partitions_of(self, symbol: _Symbol) -> Iterator[StoredPartition]:
        """Yield the timeframes of a symbol."""
        table = symbol.table

        def partition(timeframe: str, keys: dict[str, Any], decided_by: str = "") -> StoredPartition:
            return StoredPartition(table, Partition(symbol.name, timeframe), keys, symbol.decided_by, decided_by)

        if table.has("timeframe"):
            column = f"column {table.columns['timeframe']}"
            for stored in self._distinct(table, "timeframe", symbol.keys):
                keys = {**symbol.keys, "timeframe": stored}
                text, decided_by, step = str(stored), column, stored_step(str(stored))
                if step is None and (steps := numeric_steps(stored)):
                    text, unit = self._of_number(partition(text, keys), steps)
                    decided_by = f"{column}, {stored} {unit}"
                elif step is not None and not _is_plain(text):
                    text, decided_by = timeframe_of_ms(step), f"{column}, {stored}"
                yield partition(text, keys, decided_by)
            return
        for named, decided_by in ((table.named, "the table's name"), (self._of_file, "the file's name")):
            if timeframe := named.month or named.timeframe:
                found = partition(timeframe, symbol.keys, decided_by)
                if not symbol.keys or len(self._newest_times(found, 1)):
                    yield found
                return
        if step := modal_step(self._newest_times(partition("", symbol.keys))):
            yield partition(timeframe_of_ms(step), symbol.keys, "the bars' most frequent distance")

    @cached_property
    def _of_file(self) -> ParsedName:
        return parse_name(without_endings(self._database.path.name))

    def _of_number(self, stored: StoredPartition, steps: list[int]) -> tuple[str, str]:
        """Return the timeframe and unit that a bare number stands for; the bars' distance decides between several."""
        number = int(stored.partition.timeframe)
        step = steps[0] if len(steps) == 1 else choose_step(steps, modal_step(self._newest_times(stored)))
        unit = {60_000: "minutes", 1_000: "seconds", 1: "milliseconds"}[step // number]
        return timeframe_of_ms(step), unit

    def _distinct(self, table: BarTable, column: str, keys: dict[str, Any]) -> list[Any]:
        """Return distinct values; an index is searched from value to value, since DISTINCT would visit every row."""
        name, source = table.column(column), table.source
        where = "".join(f" AND {table.column(key)} = :{key}" for key in keys)
        if table.columns.get("symbol", table.columns[column]) in table.leading:
            query = (
                f"WITH RECURSIVE leap(value) AS (SELECT min({name}) FROM {source} WHERE {name} IS NOT NULL{where} "
                f"UNION ALL SELECT (SELECT min({name}) FROM {source} WHERE {name} > value{where}) FROM leap "
                "WHERE value IS NOT NULL) SELECT value FROM leap WHERE value IS NOT NULL"
            )
        elif set(keys) == {"symbol"}:
            return self._timeframes_by_symbol(table).get(keys["symbol"], [])
        else:
            query = f"SELECT DISTINCT {name} FROM {source} WHERE {name} IS NOT NULL{where}"
        return [value for (value,) in self._database.rows(query, keys)]

    def _timeframes_by_symbol(self, table: BarTable) -> dict[Any, list[Any]]:
        """Return the timeframes of every symbol, from one pass over a table without an index."""
        if table.name not in self._timeframes:
            symbol, timeframe = table.column("symbol"), table.column("timeframe")
            where = f"{symbol} IS NOT NULL AND {timeframe} IS NOT NULL"
            found: dict[Any, list[Any]] = {}
            for name, stored in self._database.rows(
                f"SELECT DISTINCT {symbol}, {timeframe} FROM {table.source} WHERE {where}"
            ):
                found.setdefault(name, []).append(stored)
            self._timeframes[table.name] = found
        return self._timeframes[table.name]

    def _newest_times(self, stored: StoredPartition, most: int = _SAMPLE_ROWS) -> NDArray[np.int64]:
        """Return the times of about the newest rows, ascending; of all rows if their units or forms are mixed."""
        if set(stored.keys) == {"symbol"} and stored.table.columns["symbol"] not in stored.table.leading:
            return self._times_by_symbol(stored.table).get(stored.keys["symbol"], np.zeros(0, np.int64))
        time = stored.table.column("timestamp")
        source = f"FROM {stored.table.source}{stored.where(f'{time} IS NOT NULL')}"
        first, last = self._database.rows(f"SELECT min({time}), max({time}) {source}", stored.keys)[0]
        limit = f" ORDER BY {time} DESC LIMIT {most}" if one_unit(first, last) or most == 1 else ""
        count = most if limit else self._database.rows(f"SELECT count(*) {source}", stored.keys)[0][0]
        split = self._database.table(f"SELECT {split_column(time, 0)} {source}{limit}", stored.keys, batch_rows=count)
        return np.sort(self._readable(split, stored.table)[0])

    def _times_by_symbol(self, table: BarTable) -> dict[Any, NDArray[np.int64]]:
        """Return the times of every symbol, ascending, from one pass over a table without an index."""
        if table.name not in self._times:
            symbol, time = table.column("symbol"), table.column("timestamp")
            source = f"FROM {table.source} WHERE {symbol} IS NOT NULL AND {time} IS NOT NULL"
            count = self._database.rows(f"SELECT count(*) {source}")[0][0]
            rows = self._database.table(f"SELECT {symbol} AS symbol, {split_column(time, 0)} {source}", None, count)
            ms, bad = self._readable(rows, table)
            encoded = pc.dictionary_encode(rows["symbol"].filter(pa.array(~bad)).combine_chunks())
            codes = encoded.indices.to_numpy(zero_copy_only=False)
            order = np.lexsort((ms, codes))
            parts = np.split(ms[order], np.searchsorted(codes[order], np.arange(1, len(encoded.dictionary))))
            self._times[table.name] = dict(zip(encoded.dictionary.to_pylist(), parts, strict=False))
        return self._times[table.name]

    def _readable(self, split: pa.Table, table: BarTable) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the readable times, and which rows have none; a column without any is a problem."""
        parsed, bad = merged_times(split, form=self._form)
        if bad.any() and bad.all():
            value = split["s0"][0].as_py() or split["n0"][0].as_py()
            where = f"column {table.column('timestamp')} of table {table.name} in {self._database.path}"
            self.problems.append(f"{where} holds {value!r}, which is not a time: correct these rows")
        return parsed.ms[~bad], bad


@dataclass(frozen=True)
class RowSummary:
    """Rows of a partition, its smallest and largest time if these are numbers, and how many rows have no time."""

    rows: int
    smallest: int | float | None
    largest: int | float | None
    untimed: int = 0


def summarise_rows(database: Connection, stored: Iterable[StoredPartition]) -> list[RowSummary]:
    """Summarise the rows of each partition in one pass over each table, small tables in one query."""
    stored, found = list(stored), dict[_RowKey, RowSummary]()
    for table, keys in {entry.table.name: (entry.table, tuple(entry.keys)) for entry in stored if entry.keys}.values():
        found |= _summarise_keys(database, table, keys)
    plain = [entry.table for entry in stored if not entry.keys]
    for start in range(0, len(plain), _TABLES_PER_QUERY):
        found |= _summarise_tables(database, plain[start : start + _TABLES_PER_QUERY])
    return [found[entry.table.name, tuple(entry.keys.values())] for entry in stored]


_SUMMARY = (
    "n, CASE WHEN typeof(a) IN ('integer', 'real') THEN a END AS a, "
    "CASE WHEN typeof(z) IN ('integer', 'real') THEN z END AS z, n - timed AS untimed"
)


def _aggregates(table: BarTable) -> str:
    time = table.column("timestamp")
    return f"count(*) AS n, min({time}) AS a, max({time}) AS z, count({time}) AS timed FROM {table.source}"


def _summarise_keys(database: Connection, table: BarTable, keys: Sequence[str]) -> Mapping[_RowKey, RowSummary]:
    names = ", ".join(f"k{index}" for index in range(len(keys)))
    selected = ", ".join(f"{table.column(key)} AS k{index}" for index, key in enumerate(keys))
    groups = f"SELECT {selected}, {_aggregates(table)} GROUP BY {', '.join(map(table.column, keys))}"
    found = database.rows(f"SELECT {names}, {_SUMMARY} FROM ({groups})")
    return {(table.name, row[: len(keys)]): RowSummary(*row[len(keys) :]) for row in found}


def _summarise_tables(database: Connection, tables: Sequence[BarTable]) -> Mapping[_RowKey, RowSummary]:
    selects = (f"SELECT {index} AS i, {_aggregates(table)}" for index, table in enumerate(tables))
    found = database.rows(f"SELECT i, {_SUMMARY} FROM ({' UNION ALL '.join(selects)})")
    return {(tables[index].name, ()): RowSummary(*summary) for index, *summary in found}


def _is_plain(text: str) -> bool:
    """Return True if a stored timeframe is written as users write it, in either case."""
    try:
        timeframe_ms(text)
    except BitcornError:
        return False
    return True


def _is_ticker(name: str) -> bool:
    return name.isascii() and name.isalnum() and name.isupper() and len(name) <= 6
