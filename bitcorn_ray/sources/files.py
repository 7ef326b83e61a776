"""Bars out of files, whatever their format, by the names of their columns (see `formats` and `columns`).

A file holds one partition, named by its columns, its folders or file name, or the caller; or several, told apart by a
symbol and a timeframe column. A symbol on several exchanges, named by a third column, is SYMBOL.EXCHANGE. Rows come in
batches, in the file's order. A row without a time or symbol is set aside and counted. A value that its column cannot
hold is an error, as the column then has another meaning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import BAR_COLUMNS, Bars, joined, modal_step
from bitcorn_ray.market.partition import Partition, is_requested
from bitcorn_ray.market.timeframe import choose_step, numeric_steps, timeframe_ms, timeframe_of_ms, timeframe_word
from bitcorn_ray.sources.agreement import require_ordered_prices, require_steps
from bitcorn_ray.sources.columns import TOGETHER, match_columns, match_extra
from bitcorn_ray.sources.conflicts import find_key_column, has_repeated_times, require_agreement
from bitcorn_ray.sources.folders import files_at, hive_partition, names_in_path
from bitcorn_ray.sources.formats.formats import opened_rows
from bitcorn_ray.sources.formats.rows import RawRows, with_columns_together
from bitcorn_ray.sources.numbers import missing_as_null, parse_numbers
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.reader import (
    InspectedPartition,
    InspectedTable,
    Inspection,
    Span,
    StoredRows,
    joined_rows,
    newest_times,
    sorted_by_time,
)
from bitcorn_ray.sources.times import UNIT_BOUNDS, TimeForm, read_times
from bitcorn_ray.storage.location import Location

Key = tuple[str | None, str | None, str | None]
"""Symbol, timeframe and exchange as the columns of a row say them, None without such a column."""

_KEY_COLUMNS = ("symbol", "timeframe", "exchange")
_EPOCH_UNITS = {unit for unit, _, _ in UNIT_BOUNDS}
_SAMPLE_TIMES, _CONFLICT_ROWS = 4_096, 1_000_000
_SHOWN_LETTERS = 200


@dataclass(frozen=True)
class KeyedBars:
    """T bars of a file. codes: (T,) indices of their keys in `BarFile.keys`."""

    codes: NDArray[np.int64]
    bars: Bars


@dataclass(frozen=True)
class KeyedTimes:
    """Times of T rows of a file. times: (T,) ms. stored: the columns of times and of further ones, as stored."""

    codes: NDArray[np.int64]
    times: NDArray[np.int64]
    stored: dict[str, pa.Array]


def read_file(
    path: str | Path | Location,
    symbol: str | None = None,
    timeframe: str | None = None,
    options: SourceOptions | None = None,
    default_symbol: str | None = None,
) -> list[tuple[Partition, Bars]]:
    """Read every partition of a file, rows in the file's order.

    path: CSV or JSON (also compressed with gzip or zip), Feather or Parquet; a path or a URI. symbol, timeframe: for a
    file without such a column; by default they come from the folders' names or the file's (`BTCUSDT_1h.parquet`), and
    the timeframe else from the bars' most frequent distance. options: for reading the source. default_symbol: if
    nothing else says one.
    Raises BitcornError if the file is missing, cannot be read, lacks a column, does not say its symbol, has rows
    without a time or symbol, or, unless the policy chooses among rows of one time, has rows that a further column tells
    apart.
    """
    with opened_file(path, symbol, timeframe, options, default_symbol) as file:
        batches = list(file.batches())
        file.require_complete()
        found = _partitions(file, batches)
        if not (options or SourceOptions()).chooses_among_rows and any(
            has_repeated_times(b.timestamp) for _, b in found
        ):
            file.require_one_series()
        return found


@contextmanager
def opened_file(
    path: str | Path | Location,
    symbol: str | None = None,
    timeframe: str | None = None,
    options: SourceOptions | None = None,
    default_symbol: str | None = None,
) -> Iterator[BarFile]:
    """Open a file to read its rows in batches; see `read_file` for the arguments and errors."""
    location = Location.of(path)
    with opened_rows(location) as rows:
        yield BarFile(location, rows, symbol, timeframe, options or SourceOptions(), default_symbol)


class BarFile:
    """An open file of bars.

    keys: of the rows read so far. rejected: numbers of rows set aside, by the index of their key (-1: none) and reason.
    columns: our names to the stored ones. further: stored names of all other columns.
    """

    def __init__(
        self,
        location: Location,
        rows: RawRows,
        symbol: str | None,
        timeframe: str | None,
        options: SourceOptions,
        default_symbol: str | None = None,
    ) -> None:
        self.location, self._rows = location, with_columns_together(rows)
        named_symbol, named_timeframe = names_in_path(location)
        self._symbol = symbol or rows.symbol or named_symbol or default_symbol
        self._timeframe = timeframe or named_timeframe
        self._is_guessed = timeframe is None and hive_partition(location) is None
        self.columns = _matched(rows, dict(options.mapping), location)
        used = {part for stored in self.columns.values() for part in (stored, *stored.split(TOGETHER))}
        self.further = tuple(dict.fromkeys(name for name in rows.names if name not in used))
        self.is_columnar = rows.is_columnar
        self._times = options.times
        self._mapping = dict(options.mapping)
        self._extra = match_extra(rows.names, options.columns, self.columns)
        self.keys: list[Key] = []
        self.rejected: Counter[tuple[int, str]] = Counter()
        self._codes: dict[Key, int] = {}
        self._first_times: list[list[NDArray[np.int64]]] = []

    def batches(self) -> Iterator[KeyedBars]:
        """Yield the rows in batches; call it once. Raises BitcornError for values that their columns cannot hold."""
        numbers = {name: self.columns[name] for name in BAR_COLUMNS[1:] if name in self.columns} | self._extra
        for batch in self._read(list(dict.fromkeys(numbers.values())), []):
            codes, times, good = self._keyed(batch)
            read: Any = {
                name: _numbers(batch.column(stored), stored, self.location.shown) for name, stored in numbers.items()
            }
            extra = {name: read.pop(name) for name in self._extra}
            read.setdefault("volume", np.zeros(len(times)))  # the user says that there is none
            bars = Bars(timestamp=times, **read, extra=extra)
            require_ordered_prices(bars, self.columns, self._mapping, self.location.shown)
            yield KeyedBars(codes, bars) if good.all() else KeyedBars(codes[good], bars.take(good))

    def key_batches(self, further: Sequence[str] = ()) -> Iterator[KeyedTimes]:
        """Yield the times of the rows and further columns as stored, without prices; call it instead of `batches`."""
        time = self.columns["timestamp"]
        for batch in self._read([], further):
            codes, times, good = self._keyed(batch)
            stored = {name: batch.column(name).filter(pa.array(good)) for name in (time, *further)}
            yield KeyedTimes(codes[good], times[good], stored)

    def _read(self, numbers: list[str], further: Sequence[str]) -> Iterator[pa.RecordBatch]:
        rows, keys = 0, [self.columns[name] for name in ("timestamp", *_KEY_COLUMNS) if name in self.columns]
        for batch in self._rows.read(numbers, [*keys, *further]):
            rows += batch.num_rows
            yield batch
        if rows == 0:
            raise BitcornError(f"{self.location} has no rows")

    def _keyed(self, batch: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return codes (T,) and times (T,) of a batch, and which rows have both; the others are counted."""
        name = self.columns["timestamp"]
        times, untimed = _times(batch.column(name), name, self.location.shown, self._times)
        codes = self._coded(batch)
        self.count_rejected(codes[untimed], "have no time")
        good = ~untimed & (codes >= 0)
        self._keep_first_times(codes[good], times[good])
        return codes, times, good

    def count_rejected(self, codes: NDArray[np.int64], reason: str) -> None:
        """Count rows that are set aside. reason: as in "3 rows have no time"."""
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            self.rejected[max(int(code), -1), reason] += int(count)

    def require_complete(self) -> None:
        """Raise BitcornError if rows were set aside."""
        for (_, reason), count in self.rejected.items():
            raise BitcornError(f"{count} rows of {self.location} {reason}: remove or complete them")

    def require_one_series(self) -> None:
        """Raise BitcornError if a further column tells apart rows of one time."""
        if problem := self.conflict():
            raise BitcornError(problem)

    def conflict(self) -> str | None:
        """Return which column tells apart rows of one time, by the first million rows; see `conflicts`."""
        further = [name for name in self.further if self._rows.names.count(name) == 1]
        if {"symbol", "timeframe"} <= set(self.columns) or not further:
            return None
        keys = [self.columns[name] for name in ("timestamp", *_KEY_COLUMNS) if name in self.columns]
        batches, rows = list[pa.RecordBatch](), 0
        with opened_rows(self.location) as opened:
            for batch in with_columns_together(opened).read([], [*keys, *further]):
                batches.append(batch)
                if (rows := rows + batch.num_rows) >= _CONFLICT_ROWS:
                    break
        table = pa.Table.from_batches(batches)
        table = table.filter(pc.is_valid(table[keys[0]]))
        slots = read_times(table[keys[0]], self._times)[0].ms
        for key in keys[1:]:  # rows of different keys never share a slot
            slots = np.unique(slots, return_inverse=True)[1] * (rows + 1) + _encoded(table[key].combine_chunks())[0]
        columns = {
            name: missing_as_null(table[name]) if pa.types.is_string(table[name].type) else table[name]
            for name in further
        }
        return find_key_column(slots, columns, self.location.shown)

    def partition(self, code: int) -> Partition:
        """Return the partition of a key, once its rows have been read.

        Raises BitcornError if nothing says its symbol or its timeframe.
        """
        symbol, timeframe, exchange = self.keys[code]
        on_several = len({venue for name, _, venue in self.keys if name == symbol}) > 1
        symbol = symbol or self._symbol
        if not symbol:
            raise BitcornError(
                f"{self.location} does not say its symbol, neither in a column nor in its name: give it by --symbol, "
                "or name the file SYMBOL_TIMEFRAME, such as BTCUSDT_1h.csv"
            )
        symbol = f"{symbol}.{exchange}" if on_several and exchange else symbol
        steps = numeric_steps(timeframe)
        if (timeframe or self._timeframe) and not steps:
            named = self._checked(timeframe or self._timeframe or "")
            if self._is_guessed and not timeframe:
                require_steps(np.concatenate(self._first_times[code]), named, self.location.shown)
            return Partition(symbol, named)
        distance = modal_step(np.sort(np.concatenate(self._first_times[code])))
        try:
            return Partition(symbol, timeframe_of_ms(choose_step(steps, distance) if steps else distance))
        except BitcornError as error:
            raise BitcornError(f"{self.location} does not say its timeframe: {error}") from error

    def _checked(self, timeframe: str) -> str:
        """Return a timeframe as we write it. Raises BitcornError if it is none."""
        text = timeframe.strip()
        word = timeframe_word(text) or text
        try:
            timeframe_ms(word)
        except BitcornError as error:
            column = self.columns.get("timeframe")
            where = f"column {column!r} of {self.location}" if column else f"{self.location}"
            raise BitcornError(f"{where}: {error}") from error
        return word

    def _keep_first_times(self, codes: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        """Keep the first times of each key: their distance is the timeframe, or must agree with it."""
        self._first_times += [[] for _ in range(len(self.keys) - len(self._first_times))]
        for code in np.unique(codes):
            kept = sum(map(len, self._first_times[code]))
            if kept < _SAMPLE_TIMES:
                self._first_times[code].append(times[codes == code][: _SAMPLE_TIMES - kept].copy())

    def _coded(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Return the index of each row's key; negative for rows without one, which are counted."""
        names = [name for name in _KEY_COLUMNS if name in self.columns]
        if not names:
            return np.full(batch.num_rows, self._code((None, None, None)), np.int64)
        encoded = [_encoded(batch.column(self.columns[name])) for name in names]
        widest = max(len(values) for _, values in encoded) + 1
        combined = sum(codes * widest**index for index, (codes, _) in enumerate(encoded))
        distinct, rows, counts = np.unique(combined, return_inverse=True, return_counts=True)
        codes = np.empty(len(distinct), np.int64)
        for number, value in enumerate(distinct.tolist()):
            parts = [values[(value // widest**index) % widest] for index, (_, values) in enumerate(encoded)]
            codes[number] = self._code_of(dict(zip(names, parts, strict=True)), int(counts[number]))
        return codes[rows]

    def _code_of(self, parts: dict[str, str | None], count: int) -> int:
        stated = {name: (value or "").strip() or None for name, value in parts.items()}
        for name in ("symbol", "timeframe"):
            if name in stated and stated[name] is None:
                self.rejected[-1, f"have no {name}"] += count
                return -1
        timeframe = stated.get("timeframe")
        if timeframe is not None and timeframe.endswith("M"):
            self.rejected[-1, f"are of timeframe {timeframe}, a month, which has no fixed length"] += count
            return -1
        return self._code((stated.get("symbol"), timeframe, stated.get("exchange")))

    def _code(self, key: Key) -> int:
        if key not in self._codes:
            self._codes[key] = len(self.keys)
            self.keys.append(key)
        return self._codes[key]


class FilesReader:
    """The partitions of files, or of folders of files, that are read together; see `PartitionReader`.

    symbol: of the bars if nothing else says one.
    """

    def __init__(
        self, locations: Sequence[Location], symbol: str | None = None, options: SourceOptions | None = None
    ) -> None:
        self._location, self._symbol, self._options = locations[0], symbol, options or SourceOptions()
        self._files = [file for location in locations for file in files_at(location)]

    @property
    def partitions(self) -> list[Partition]:
        """Every symbol x timeframe, sorted."""
        return sorted(self._bars)

    def sizes(self) -> dict[Partition, int]:
        """Return how many rows each partition has."""
        return {partition: sum(len(bars) for _, bars in parts) for partition, parts in self._bars.items()}

    def read_stored(self, partition: Partition) -> tuple[Bars, Partition]:
        """Read a partition by its stored name."""
        return self.read(partition.symbol, partition.timeframe)

    def read(self, symbol: str, timeframe: str, limit: int | None = None) -> tuple[Bars, Partition]:
        """Read the bars of one partition; see `PartitionReader`."""
        for partition, parts in self._bars.items():
            if is_requested(partition, [symbol], [timeframe]):
                return newest_times(self._joined(partition, parts), limit), partition
        raise BitcornError(f"{self._location} has no bars of {symbol} {timeframe}")

    @cached_property
    def _bars(self) -> dict[Partition, list[tuple[Location, Bars]]]:
        """The bars of each partition by file; files are read whole, once."""
        found: dict[Partition, list[tuple[Location, Bars]]] = {}
        for file in self._files:
            for partition, bars in read_file(file, options=self._options, default_symbol=self._symbol):
                found.setdefault(partition, []).append((file, bars))
        return found

    def _joined(self, partition: Partition, parts: Sequence[tuple[Location, Bars]]) -> Bars:
        """Join the files of one partition. Raises BitcornError if they contradict each other."""
        bars = sorted_by_time(joined([part for _, part in parts]))
        if len(parts) > 1 and not self._options.chooses_among_rows:
            require_agreement(partition, [(file.shown, sorted_by_time(part)) for file, part in parts])
        return bars

    def stored_rows(self, is_requested: Callable[[Partition], bool]) -> Iterator[StoredRows]:
        """Yield the rows of the requested partitions, in the files' order."""
        parts: dict[Partition, list[StoredRows]] = {}
        for file in self._files:
            for stored in self._stored_in(file):
                parts.setdefault(stored.partition, []).append(stored)
        for partition, stored_parts in parts.items():
            if is_requested(partition):
                if len(stored_parts) > 1:
                    require_agreement(partition, [(part.source, sorted_by_time(part.rows)) for part in stored_parts])
                yield joined_rows(stored_parts, self._location.shown)

    def _stored_in(self, location: Location) -> Iterator[StoredRows]:
        with self._opened(location) as file:
            units, formats = self._date_formats(location, file.further)
            batches = list(file.batches())
            partitions = _partitions(file, batches)
            if any(has_repeated_times(rows.timestamp) for _, rows in partitions):
                file.require_one_series()
            for code, (partition, rows) in enumerate(partitions):
                yield StoredRows(
                    partition=partition,
                    source=location.shown,
                    rows=rows,
                    units=dict(units[code]),
                    formats={name: dict(counts) for (key, name), counts in formats.items() if key == code},
                    set_aside={reason: n for (key, reason), n in file.rejected.items() if key in (code, -1)},
                )

    @contextmanager
    def _opened(self, location: Location) -> Iterator[BarFile]:
        with opened_file(location, options=self._options, default_symbol=self._symbol) as file:
            yield file

    def _date_formats(
        self, location: Location, further: Sequence[str]
    ) -> tuple[dict[int, Counter[str]], dict[tuple[int, str], Counter[str]]]:
        """Count, by key, the units of times and the formats of further columns that hold dates."""
        units: dict[int, Counter[str]] = {}
        formats: dict[tuple[int, str], Counter[str]] = {}
        with self._opened(location) as file:
            for batch in file.key_batches(further):
                for code in np.unique(batch.codes).tolist():
                    rows = None if len(file.keys) == 1 else pa.array(batch.codes == code)
                    stored = {n: c if rows is None else c.filter(rows) for n, c in batch.stored.items()}
                    times, _ = read_times(stored[file.columns["timestamp"]], self._options.times)
                    units.setdefault(code, Counter()).update(times.units)
                    for name in further:
                        if dates := _dates(stored[name]):
                            formats.setdefault((code, name), Counter()).update(dates)
        return units, formats

    def inspect(self) -> Inspection:
        """Return how the files were understood; of Parquet and Feather only times and keys are read.

        A folder counts as its first file. Text is read whole, and its numbers are checked.
        """
        spans, units, forms = dict[Partition, Span](), Counter[str](), list[str]()
        for location in self._files:
            for partition, span in self._spans_of(location, units, forms).items():
                spans[partition] = span.joined(spans.get(partition))
        first, name = self._files[0], self._location.name
        with self._opened(first) as file:
            columns, further = file.columns, file.further
        by_name = "the folders' names" if "symbol=" in first.address.lower() else "the file's name"
        by_timeframe = by_name if names_in_path(first)[1] else "the bars' most frequent distance"
        partitions = [
            InspectedPartition(
                symbol=partition.symbol,
                timeframe=partition.timeframe,
                table=name,
                rows=span.rows,
                **span.shown(),
                time=forms[0] if len(set(forms)) == 1 else f"several forms: {', '.join(units)}",
                units=dict(units),
                symbol_from=f"column {columns['symbol']}" if "symbol" in columns else by_name,
                timeframe_from=f"column {columns['timeframe']}" if "timeframe" in columns else by_timeframe,
                problem=self._conflict() if span.has_too_many_rows(partition.timeframe) else None,
            )
            for partition, span in sorted(spans.items())
        ]
        table = InspectedTable(name=name, kind="file", columns=columns, further=further)
        return Inspection(source=self._location.shown, kind="file", tables=[table], partitions=partitions, problems=[])

    def _spans_of(self, location: Location, units: Counter[str], forms: list[str]) -> dict[Partition, Span]:
        with self._opened(location) as file:
            time, codes, times = file.columns["timestamp"], list[NDArray[np.int64]](), list[NDArray[np.int64]]()
            for batch in file.key_batches():
                codes.append(batch.codes)
                times.append(batch.times)
                parsed, _ = read_times(batch.stored[time], self._options.times)
                units.update(parsed.units)
                forms.append(parsed.how)
            file.require_complete()
            of_row, ms = np.concatenate(codes), np.concatenate(times)
            parts = [ms[of_row == code] for code in range(len(file.keys))]
            spans = {
                file.partition(code): Span(len(part), int(part.min()), int(part.max()))
                for code, part in enumerate(parts)
            }
        if not file.is_columnar:
            with self._opened(location) as file:
                for _ in file.batches():
                    pass
        return spans

    def _conflict(self) -> str | None:
        for location in self._files:
            with self._opened(location) as file:
                if problem := file.conflict():
                    return problem
        return None


def column_names(location: Location) -> list[str]:
    """Return the names of a file's columns without reading its rows. Raises BitcornError if it cannot be read."""
    with opened_rows(location) as rows:
        return rows.names


def _matched(rows: RawRows, mapping: Mapping[str, str], location: Location) -> dict[str, str]:
    found, missing = match_columns(rows.names, mapping, partial(_sample, location))
    if missing:
        names = ", ".join(rows.names) or "none"
        if len(names) > _SHOWN_LETTERS:  # no header, but some text
            names = f"{names[:_SHOWN_LETTERS]}..."
        remedy = f"; say which it is by --map {missing[0]}=COLUMN, or #0 for the first" if rows.names else ""
        if missing == ["volume"]:
            remedy = "; say which it is by --map volume=COLUMN, or by --map volume=none that there is none"
        raise BitcornError(f"{location} has no column {', '.join(missing)}: it has {names}{remedy}")
    if twice := [name for name in found.values() if rows.names.count(name) > 1]:
        raise BitcornError(f"{location} has column {twice[0]} more than once: keep one of them")
    return found


def _sample(location: Location, names: Sequence[str]) -> Mapping[str, pa.Array]:
    """Return the first rows of some columns as stored."""
    with opened_rows(location) as rows:
        batch = next(rows.read([], list(dict.fromkeys(names))), None)
        return {name: pa.array([]) if batch is None else batch.column(name) for name in names}


def _times(column: pa.Array, name: str, where: str, form: TimeForm) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return times in milliseconds, and the rows that have none."""
    numbers = column
    if pa.types.is_string(column.type):
        try:  # digits alone, the most frequent case, are ten times as fast as numbers
            numbers = column.cast(pa.int64())
        except pa.ArrowInvalid:
            numbers = column = missing_as_null(column)
    parsed, bad = read_times(numbers, form)
    missing = np.asarray(column.is_null())
    if (bad & ~missing).any():
        first = column[int((bad & ~missing).argmax())].as_py()
        raise BitcornError(f"column {name!r} of {where} holds {first!r}, which is not a time: {_remedy(first)}")
    return parsed.ms, missing


def _remedy(text: Any) -> str:
    """Return what to do about a text that is not understood as a time."""
    if re.match(r"[0-9]{1,2}[-/ ][0-9]{1,2}[-/ ][0-9]{4}", str(text)):
        return "say whether the day or the month is first, by --time-format %d/%m/%Y or %m/%d/%Y (as it is written)"
    if re.match(r"[0-9.]+[eE]", str(text)):
        return "a spreadsheet has cut its digits; save the column as whole numbers"
    return "give epochs or ISO text, or say how it is written by --time-format, such as %d.%m.%Y %H:%M"


def _numbers(column: pa.Array, name: str, where: str) -> NDArray[np.float64]:
    numbers, bad = parse_numbers(column)
    if bad.any():
        first = column[int(bad.argmax())].as_py()
        raise BitcornError(f"column {name!r} of {where} holds {first!r}, which is not a number")
    return numbers


def _encoded(column: pa.Array) -> tuple[NDArray[np.int64], list[str | None]]:
    """Return (indices (T,) into the values, the values as text, None first)."""
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False) + 1
    return codes, [None, *(None if value is None else str(value) for value in encoded.dictionary.to_pylist())]


def _partitions(file: BarFile, batches: Sequence[KeyedBars]) -> list[tuple[Partition, Bars]]:
    codes = np.concatenate([batch.codes for batch in batches])
    bars = joined([batch.bars for batch in batches])
    if len(file.keys) == 1:
        return [(file.partition(0), bars)]
    return [(file.partition(code), bars.take(codes == code)) for code in range(len(file.keys))]


def _dates(column: pa.Array) -> dict[str, int]:
    """Return rows by format of a text column that holds dates; digits alone may be anything."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) or len(column) == 0:
        return {}
    for sample in (column.slice(0, 64), column):
        found = read_times(sample)[0].units
        if not found or any(form in _EPOCH_UNITS or form.isalpha() for form in found):
            return {}
    return found
