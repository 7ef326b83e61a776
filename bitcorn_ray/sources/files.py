"""Bars out of files: whatever their format, by the names of their columns (see `formats` and `columns`).

A file may hold one partition, named by its file name or by the caller, or several, told apart by a symbol and a
timeframe column; a symbol that is on several exchanges, which a third column names, is SYMBOL.EXCHANGE. Rows come in
batches, in the file's order. A row that cannot be a bar, as it says no time or no symbol, is set aside and counted; a
value that is not what its column should hold stops the reading, as then the column is not what it was taken for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import BAR_COLUMNS, Bars, joined, modal_step
from bitcorn_ray.market.partition import Partition, partition_of_file
from bitcorn_ray.market.timeframe import meant_step, numeric_steps, timeframe_ms, timeframe_of_ms, timeframe_word
from bitcorn_ray.sources.apart import mixture, repeats
from bitcorn_ray.sources.columns import match_columns, match_extra
from bitcorn_ray.sources.formats.formats import opened_rows
from bitcorn_ray.sources.numbers import parse_numbers
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.rows import RawRows
from bitcorn_ray.sources.times import read_times
from bitcorn_ray.storage.location import Location

Key = tuple[str | None, str | None, str | None]
"""Symbol, timeframe and exchange as the columns of a row say them, None where there is no such column."""

KEY_COLUMNS = ("symbol", "timeframe", "exchange")
"""Our names of the columns that keys are made of."""

_SAMPLE_TIMES = 4_096
_MIXTURE_ROWS = 1_000_000
_SHOWN_LETTERS = 200


@dataclass(frozen=True)
class KeyedBars:
    """T bars of a file. codes: (T,) places of their keys in `BarFile.keys`."""

    codes: NDArray[np.int64]
    bars: Bars


def read_file(
    path: str | Path | Location,
    symbol: str | None = None,
    timeframe: str | None = None,
    reading: Reading | None = None,
) -> list[tuple[Partition, Bars]]:
    """Read every partition of a file, rows in the file's order.

    path: CSV or JSON (also packed with gzip or zip), Feather or Parquet; a path or a URI. symbol, timeframe: used where
    the file has no such column; by default they come from the file name (``BTCUSDT_1h.parquet``), and the timeframe,
    where that says none either, from the bars' most frequent distance. reading: what the caller says about the columns.
    Raises BitcornError where the file is missing, cannot be read, lacks a column, does not say its symbol, has rows
    without a time or symbol, or, unless the policy chooses among rows of one time, has rows that a further column tells
    apart.
    """
    with opened_file(path, symbol, timeframe, reading) as file:
        batches = list(file.batches())
        for (_, reason), count in file.rejected.items():
            raise BitcornError(f"{count} rows of {file.place} {reason}: remove or complete them")
        found = _partitions(file, batches)
        if not (reading or Reading()).chooses_among_rows and any(repeats(bars.timestamp) for _, bars in found):
            require_one_each(file)
        return found


@contextmanager
def opened_file(
    path: str | Path | Location,
    symbol: str | None = None,
    timeframe: str | None = None,
    reading: Reading | None = None,
) -> Iterator[BarFile]:
    """Open a file for its rows to be read in batches; see `read_file` for the arguments and what is raised."""
    place = Location.of(path)
    with opened_rows(place) as rows:
        yield BarFile(place, rows, symbol, timeframe, reading or Reading())


class BarFile:
    """An open file of bars.

    keys: of the rows read so far. rejected: rows set aside, by the place of their key (-1: none) and reason.
    """

    def __init__(
        self,
        place: Location,
        rows: RawRows,
        symbol: str | None,
        timeframe: str | None,
        reading: Reading,
    ) -> None:
        self.place, self._rows = place, rows
        named_symbol, named_timeframe = partition_of_file(place.name)
        self._symbol, self._timeframe = symbol or named_symbol, timeframe or named_timeframe
        self._found = _found(rows, dict(reading.mapping), place)
        self._extra = match_extra(rows.names, reading.columns, self._found)
        self.keys: list[Key] = []
        self.rejected: Counter[tuple[int, str]] = Counter()
        self._codes: dict[Key, int] = {}
        self._first_times: list[list[NDArray[np.int64]]] = []

    def batches(self) -> Iterator[KeyedBars]:
        """Yield the rows in batches; call it once. Raises BitcornError for values that are not what they should be."""
        found, where, rows = self._found, self.place.shown, 0
        texts = [found[name] for name in ("timestamp", *KEY_COLUMNS) if name in found]
        numbers = {name: found[name] for name in BAR_COLUMNS[1:]} | self._extra
        for batch in self._rows.read(list(dict.fromkeys(numbers.values())), texts):
            rows += batch.num_rows
            times, untimed = _times(batch.column(found["timestamp"]), found["timestamp"], where)
            codes = self._coded(batch)
            read: Any = {name: _numbers(batch.column(stored), stored, where) for name, stored in numbers.items()}
            extra = {name: read.pop(name) for name in self._extra}
            keyed = KeyedBars(codes, Bars(timestamp=times, **read, extra=extra))
            keyed = self.without(keyed, untimed, "have no time")
            keyed = self.without(keyed, keyed.codes < 0, "")
            assert keyed.bars.timestamp is not None
            self._remember(keyed.codes, keyed.bars.timestamp)
            yield keyed
        if rows == 0:
            raise BitcornError(f"{where} has no rows")

    def key_batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]]:
        """Yield no more than what says whose bars the rows are: codes (T,), times (T,) in ms, times as stored (T,).

        It takes the place of `batches`, whose prices and volumes it does not read, and raises as that does.
        """
        found, rows = self._found, 0
        for batch in self._rows.read([], [found[n] for n in ("timestamp", *KEY_COLUMNS) if n in found]):
            rows += batch.num_rows
            stored = batch.column(found["timestamp"])
            times, untimed = _times(stored, found["timestamp"], self.place.shown)
            codes = self._coded(batch)
            if untimed.any():
                self.rejected[-1, "have no time"] += int(untimed.sum())
            good = ~untimed & (codes >= 0)
            self._remember(codes[good], times[good])
            yield codes[good], times[good], stored.filter(pa.array(good))
        if rows == 0:
            raise BitcornError(f"{self.place.shown} has no rows")

    def ends(self) -> tuple[Partition, int, pa.Array] | None:
        """The one partition that its name says, with the number of its rows and the ends of their times as stored.

        None where that is not known without reading the rows.
        """
        if set(KEY_COLUMNS) & set(self._found) or not (self._symbol and self._timeframe):
            return None
        told = self._rows.ends(self._found["timestamp"])
        return None if told is None or told[0] == 0 else (self.partition(self._code((None, None, None))), *told)

    def mixture(self) -> str | None:
        """Say which column tells rows of its first million apart that stand at the same times; see `apart`."""
        names, known = self._rows.names, self._found
        further = [name for name in names if name not in known.values() and names.count(name) == 1]
        if {"symbol", "timeframe"} <= set(known) or not further:
            return None
        keys = [known[name] for name in ("timestamp", *KEY_COLUMNS) if name in known]
        batches, rows = list[pa.RecordBatch](), 0
        with opened_rows(self.place) as opened:
            for batch in opened.read([], [*keys, *further]):
                batches.append(batch)
                if (rows := rows + batch.num_rows) >= _MIXTURE_ROWS:
                    break
        table = pa.Table.from_batches(batches)
        table = table.filter(pc.is_valid(table[keys[0]]))
        places = read_times(table[keys[0]])[0].ms
        for key in keys[1:]:  # rows of different keys never stand at one place
            places = np.unique(places, return_inverse=True)[1] * (rows + 1) + _encoded(table[key].combine_chunks())[0]
        return mixture(places, {name: table[name] for name in further}, self.place.shown)

    def without(self, keyed: KeyedBars, bad: NDArray[np.bool_], reason: str) -> KeyedBars:
        """Set rows aside. reason: what they do, as in "3 rows have no time"; empty where they are counted already."""
        if not bad.any():
            return keyed
        if reason:
            codes, counts = np.unique(keyed.codes[bad], return_counts=True)
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
                self.rejected[max(code, -1), reason] += count
        return KeyedBars(keyed.codes[~bad], keyed.bars.take(~bad))

    def partition(self, code: int) -> Partition:
        """Return the partition of a key, once its rows have been read.

        Raises BitcornError where nothing says its symbol, or its timeframe.
        """
        symbol, timeframe, exchange = self.keys[code]
        on_several = len({venue for name, _, venue in self.keys if name == symbol}) > 1
        symbol = symbol or self._symbol
        if not symbol:
            raise BitcornError(
                f"{self.place} does not say its symbol, neither in a column nor in its name: pass --symbol"
            )
        symbol = f"{symbol}.{exchange}" if on_several and exchange else symbol
        steps = numeric_steps(timeframe)
        if (timeframe or self._timeframe) and not steps:
            return Partition(symbol, self._checked(timeframe or self._timeframe or ""))
        distance = modal_step(np.sort(np.concatenate(self._first_times[code])))
        try:
            return Partition(symbol, timeframe_of_ms(meant_step(steps, distance) if steps else distance))
        except BitcornError as error:
            raise BitcornError(f"{self.place} does not say its timeframe: {error}") from error

    def _checked(self, timeframe: str) -> str:
        """Return a timeframe as we write it. Raises BitcornError for what is none."""
        text = timeframe.strip()
        word = timeframe_word(text) or text
        try:
            timeframe_ms(word)
        except BitcornError as error:
            column = self._found.get("timeframe")
            where = f"column {column!r} of {self.place}" if column else f"{self.place}"
            raise BitcornError(f"{where}: {error}") from error
        return word

    def _remember(self, codes: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        """Keep the first times of each key, whose distance is its timeframe where no word says it."""
        self._first_times += [[] for _ in range(len(self.keys) - len(self._first_times))]
        for code in np.unique(codes):
            in_column = self.keys[code][1]
            if (in_column or self._timeframe) and not numeric_steps(in_column):
                continue
            have = sum(map(len, self._first_times[code]))
            if have < _SAMPLE_TIMES:
                self._first_times[code].append(times[codes == code][: _SAMPLE_TIMES - have].copy())

    def _coded(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Return the place of each row's key; negative where it has none, which is counted."""
        names = [name for name in KEY_COLUMNS if name in self._found]
        if not names:
            return np.full(batch.num_rows, self._code((None, None, None)), np.int64)
        encoded = [_encoded(batch.column(self._found[name])) for name in names]
        widest = max(len(values) for _, values in encoded) + 1
        combined = sum(codes * widest**place for place, (codes, _) in enumerate(encoded))
        distinct, rows, counts = np.unique(combined, return_inverse=True, return_counts=True)
        codes = np.empty(len(distinct), np.int64)
        for place, value in enumerate(distinct.tolist()):
            parts = [values[(value // widest**at) % widest] for at, (_, values) in enumerate(encoded)]
            codes[place] = self._code_of(dict(zip(names, parts, strict=True)), int(counts[place]))
        return codes[rows]

    def _code_of(self, parts: dict[str, str | None], count: int) -> int:
        said = {name: (value or "").strip() or None for name, value in parts.items()}
        for name in ("symbol", "timeframe"):
            if name in said and said[name] is None:
                self.rejected[-1, f"have no {name}"] += count
                return -1
        timeframe = said.get("timeframe")
        if timeframe is not None and timeframe.endswith("M"):
            self.rejected[-1, f"are of timeframe {timeframe}, a month, which has no fixed length"] += count
            return -1
        return self._code((said.get("symbol"), timeframe, said.get("exchange")))

    def _code(self, key: Key) -> int:
        if key not in self._codes:
            self._codes[key] = len(self.keys)
            self.keys.append(key)
        return self._codes[key]


def require_one_each(file: BarFile) -> None:
    """Raise BitcornError where a column of a file tells its rows apart that stand at the same times."""
    if problem := file.mixture():
        raise BitcornError(problem)


def column_names(path: str | Path | Location) -> list[str]:
    """Names of a file's columns, without reading its rows. Raises BitcornError where it cannot be read."""
    with opened_rows(Location.of(path)) as rows:
        return rows.names


def _found(rows: RawRows, mapping: Mapping[str, str], place: Location) -> dict[str, str]:
    found, missing = match_columns(rows.names, mapping)
    if missing:
        there = ", ".join(rows.names) or "none"
        if len(there) > _SHOWN_LETTERS:  # no header, but some text
            there = f"{there[:_SHOWN_LETTERS]}..."
        remedy = f"; say which it is by --map {missing[0]}=COLUMN" if rows.names else ""
        raise BitcornError(f"{place} has no column {', '.join(missing)}: it has {there}{remedy}")
    if twice := [name for name in found.values() if rows.names.count(name) > 1]:
        raise BitcornError(f"{place} has column {twice[0]} more than once: keep one of them")
    return found


def _times(column: pa.Array, name: str, where: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return times in milliseconds, and the rows that have none."""
    whole = column
    if pa.types.is_string(column.type):
        try:  # digits alone, the most frequent case, ten times as quickly
            whole = column.cast(pa.int64())
        except pa.ArrowInvalid:
            whole = column
    parsed, bad = read_times(whole)
    missing = np.asarray(column.is_null())
    if (bad & ~missing).any():
        first = column[int((bad & ~missing).argmax())].as_py()
        raise BitcornError(f"column {name!r} of {where} holds {first!r}, which is no time: give epochs or ISO text")
    return parsed.ms, missing


def _numbers(column: pa.Array, name: str, where: str) -> NDArray[np.float64]:
    numbers, bad = parse_numbers(column)
    if bad.any():
        first = column[int(bad.argmax())].as_py()
        raise BitcornError(f"column {name!r} of {where} holds {first!r}, which is not a number")
    return numbers


def _encoded(column: pa.Array) -> tuple[NDArray[np.int64], list[str | None]]:
    """Return (places (T,) in the values, the values as text, None first)."""
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False) + 1
    return codes, [None, *(None if value is None else str(value) for value in encoded.dictionary.to_pylist())]


def _partitions(file: BarFile, batches: Sequence[KeyedBars]) -> list[tuple[Partition, Bars]]:
    codes = np.concatenate([batch.codes for batch in batches])
    bars = joined([batch.bars for batch in batches])
    if len(file.keys) == 1:
        return [(file.partition(0), bars)]
    return [(file.partition(code), bars.take(codes == code)) for code in range(len(file.keys))]
