"""Bars out of SQLite databases, whatever their tables and columns are called.

1. `tables` finds the tables of bars, `held` the partitions in them.
2. The rows of one partition are read through ADBC straight into Arrow. Where a column changes its type from row to row,
   or holds text, it is read once more: its numbers as numbers and its text as text, so that no digit is lost.
3. Each read sees one state of the database and gives its lock back at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import BAR_COLUMNS, Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.timeframe import same_timeframe, stored_step, timeframe_ms
from bitcorn_ray.sources.apart import mixture, repeats
from bitcorn_ray.sources.columns import is_number
from bitcorn_ray.sources.connection import Connection, connected, quoted
from bitcorn_ray.sources.ends import ends_of
from bitcorn_ray.sources.held import HeldPartitions, StoredPartition, one_unit
from bitcorn_ray.sources.mixed import merged_numbers, merged_times, split_column
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.tables import BarTable, find_tables
from bitcorn_ray.sources.times import ParsedTimes, parse_times, read_times

_BATCH_ROWS = 65_536


def list_partitions(db_path: str | Path, reading: Reading | None = None) -> list[Partition]:
    """Every symbol x timeframe of a database, sorted, as stored.

    Where no timeframe is stored or named, a symbol with fewer than two bars has none and is not listed, and neither are
    bars of a month.
    Raises BitcornError where the file is missing, is no database, or has no bars.
    """
    with opened_bars(db_path, reading=reading) as reader:
        return reader.partitions


def read_bars(
    db_path: str | Path, symbol: str, timeframe: str, limit: int | None = None, reading: Reading | None = None
) -> tuple[Bars, Partition]:
    """Read the bars of one partition; see `BarReader.read` for what is returned and raised."""
    with opened_bars(db_path, symbol, reading) as reader:
        return reader.read(symbol, timeframe, limit)


@contextmanager
def opened_bars(db_path: str | Path, symbol: str | None = None, reading: Reading | None = None) -> Iterator[BarReader]:
    """Open a database for as long as a block lasts.

    symbol: name of the bars where neither a column nor a name says one. reading: what the user says about it.
    Raises BitcornError where the file is missing, is no database, or has no bars.
    """
    with connected(db_path) as database:
        yield BarReader(database, symbol, reading or Reading())


class BarReader:
    """The partitions of one open database."""

    def __init__(self, database: Connection, symbol: str | None, reading: Reading) -> None:
        self._database, self._reading = database, reading
        self.tables, self.ignored = find_tables(database, reading)
        self._held = HeldPartitions(database, self.tables, symbol)

    @property
    def partitions(self) -> list[Partition]:
        """Every symbol x timeframe, sorted, as stored, but for those whose timeframe has no fixed length (a month).

        Raises BitcornError where there are no others.
        """
        held = {each.partition for each in self.held}
        fixed = sorted(each for each in held if stored_step(each.timeframe) is not None)
        if not fixed:
            told = _shortened(sorted(map(str, held)))
            raise BitcornError(f"{self._database.path} holds no bars of a fixed length, but {told}")
        return fixed

    @cached_property
    def held(self) -> list[StoredPartition]:
        """Every partition with the table that it is in, and how it was understood."""
        held = self._held.all
        self._database.release()
        return held

    def sizes(self) -> dict[Partition, int]:
        """About how many bars each partition has.

        Where an index tells first and last times, by these: counting would read every row.
        """
        indexed = [
            h
            for h in self.held
            if not h.keys or h.table.columns["symbol" if "symbol" in h.keys else "timeframe"] in h.table.leading
        ]
        others = [held for held in self.held if held not in indexed]
        sizes = {held.partition: ends.rows for held, ends in zip(others, ends_of(self._database, others), strict=True)}
        for held in indexed:
            time, source = held.table.column("timestamp"), f"{held.table.source}{held.where()}"
            query = f"SELECT (SELECT min({time}) FROM {source}) AS first, (SELECT max({time}) FROM {source}) AS last"
            ends = self._database.table(query, held.keys)
            times = [read_times(column)[0].ms[0] for column in ends.columns if column.null_count == 0]
            span = abs(int(times[1] - times[0])) if len(times) == 2 else 0
            sizes[held.partition] = 1 + span // (stored_step(held.partition.timeframe) or timeframe_ms("1d"))
        self._database.release()
        return sizes

    def read_stored(self, partition: Partition) -> tuple[Bars, Partition]:
        """Read a partition that is named exactly as it is stored, without listing the others.

        Raises BitcornError as `read` does.
        """
        keys = {"symbol": partition.symbol, "timeframe": partition.timeframe}
        found = [
            held
            for held in (StoredPartition(t, partition, keys) for t in self.tables if _is_keyed(t))
            if self._database.rows(f"SELECT 1 FROM {held.table.source}{held.where()} LIMIT 1", keys)
        ]
        if len(found) == len(self.tables) == 1:
            return self._bars(found[0], None)[0], partition
        return self.read(partition.symbol, partition.timeframe)

    def read(self, symbol: str, timeframe: str, limit: int | None = None) -> tuple[Bars, Partition]:
        """Read the bars of one partition, ascending in time; rows of one time stay side by side, in stored order.

        symbol: in any spelling. limit: only the rows of the newest so many different times.
        Returns (bars, the partition as stored).
        Raises BitcornError for an unknown symbol or timeframe (naming those that exist), for a partition that several
        tables hold, for times and values that are not numbers, and, unless the policy chooses among rows of one time,
        for rows that a further column tells apart.
        """
        if limit is not None and limit < 1:
            raise BitcornError(f"limit is {limit}: it must be at least 1, or None for all bars")
        held = self._find(symbol, timeframe)
        bars = self._bars(held, limit)[0]
        if not self._reading.chooses_among_rows and repeats(bars.timestamp) and (problem := self.mixture(held)):
            raise BitcornError(problem)
        return bars, held.partition

    def read_held(self, held: StoredPartition) -> tuple[Bars, ParsedTimes]:
        """Read one of `held`, and how its times were understood. Raises BitcornError as `read` does."""
        return self._bars(held, None)

    def read_times(self, held: StoredPartition) -> tuple[ParsedTimes, NDArray[np.bool_]]:
        """Read the times of one of `held` as stored, and which rows have none."""
        return merged_times(self._split(held, ["timestamp"], "", held.keys), 0)

    def mixture(self, held: StoredPartition) -> str | None:
        """Say which column tells the rows of one of `held` apart that stand at the same times; see `apart`."""
        table = held.table
        known = {stored for ours, stored in table.columns.items() if ours != "exchange" or ours in held.keys}
        further = [name for name in table.all_columns if name not in known]
        if table.has("symbol", "timeframe") or not further:
            return None
        texts = [
            f"CASE WHEN typeof({c}) IN ('text', 'integer') THEN CAST({c} AS TEXT) END AS t{place}"
            for place, c in enumerate(map(quoted, further))
        ]
        query = f"SELECT {split_column(table.column('timestamp'), 0)}, {', '.join(texts)} FROM {table.source}"
        count = self._database.rows(f"SELECT count(*) FROM {table.source}{held.where()}", held.keys)[0][0]
        rows = self._database.table(f"{query}{held.where()}", held.keys, batch_rows=count)
        self._database.release()
        columns = {name: rows[f"t{place}"] for place, name in enumerate(further)}
        return mixture(merged_times(rows)[0].ms, columns, self._where(held))

    def _bars(self, held: StoredPartition, limit: int | None) -> tuple[Bars, ParsedTimes]:
        newest = self._newest(held, limit) if limit is not None else ""
        bars, times = self._ordered(held, newest, {**held.keys, "limit": limit} if newest else held.keys)
        self._database.release()
        if limit is not None and len(bars) > limit:
            assert bars.timestamp is not None
            bars = bars.take(bars.timestamp >= np.unique(bars.timestamp)[-limit:][0])
        return bars, times

    def _newest(self, held: StoredPartition, limit: int) -> str:
        """Return the condition that leaves the newest times only; none where SQL's order is not that of time."""
        time, source = held.table.column("timestamp"), f"{held.table.source}{held.where()}"
        if not one_unit(*self._database.rows(f"SELECT min({time}), max({time}) FROM {source}", held.keys)[0]):
            return ""
        distinct = f"SELECT DISTINCT {time} AS t FROM {source} ORDER BY t DESC LIMIT :limit"
        return f"{time} >= (SELECT min(t) FROM ({distinct}))"

    def _ordered(self, held: StoredPartition, newest: str, keys: dict[str, Any]) -> tuple[Bars, ParsedTimes]:
        """Read rows in the order of time, equal times as they are stored."""
        table, source = held.table, f"FROM {held.table.source}{held.where(*filter(None, [newest]))}"
        names = (*BAR_COLUMNS, *table.extra)
        arrow = self._numbers(f"SELECT {{}} {source} ORDER BY {table.order}", names, held, keys)
        if arrow is not None:
            bars, times = _to_bars(arrow, table.extra, self._where(held))
            if len(times.units) < 2 or not table.has_rowid:
                return _sorted(bars), times
            del arrow
        # Text, or units in one column: SQL's order is not that of time, and equal times stand as stored.
        split = self._split(held, names, newest, keys)
        times, wrong = merged_times(split, 0)
        if wrong.any():
            missing = wrong & np.asarray(pc.and_(pc.is_null(split["n0"]), pc.is_null(split["s0"])))
            self._refuse_times(held, int(missing.sum()))
        columns: dict[str, NDArray[Any]] = {"timestamp": times.ms}
        for place, name in enumerate(names[1:], start=1):
            columns[name], wrong = merged_numbers(split, place)
            if wrong.any():
                raise BitcornError(self._first_text(held, name, split[f"s{place}"][int(wrong.argmax())].as_py()))
        return _sorted(_bars_of(columns, table.extra)), times

    def _split(self, held: StoredPartition, names: Sequence[str], newest: str, keys: dict[str, Any]) -> pa.Table:
        """Read columns in stored order, of each first the numbers, `n<place>`, and then the text, `s<place>`."""
        source = f"FROM {held.table.source}{held.where(*filter(None, [newest]))}"
        parts = [split_column(held.table.column(name), place) for place, name in enumerate(names)]
        count = self._database.rows(f"SELECT count(*) {source}", keys)[0][0]
        order = " ORDER BY rowid" if held.table.has_rowid else ""
        return self._database.table(f"SELECT {', '.join(parts)} {source}{order}", keys, batch_rows=count)

    def _refuse_times(self, held: StoredPartition, missing: int) -> NoReturn:
        if missing:
            raise BitcornError(f"{missing} rows of {self._where(held)} have no time: remove them")
        raise BitcornError(self._first_text(held, "timestamp", None))

    def _numbers(
        self, query: str, names: Sequence[str], held: StoredPartition, keys: dict[str, Any]
    ) -> pa.Table | None:
        """Read columns of numbers; None where one holds text, or changes its type so late that ADBC refuses it."""
        from adbc_driver_manager import Error

        columns = ", ".join(f"{held.table.column(name)} AS c{place}" for place, name in enumerate(names))
        try:
            arrow = self._database.table(query.format(columns), keys, batch_rows=_BATCH_ROWS)
        except (Error, OSError) as error:
            if "ype mismatch" not in str(error):
                raise
            return None
        return arrow.rename_columns(list(names)) if all(is_number(field.type) for field in arrow.schema) else None

    def _where(self, held: StoredPartition) -> str:
        return f"table {held.table.name} in {self._database.path}"

    def _first_text(self, held: StoredPartition, name: str, text: str | None) -> str:
        """Say which value is none of its column, and where: the given text, or else the first time that is none."""
        table, time, column = held.table, held.table.column("timestamp"), held.table.column(name)
        is_text = (
            f"typeof({column}) IN ('text', 'blob')"
            if text is None
            else f"({column} = :text OR quote({column}) = :text)"
        )
        query = f"SELECT {time} AS t, {column} AS c, quote({column}) AS q FROM {table.source}{held.where(is_text)}"
        keys = held.keys if text is None else {**held.keys, "text": text}
        what = "time" if name == "timestamp" else "number"
        for at, value, _ in self._database.rows(f"{query} LIMIT 1000", keys):
            if name != "timestamp" or read_times(pa.array([value]))[1].any():
                return (
                    f"column {column} of {self._where(held)} holds {value!r} (at {time} = {at!r}), which is not a "
                    f"{what}: correct or remove these rows"
                )
        return f"column {column} of {self._where(held)} holds {what}s that cannot be read: correct or remove these rows"

    def _find(self, symbol: str, timeframe: str) -> StoredPartition:
        timeframe_ms(timeframe)
        path, of_symbol = self._database.path, self._held.of_symbol(symbol)
        matches = [h for h in of_symbol if same_timeframe(h.partition.timeframe, timeframe)]
        # A view shows what a table holds.
        matches = [h for h in matches if not h.table.is_view] or matches
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(f"{h.partition} in table {h.table.name}" for h in matches)
            tables = {h.table.name for h in matches}
            remedy = f"say which by --table {matches[0].table.name}" if len(tables) > 1 else "keep one of them"
            raise BitcornError(f"{path} holds {symbol} {timeframe} more than once ({names}): {remedy}")
        unclear = "".join(f"; table {each.name}: {each.reason}" for each in self.ignored if each.unclear)
        if of_symbol:
            exist = ", ".join(sorted({h.partition.timeframe for h in of_symbol}))
            raise BitcornError(f"{path} has no {timeframe} bars of {symbol}: it has {exist}{unclear}")
        symbols = self._held.symbols
        if not symbols or not self.held:
            raise BitcornError(f"{path} holds no bars")
        raise BitcornError(f"{path} has no symbol {symbol!r}: it has {_shortened(symbols)}{unclear}")


def _is_keyed(table: BarTable) -> bool:
    return table.has("symbol", "timeframe") and not table.has("exchange")


def _shortened(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _to_bars(arrow: pa.Table, extra: Mapping[str, str], where: str) -> tuple[Bars, ParsedTimes]:
    times = parse_times(arrow["timestamp"], f"the time column of {where}")
    # A volume beyond 2^53 is rounded, as any float64 would round it.
    columns = {name: arrow[name].cast(pa.float64(), safe=False).to_numpy() for name in arrow.column_names[1:]}
    return _bars_of({"timestamp": times.ms, **columns}, extra), times


def _bars_of(columns: Mapping[str, NDArray[Any]], extra: Mapping[str, str]) -> Bars:
    own = {name: column for name, column in columns.items() if name not in extra}
    return Bars(**own, extra={name: columns[name] for name in extra})


def _sorted(bars: Bars) -> Bars:
    """Bars in ascending order of time, equal times in the order that they have."""
    assert bars.timestamp is not None
    if (np.diff(bars.timestamp) >= 0).all():
        return bars
    return bars.take(np.argsort(bars.timestamp, kind="stable"))
