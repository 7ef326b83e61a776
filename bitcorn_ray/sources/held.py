"""Which partitions the tables of a database hold, and how each symbol and timeframe was decided.

1. The symbol stands in a column, with the exchange in another where a table holds a symbol of several; else the table's
   name says it, else the file's name. Where neither does, several tables are each a symbol by its name, and of a single
   one the symbol that is asked for is taken at its word. Tables without symbols do not count beside tables with a
   symbol column, unless their names say one.
2. The timeframe stands in a column; else the table's name says it, else the file's name, else it is the most frequent
   distance of the bars. A column with bare numbers counts minutes or seconds, whichever the bars' distance fits. A
   partition of a month is told as any other, for `database` to leave out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import modal_step
from bitcorn_ray.market.names import Named, said_by_name
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import meant_step, numeric_steps, stored_step, timeframe_ms, timeframe_of_ms
from bitcorn_ray.sources.connection import Connection
from bitcorn_ray.sources.mixed import merged_times, split_column
from bitcorn_ray.sources.tables import BarTable
from bitcorn_ray.sources.times import UNIT_BOUNDS

_SAMPLE_ROWS = 200


@dataclass(frozen=True)
class StoredPartition:
    """A partition in a table.

    keys: the stored values of its symbol and timeframe columns, where there are such. symbol_from, timeframe_from: how
    each was decided, in words.
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


