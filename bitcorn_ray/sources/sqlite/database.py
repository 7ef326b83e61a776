"""Bars out of SQLite databases, whatever their tables and columns are called.

1. `tables` finds the tables of bars, `catalog` the partitions in them.
2. The rows of one partition are read through ADBC straight into Arrow. A column whose type changes from row to row, or
   that holds text, is read once more: its numbers as numbers and its text as text, so that no digit is lost.
3. Each read sees one state of the database and releases its lock at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import BAR_COLUMNS, PRICE_COLUMNS, Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.timeframe import same_timeframe, stored_step, timeframe_ms
from bitcorn_ray.sources.agreement import require_ordered_prices, require_steps
from bitcorn_ray.sources.columns import is_number
from bitcorn_ray.sources.conflicts import find_key_column, has_repeated_times
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.reader import (
    InspectedPartition,
    InspectedTable,
    Inspection,
    Span,
    StoredRows,
    newest_times,
    sorted_by_time,
)
from bitcorn_ray.sources.sqlite.catalog import Catalog, RowSummary, StoredPartition, summarise_rows
from bitcorn_ray.sources.sqlite.columns import merged_numbers, merged_times, one_unit, split_column
from bitcorn_ray.sources.sqlite.connection import Connection, connected, quoted
from bitcorn_ray.sources.sqlite.tables import BarTable, find_tables
from bitcorn_ray.sources.times import ParsedTimes, parse_times, read_times

_BATCH_ROWS = 65_536


@contextmanager
def opened_database(
    path: str | Path, symbol: str | None = None, options: SourceOptions | None = None
) -> Iterator[DatabaseReader]:
    """Open a database for the time of a block.

    symbol: of the bars if neither a column nor a name says one. options: for reading the source.
    Raises BitcornError if the file is missing, is no database, or has no bars.
    """
    with connected(path) as database:
        yield DatabaseReader(database, symbol, options or SourceOptions())


class DatabaseReader:
    """The partitions of one open database; see `PartitionReader`."""

    def __init__(self, database: Connection, symbol: str | None, options: SourceOptions) -> None:
        self._database, self._options = database, options
        self._tables, self._ignored = find_tables(database, options)
        self._catalog = Catalog(database, self._tables, symbol, options.times)

    @property
    def partitions(self) -> list[Partition]:
        """Every symbol x timeframe, sorted, as stored; months, which have no fixed length, are left out.

        A symbol with fewer than two bars has no timeframe if none is stored or named, and is not listed.
        Raises BitcornError if there are no others.
        """
        found = {entry.partition for entry in self._stored}
        fixed = sorted(partition for partition in found if stored_step(partition.timeframe) is not None)
        if not fixed:
            shown = _shortened(sorted(map(str, found)))
            raise BitcornError(f"{self._database.path} holds no bars of a fixed length, but {shown}")
        return fixed

    @cached_property
    def _stored(self) -> list[StoredPartition]:
        stored = self._catalog.partitions
        self._database.release()
        return stored

    def sizes(self) -> dict[Partition, int]:
        """Return about how many bars each partition has.

        If an index gives first and last times, their distance says it: counting would read every row.
        """
        indexed = [
            entry
            for entry in self._stored
            if not entry.keys
            or entry.table.columns["symbol" if "symbol" in entry.keys else "timeframe"] in entry.table.leading
        ]
        others = [entry for entry in self._stored if entry not in indexed]
        counted = summarise_rows(self._database, others)
        sizes = {entry.partition: summary.rows for entry, summary in zip(others, counted, strict=True)}
        for entry in indexed:
            time, source = entry.table.column("timestamp"), f"{entry.table.source}{entry.where()}"
            query = f"SELECT (SELECT min({time}) FROM {source}) AS first, (SELECT max({time}) FROM {source}) AS last"
            ends = self._database.table(query, entry.keys)
            known = (column for column in ends.columns if column.null_count == 0)
            times = [read_times(column, self._options.times)[0].ms[0] for column in known]
            span = abs(int(times[1] - times[0])) if len(times) == 2 else 0
            sizes[entry.partition] = 1 + span // (stored_step(entry.partition.timeframe) or timeframe_ms("1d"))
        self._database.release()
        return sizes

    def read_stored(self, partition: Partition) -> tuple[Bars, Partition]:
        """Read a partition that is named exactly as it is stored, without listing the others."""
        keys = {"symbol": partition.symbol, "timeframe": partition.timeframe}
        found = [
            entry
            for entry in (StoredPartition(t, partition, keys) for t in self._tables if _is_keyed(t))
            if self._database.rows(f"SELECT 1 FROM {entry.table.source}{entry.where()} LIMIT 1", keys)
        ]
        if len(found) == len(self._tables) == 1:
            return self._bars(found[0])[0], partition
        return self.read(partition.symbol, partition.timeframe)

    def read(self, symbol: str, timeframe: str, limit: int | None = None) -> tuple[Bars, Partition]:
        """Read the bars of one partition; see `PartitionReader`.

        Raises BitcornError also for a partition that several tables hold.
        """
        entry = self._find(symbol, timeframe)
        bars = self._bars(entry, limit)[0]
        if not self._options.chooses_among_rows:
            self._require_one_series(entry, bars)
        return bars, entry.partition

    def stored_rows(self, is_requested: Callable[[Partition], bool]) -> Iterator[StoredRows]:
        """Yield the rows of the requested partitions, by time."""
        usable = set(self.partitions)
        for entry in sorted(self._stored, key=lambda entry: entry.partition):
            if entry.partition in usable and is_requested(entry.partition):
                rows, times = self._bars(entry)
                self._require_one_series(entry, rows)
                source = f"table {entry.table.name} of {self._database.path}"
                yield StoredRows(partition=entry.partition, source=source, rows=rows, units=times.units)

    def inspect(self) -> Inspection:
        """Return how the database was understood.

        Each table is passed once for the rows and times of all its partitions. Only if times are text, or their units
        are mixed, all times of a partition are read.
        """
        problems = list[str]()
        try:
            stored = self._stored
        except BitcornError as error:  # the tables are worth showing even if nothing says whose bars they hold
            stored = []
            problems.append(str(error))
        summaries = summarise_rows(self._database, stored)
        partitions = [self._inspected(*entry) for entry in zip(stored, summaries, strict=True)]
        if stored:
            used = {entry.table.name for entry in stored}
            problems += [
                f"table {table.name}: nothing says whose bars they are, or how far apart"
                for table in self._tables
                if table.name not in used
            ]
        return Inspection(
            source=str(self._database.path),
            kind="database",
            tables=[_inspected_table(table) for table in self._tables]
            + [
                InspectedTable(name=table.name, kind="table", further=table.columns, ignored=table.reason)
                for table in self._ignored
            ],
            partitions=partitions,
            problems=problems,
        )

    def _inspected(self, entry: StoredPartition, summary: RowSummary) -> InspectedPartition:
        times, untimed = _times_of(summary), summary.untimed
        if times is None:
            times, bad = merged_times(self._split(entry, ["timestamp"], "", entry.keys), form=self._options.times)
            times, untimed = ParsedTimes(times.ms[~bad], times.how, times.units), int(bad.sum())
        span = Span(summary.rows, *((int(times.ms.min()), int(times.ms.max())) if len(times.ms) else (None, None)))
        partition = entry.partition
        problem = f"{untimed} rows have no time" if untimed else entry.table.doubt
        if stored_step(partition.timeframe) is None:
            problem = f"{partition.timeframe!r} is no timeframe of a fixed length"
        elif problem is None and (span.has_too_many_rows(partition.timeframe) or entry.table.no_timeframes):
            problem = self._conflict(entry)
        return InspectedPartition(
            symbol=partition.symbol,
            timeframe=partition.timeframe,
            table=entry.table.name,
            rows=summary.rows,
            **span.shown(),
            time=times.how,
            units=times.units,
            symbol_from=entry.symbol_from,
            timeframe_from=entry.timeframe_from,
            problem=problem,
        )

    def _require_one_series(self, entry: StoredPartition, bars: Bars) -> None:
        """Raise BitcornError if a further column tells apart rows of one time."""
        if has_repeated_times(bars.timestamp) and (problem := self._conflict(entry)):
            raise BitcornError(problem)

    def _conflict(self, entry: StoredPartition) -> str | None:
        """Return which further column tells apart the rows of one time; None if there is none. See `conflicts`."""
        table = entry.table
        known = {stored for ours, stored in table.columns.items() if ours != "exchange" or ours in entry.keys}
        further = [name for name in table.all_columns if name not in known]
        if table.has("symbol", "timeframe") or not further:
            return None
        texts = [
            f"CASE WHEN typeof({c}) IN ('text', 'integer') THEN CAST({c} AS TEXT) END AS t{index}"
            for index, c in enumerate(map(quoted, further))
        ]
        query = f"SELECT {split_column(table.column('timestamp'), 0)}, {', '.join(texts)} FROM {table.source}"
        count = self._database.rows(f"SELECT count(*) FROM {table.source}{entry.where()}", entry.keys)[0][0]
        rows = self._database.table(f"{query}{entry.where()}", entry.keys, batch_rows=count)
        self._database.release()
        columns = {name: rows[f"t{index}"] for index, name in enumerate(further)}
        return find_key_column(merged_times(rows, form=self._options.times)[0].ms, columns, self._where(entry))

    def _bars(self, entry: StoredPartition, limit: int | None = None) -> tuple[Bars, ParsedTimes]:
        newest = self._newest(entry, limit) if limit is not None else ""
        bars, times = self._ordered(entry, newest, {**entry.keys, "limit": limit} if newest else entry.keys)
        self._database.release()
        # Prices under our own names are as wrong as they are stored; other names may mean something else.
        if any(entry.table.columns[name] != name for name in PRICE_COLUMNS):
            require_ordered_prices(bars, entry.table.columns, dict(self._options.mapping), self._where(entry))
        if "timeframe" not in entry.keys:
            require_steps(bars.timestamp, entry.partition.timeframe, self._where(entry))
        return newest_times(bars, limit), times

    def _newest(self, entry: StoredPartition, limit: int) -> str:
        """Return the condition that selects the newest times; none if SQL's order is not that of time."""
        time, source = entry.table.column("timestamp"), f"{entry.table.source}{entry.where()}"
        if not one_unit(*self._database.rows(f"SELECT min({time}), max({time}) FROM {source}", entry.keys)[0]):
            return ""
        distinct = f"SELECT DISTINCT {time} AS t FROM {source} ORDER BY t DESC LIMIT :limit"
        return f"{time} >= (SELECT min(t) FROM ({distinct}))"

    def _ordered(self, entry: StoredPartition, newest: str, keys: dict[str, Any]) -> tuple[Bars, ParsedTimes]:
        """Read rows in the order of time, equal times in stored order."""
        table, source = entry.table, f"FROM {entry.table.source}{entry.where(*filter(None, [newest]))}"
        names = (*BAR_COLUMNS, *table.extra)
        arrow = self._numbers(f"SELECT {{}} {source} ORDER BY {table.order}", names, entry, keys)
        if arrow is not None:
            bars, times = _to_bars(arrow, table.extra, self._where(entry))
            if len(times.units) < 2 or not table.has_rowid:
                return sorted_by_time(bars), times
            del arrow
        # Text, or several units in one column: SQL's order is not that of time.
        split = self._split(entry, names, newest, keys)
        times, wrong = merged_times(split, 0, self._options.times)
        if wrong.any():
            missing = wrong & np.asarray(pc.and_(pc.is_null(split["n0"]), pc.is_null(split["s0"])))
            self._refuse_times(entry, int(missing.sum()))
        columns: dict[str, NDArray[Any]] = {"timestamp": times.ms}
        for index, name in enumerate(names[1:], start=1):
            columns[name], wrong = merged_numbers(split, index)
            if wrong.any():
                raise BitcornError(self._first_text(entry, name, split[f"s{index}"][int(wrong.argmax())].as_py()))
        return sorted_by_time(_bars_of(columns, table.extra)), times

    def _split(self, entry: StoredPartition, names: Sequence[str], newest: str, keys: dict[str, Any]) -> pa.Table:
        """Read columns in stored order, see `split_column`."""
        source = f"FROM {entry.table.source}{entry.where(*filter(None, [newest]))}"
        parts = [split_column(entry.table.column(name), index) for index, name in enumerate(names)]
        count = self._database.rows(f"SELECT count(*) {source}", keys)[0][0]
        order = " ORDER BY rowid" if entry.table.has_rowid else ""
        return self._database.table(f"SELECT {', '.join(parts)} {source}{order}", keys, batch_rows=count)

    def _numbers(
        self, query: str, names: Sequence[str], entry: StoredPartition, keys: dict[str, Any]
    ) -> pa.Table | None:
        """Read columns of numbers; None if one holds text, or changes its type so late that ADBC refuses it."""
        from adbc_driver_manager import Error

        columns = ", ".join(f"{entry.table.column(name)} AS c{index}" for index, name in enumerate(names))
        try:
            arrow = self._database.table(query.format(columns), keys, batch_rows=_BATCH_ROWS)
        except (Error, OSError) as error:
            if "ype mismatch" not in str(error):
                raise
            return None
        return arrow.rename_columns(list(names)) if all(is_number(field.type) for field in arrow.schema) else None

    def _where(self, entry: StoredPartition) -> str:
        return f"table {entry.table.name} in {self._database.path}"

    def _refuse_times(self, entry: StoredPartition, missing: int) -> NoReturn:
        if missing:
            raise BitcornError(f"{missing} rows of {self._where(entry)} have no time: remove them")
        raise BitcornError(self._first_text(entry, "timestamp", None))

    def _first_text(self, entry: StoredPartition, name: str, text: str | None) -> str:
        """Describe the first value that its column cannot hold. text: the value; None finds the first bad time."""
        table, time, column = entry.table, entry.table.column("timestamp"), entry.table.column(name)
        is_text = (
            f"typeof({column}) IN ('text', 'blob')"
            if text is None
            else f"({column} = :text OR quote({column}) = :text)"
        )
        query = f"SELECT {time} AS t, {column} AS c, quote({column}) AS q FROM {table.source}{entry.where(is_text)}"
        keys = entry.keys if text is None else {**entry.keys, "text": text}
        what = "time" if name == "timestamp" else "number"
        for at, value, _ in self._database.rows(f"{query} LIMIT 1000", keys):
            if name != "timestamp" or read_times(pa.array([value]), self._options.times)[1].any():
                return (
                    f"column {column} of {self._where(entry)} holds {value!r} (at {time} = {at!r}), which is not a "
                    f"{what}: correct or remove these rows"
                )
        return (
            f"column {column} of {self._where(entry)} holds {what}s that cannot be read: correct or remove these rows"
        )

    def _find(self, symbol: str, timeframe: str) -> StoredPartition:
        timeframe_ms(timeframe)
        path, of_symbol = self._database.path, self._catalog.of_symbol(symbol)
        matches = [entry for entry in of_symbol if same_timeframe(entry.partition.timeframe, timeframe)]
        # A view shows what a table holds.
        matches = [entry for entry in matches if not entry.table.is_view] or matches
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(f"{entry.partition} in table {entry.table.name}" for entry in matches)
            tables = {entry.table.name for entry in matches}
            remedy = f"choose one by --table {matches[0].table.name}" if len(tables) > 1 else "keep one of them"
            raise BitcornError(f"{path} holds {symbol} {timeframe} more than once ({names}): {remedy}")
        unclear = "".join(f"; table {table.name}: {table.reason}" for table in self._ignored if table.unclear)
        if of_symbol:
            exist = ", ".join(sorted({entry.partition.timeframe for entry in of_symbol}))
            raise BitcornError(f"{path} has no {timeframe} bars of {symbol}: it has {exist}{unclear}")
        symbols = self._catalog.symbols
        if not symbols or not self._stored:
            raise BitcornError(f"{path} holds no bars")
        raise BitcornError(f"{path} has no symbol {symbol!r}: it has {_shortened(symbols)}{unclear}")