class HeldPartitions:
    """The partitions of the tables of one open database.

    asked: name of the bars where nothing else says one. problems: partitions that cannot be told, in words.
    """

    def __init__(self, database: Connection, tables: list[BarTable], asked: str | None = None) -> None:
        self._database, self._tables, self._asked = database, tables, asked
        self.problems: list[str] = []
        self._timeframes: dict[str, dict[Any, list[Any]]] = {}  # by table and symbol
        self._times: dict[str, dict[Any, NDArray[np.int64]]] = {}  # likewise

    @cached_property
    def all(self) -> list[StoredPartition]:
        """Every partition, at least one. Raises BitcornError where nothing says a symbol, or where there is none."""
        held = [each for table, symbol, keys, how in self._named_tables for each in self._of(table, symbol, keys, how)]
        if not held:
            if self.problems:
                raise BitcornError("; ".join(self.problems))
            tables = ", ".join(table.name for table in self._tables)
            raise BitcornError(f"{self._database.path} holds no bars: table {tables} is empty")
        return held

    def of_symbol(self, symbol: str) -> list[StoredPartition]:
        """Those of a symbol in any spelling; the timeframes of others are not looked for."""
        wanted = normalise_symbol(symbol)
        return [
            each
            for table, name, keys, how in self._named_tables
            if normalise_symbol(name) == wanted
            for each in self._of(table, name, keys, how)
        ]

    @cached_property
    def symbols(self) -> list[str]:
        """Every symbol, sorted, as stored."""
        return sorted({name for _, name, _, _ in self._named_tables})

    @cached_property
    def _named_tables(self) -> list[tuple[BarTable, str, dict[str, Any], str]]:
        """Each symbol of each table: (table, symbol, its key, how it was decided)."""
        return list(self._symbols())

    def _symbols(self) -> Iterator[tuple[BarTable, str, dict[str, Any], str]]:
        path = self._database.path
        keyed = [table for table in self._tables if table.has("symbol")]
        plain = [table for table in self._tables if not table.has("symbol")]
        of_file = self._of_file
        file_symbol = None if of_file.perhaps else of_file.symbol
        for table in keyed:
            how = f"column {table.columns['symbol']}"
            if table.has("exchange") and (several := self._of_exchanges(table)):
                yield from several
                continue
            for value in self._distinct(table, "symbol", {}):
                yield table, str(value), {"symbol": value}, how
        told = False
        for table in plain:
            said = table.named
            if said.symbol and not said.perhaps:
                yield table, said.symbol, {}, "the table's name"
            elif file_symbol:
                yield table, file_symbol, {}, "the file's name"
            elif keyed:
                continue
            elif said.symbol and (len(plain) > 1 or _is_ticker(table.name)):
                yield table, said.symbol, {}, "the table's name"
            elif self._asked:
                yield table, self._asked, {}, "what was asked for, as nothing says it"
            else:
                continue
            told = True
        if not (keyed or told):
            raise BitcornError(
                f"{path} has no symbol column and its name says no symbol: rename it to SYMBOL_TIMEFRAME.db, such as "
                "btcusdt_1h.db"
            )

    def _of_exchanges(self, table: BarTable) -> list[tuple[BarTable, str, dict[str, Any], str]]:
        """Return the symbols of a table with several exchanges; one that is on several of them is SYMBOL.EXCHANGE."""
        symbol, exchange = table.column("symbol"), table.column("exchange")
        first, last = self._database.rows(f"SELECT min({exchange}), max({exchange}) FROM {table.source}")[0]
        if first == last:
            return []
        where = f"{symbol} IS NOT NULL AND {exchange} IS NOT NULL"
        pairs = self._database.rows(f"SELECT DISTINCT {symbol}, {exchange} FROM {table.source} WHERE {where}")
        on = Counter(name for name, _ in pairs)
        how = f"columns {table.columns['symbol']} and {table.columns['exchange']}"
        return [
            (table, str(name) if on[name] == 1 else f"{name}.{venue}", {"symbol": name, "exchange": venue}, how)
            for name, venue in pairs
        ]

    def _of(self, table: BarTable, symbol: str, key: dict[str, Any], how: str) -> Iterator[StoredPartition]:
        """Yield the timeframes of a symbol."""
        if table.has("timeframe"):
            from_column = f"column {table.columns['timeframe']}"
            for stored in self._distinct(table, "timeframe", key):
                keys = {**key, "timeframe": stored}
                text, decided = str(stored), from_column
                if stored_step(text) is None and (steps := numeric_steps(stored)):
                    name, unit = self._meant(StoredPartition(table, Partition(symbol, text), keys), steps)
                    text, decided = name, f"{from_column}, {stored} {unit}"
                elif stored_step(text) is not None and not _is_plain(text):
                    text, decided = timeframe_of_ms(stored_step(text) or 0), f"{from_column}, {stored}"
                yield StoredPartition(table, Partition(symbol, text), keys, how, decided)
            return
        said, of_file = table.named, self._of_file
        for named, decided in ((said, "the table's name"), (of_file, "the file's name")):
            if timeframe := named.month or named.timeframe:
                held = StoredPartition(table, Partition(symbol, timeframe), key, how, decided)
                if key == {} or len(self.newest_times(held, 1)):
                    yield held
                return
        held = StoredPartition(table, Partition(symbol, ""), key)
        if step := modal_step(self.newest_times(held)):
            name = timeframe_of_ms(step)
            yield StoredPartition(table, Partition(symbol, name), key, how, "the bars' most frequent distance")

    @cached_property
    def _of_file(self) -> Named:
        return said_by_name(self._database.path.name.split(".")[0])

    def _meant(self, held: StoredPartition, steps: list[int]) -> tuple[str, str]:
        """Timeframe and unit that a bare number means; the bars' distance decides between several."""
        number = int(held.partition.timeframe)
        step = steps[0] if len(steps) == 1 else meant_step(steps, modal_step(self.newest_times(held)))
        unit = {60_000: "minutes", 1_000: "seconds", 1: "milliseconds"}[step // number]
        return timeframe_of_ms(step), unit

    def _distinct(self, table: BarTable, column: str, keys: dict[str, Any]) -> list[Any]:
        """Distinct values, by leaps through an index where one starts with the key: DISTINCT would visit every row."""
        name, source = table.column(column), table.source
        where = "".join(f" AND {table.column(key)} = :{key}" for key in keys)
        if table.columns.get("symbol", table.columns[column]) in table.leading:
            query = (
                f"WITH RECURSIVE leap(value) AS (SELECT min({name}) FROM {source} WHERE {name} IS NOT NULL{where} "
                f"UNION ALL SELECT (SELECT min({name}) FROM {source} WHERE {name} > value{where}) FROM leap "
                "WHERE value IS NOT NULL) SELECT value FROM leap WHERE value IS NOT NULL"
            )
        elif keys and set(keys) == {"symbol"}:
            return self._timeframes_by_symbol(table).get(keys["symbol"], [])
        else:
            query = f"SELECT DISTINCT {name} FROM {source} WHERE {name} IS NOT NULL{where}"
        return [value for (value,) in self._database.rows(query, keys)]

    def _timeframes_by_symbol(self, table: BarTable) -> dict[Any, list[Any]]:
        """Timeframes of every symbol in one pass, where no index would tell those of one."""
        if table.name not in self._timeframes:
            symbol, timeframe = table.column("symbol"), table.column("timeframe")
            query = (
                f"SELECT DISTINCT {symbol}, {timeframe} FROM {table.source} WHERE {symbol} IS NOT NULL AND "
                f"{timeframe} IS NOT NULL"
            )
            found: dict[Any, list[Any]] = {}
            for of_symbol, stored in self._database.rows(query):
                found.setdefault(of_symbol, []).append(stored)
            self._timeframes[table.name] = found
        return self._timeframes[table.name]

    def newest_times(self, held: StoredPartition, most: int = _SAMPLE_ROWS) -> NDArray[np.int64]:
        """Return the times of about the newest rows, ascending; of all rows where their units or forms are mixed."""
        if set(held.keys) == {"symbol"} and held.table.columns["symbol"] not in held.table.leading:
            return self._times_by_symbol(held.table).get(held.keys["symbol"], np.zeros(0, np.int64))
        time = held.table.column("timestamp")
        source = f"FROM {held.table.source}{held.where(f'{time} IS NOT NULL')}"
        first, last = self._database.rows(f"SELECT min({time}), max({time}) {source}", held.keys)[0]
        limit = f" ORDER BY {time} DESC LIMIT {most}" if one_unit(first, last) or most == 1 else ""
        count = most if limit else self._database.rows(f"SELECT count(*) {source}", held.keys)[0][0]
        split = self._database.table(f"SELECT {split_column(time, 0)} {source}{limit}", held.keys, batch_rows=count)
        return np.sort(self._readable(split, held.table)[0])

    def _times_by_symbol(self, table: BarTable) -> dict[Any, NDArray[np.int64]]:
        """Times of every symbol, ascending, in one pass: without an index each symbol would be a pass of its own."""
        if table.name not in self._times:
            symbol, time = table.column("symbol"), table.column("timestamp")
            source = f"FROM {table.source} WHERE {symbol} IS NOT NULL AND {time} IS NOT NULL"
            count = self._database.rows(f"SELECT count(*) {source}")[0][0]
            query = f"SELECT {symbol} AS symbol, {split_column(time, 0)} {source}"
            arrow = self._database.table(query, batch_rows=count)
            ms, bad = self._readable(arrow, table)
            encoded = pc.dictionary_encode(arrow["symbol"].filter(pa.array(~bad)).combine_chunks())
            codes = encoded.indices.to_numpy(zero_copy_only=False)
            order = np.lexsort((ms, codes))
            starts = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
            names = encoded.dictionary.to_pylist()
            self._times[table.name] = {
                name: ms[order[start:stop]] for name, start, stop in zip(names, starts[:-1], starts[1:], strict=True)
            }
        return self._times[table.name]

    def _readable(self, split: pa.Table, table: BarTable) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the times that can be read, and which rows hold none; where none can, that is a problem."""
        parsed, bad = merged_times(split)
        if bad.any() and bad.all():
            value = split["s0"][0].as_py() or split["n0"][0].as_py()
            where = f"column {table.column('timestamp')} of table {table.name} in {self._database.path}"
            self.problems.append(f"{where} holds {value!r}, which is not a time: correct these rows")
        return parsed.ms[~bad], bad


def one_unit(first: object, last: object) -> bool:
    """Tell whether all times between the smallest and the largest of a column are numbers of one unit.

    >>> one_unit(1_502_942_400, 1_502_942_400_000)
    False
    """
    if not (isinstance(first, int | float) and isinstance(last, int | float)):
        return False
    return any(low <= first and last < high for _, low, high in UNIT_BOUNDS)


def _is_plain(text: str) -> bool:
    """Tell whether a stored timeframe is written as users write it, in either case."""
    try:
        timeframe_ms(text)
    except BitcornError:
        return False
    return True


def _is_ticker(name: str) -> bool:
    return name.isascii() and name.isalnum() and name.isupper() and len(name) <= 6