def _is_keyed(table: BarTable) -> bool:
    return table.has("symbol", "timeframe") and not table.has("exchange")


def _inspected_table(table: BarTable) -> InspectedTable:
    return InspectedTable(
        name=table.name,
        kind="view" if table.is_view else "table",
        columns=table.columns,
        further=tuple(name for name in table.all_columns if name not in set(table.columns.values())),
    )


def _times_of(summary: RowSummary) -> ParsedTimes | None:
    """Return the first and last time, with units for all rows; None if these say nothing about the others."""
    if not one_unit(summary.smallest, summary.largest):
        return None
    times, bad = read_times(pa.array([summary.smallest, summary.largest]))
    timed = summary.rows - summary.untimed
    return None if bad.any() else ParsedTimes(times.ms, times.how, dict.fromkeys(times.units, timed))


def _shortened(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _to_bars(arrow: pa.Table, extra: Mapping[str, str], where: str) -> tuple[Bars, ParsedTimes]:
    times = parse_times(arrow["timestamp"], f"the time column of {where}")
    # A volume beyond 2^53 is rounded, as any float64 would round it.
    columns = {name: arrow[name].cast(pa.float64(), safe=False).to_numpy() for name in arrow.column_names[1:]}
    return _bars_of({"timestamp": times.ms, **columns}, extra), times


def _bars_of(columns: Mapping[str, NDArray[Any]], extra: Mapping[str, str]) -> Bars:
    own: dict[str, Any] = {name: column for name, column in columns.items() if name not in extra}
    return Bars(**own, extra={name: columns[name] for name in extra})
