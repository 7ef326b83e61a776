"""Rows as a source stores them, for diagnosis: in their order, with the units and formats that their times are in.

(`source` reads bars for work: sorted, and without a thought for how they were written.)
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, joined
from bitcorn_ray.market.partition import Partition, is_requested, select_partitions
from bitcorn_ray.sources.apart import repeats
from bitcorn_ray.sources.columns import match_columns
from bitcorn_ray.sources.database import opened_bars
from bitcorn_ray.sources.files import KEY_COLUMNS, Key, opened_file, require_one_each
from bitcorn_ray.sources.formats.formats import opened_rows
from bitcorn_ray.sources.lake import is_bar_file, names_in_path
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import is_database, partition_named, source_files
from bitcorn_ray.sources.times import UNIT_BOUNDS, read_times
from bitcorn_ray.storage.location import Location

_EPOCHS = {unit for unit, _, _ in UNIT_BOUNDS}


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """T rows of one partition.

    source: where they are, to be shown. rows: in the order of a file; those of a database, which has none, by time.
    units: rows by unit or format of their time. formats: the same for each further column that holds dates as text.
    set_aside: rows that cannot be bars, by what they do ("have no time").
    """

    partition: Partition
    source: str
    rows: Bars
    units: dict[str, int]
    formats: dict[str, dict[str, int]]
    set_aside: dict[str, int]


def stored_rows(
    source: str | Path,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> Iterator[StoredRows]:
    """Read every partition of a source, one after another.

    symbols, timeframes: only these, in any spelling; where nothing says the symbol of the bars and one is given, it is
    theirs. reading: what the user says about the source.
    Raises BitcornError where the source cannot be read, for a symbol or timeframe that it does not have, and for rows
    of one time that a further column tells apart.
    """
    reading, there = reading or Reading(), list[Partition]()

    def is_asked(partition: Partition) -> bool:
        there.append(partition)
        return is_requested(partition, symbols, timeframes)

    given = symbols[0] if symbols and len(symbols) == 1 else None
    for file in source_files(source):
        named = partition_named(file.place, reading)
        if named is not None and not is_asked(named):
            continue
        read = _of_database if is_database(file.place) else _of_files
        yield from read(file.place, given, reading, is_asked)
    select_partitions(there, symbols, timeframes)  # says what is not there


def _of_database(
    place: Location, symbol: str | None, reading: Reading, is_asked: Callable[[Partition], bool]
) -> Iterator[StoredRows]:
    with opened_bars(place.path, symbol, reading) as reader:
        usable = set(reader.partitions)
        for held in sorted(reader.held, key=lambda held: held.partition):
            if held.partition in usable and is_asked(held.partition):
                rows, times = reader.read_held(held)
                if repeats(rows.timestamp) and (problem := reader.mixture(held)):
                    raise BitcornError(problem)
                yield StoredRows(
                    partition=held.partition,
                    source=f"table {held.table.name} of {place.shown}",
                    rows=rows,
                    units=times.units,
                    formats={},
                    set_aside={},
                )


def _of_files(
    place: Location, symbol: str | None, reading: Reading, is_asked: Callable[[Partition], bool]
) -> Iterator[StoredRows]:
    inside = [] if place.info() else [file for file in place.files() if is_bar_file(file.name)]
    parts: dict[Partition, list[StoredRows]] = {}
    for file in inside or [place]:
        for stored in _of_file(file, symbol, reading):
            parts.setdefault(stored.partition, []).append(stored)
    for partition, some in parts.items():
        if is_asked(partition):
            yield some[0] if len(some) == 1 else _joined(partition, place, some)


def _of_file(place: Location, symbol: str | None, reading: Reading) -> Iterator[StoredRows]:
    named_symbol, named_timeframe = names_in_path(place)
    with opened_file(place, named_symbol or symbol, named_timeframe, reading) as file:
        units, formats = _forms(place, dict(reading.mapping))
        batches = list(file.batches())
        codes = np.concatenate([batch.codes for batch in batches])
        rows = joined([batch.bars for batch in batches])
        parts = [rows if len(file.keys) == 1 else rows.take(codes == code) for code in range(len(file.keys))]
        if any(repeats(part.timestamp) for part in parts):
            require_one_each(file)
        for code, key in enumerate(file.keys):
            yield StoredRows(
                partition=file.partition(code),
                source=place.shown,
                rows=parts[code],
                units=dict(units[key]),
                formats={name: dict(found) for (of, name), found in formats.items() if of == key},
                set_aside={reason: n for (of, reason), n in file.rejected.items() if of in (code, -1)},
            )


def _forms(
    place: Location, mapping: dict[str, str]
) -> tuple[dict[Key, Counter[str]], dict[tuple[Key, str], Counter[str]]]:
    """Count the units of times, and the formats of further columns that hold dates, by the keys of the rows."""
    units: dict[Key, Counter[str]] = {}
    formats: dict[tuple[Key, str], Counter[str]] = {}
    with opened_rows(place) as raw:
        found, _ = match_columns(raw.names, mapping)
        ours = [found[name] for name in ("timestamp", *KEY_COLUMNS) if name in found]
        further = [name for name in dict.fromkeys(raw.names) if name not in found.values()]
        for batch in raw.read([], [*ours, *further]):
            for key, rows in _by_key(batch, found):
                times, _ = read_times(rows.column(found["timestamp"]))
                units.setdefault(key, Counter()).update(times.units)
                for name in further:
                    if dates := _dates(rows.column(name)):
                        formats.setdefault((key, name), Counter()).update(dates)
    return units, formats


def _dates(column: pa.Array) -> dict[str, int]:
    """Rows of a text column by format, where it holds dates; digits alone may be anything."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) or len(column) == 0:
        return {}
    for some in (column.slice(0, 64), column):
        found = read_times(some)[0].units
        if not found or any(form in _EPOCHS or form.isalpha() for form in found):
            return {}
    return found


def _by_key(batch: pa.RecordBatch, found: dict[str, str]) -> Iterator[tuple[Key, pa.RecordBatch]]:
    """Split rows by what their columns say, as `BarFile.keys` has it; without symbol or timeframe they are left out."""
    names = [name for name in KEY_COLUMNS if name in found]
    if not names:
        yield (None, None, None), batch
        return
    texts = [pc.fill_null(pc.utf8_trim_whitespace(batch.column(found[name]).cast(pa.string())), "") for name in names]
    table = pa.table(dict(zip(names, texts, strict=True)))
    for values in table.group_by(names).aggregate([]).to_pylist():
        if all(values[name] for name in names if name != "exchange"):
            masks = [pc.equal(text, values[name]) for name, text in zip(names, texts, strict=True)]
            symbol, timeframe, exchange = (values.get(name) or None for name in KEY_COLUMNS)
            yield (symbol, timeframe, exchange), batch.filter(functools.reduce(pc.and_, masks))


def _joined(partition: Partition, place: Location, parts: Sequence[StoredRows]) -> StoredRows:
    """Put the files of one partition together."""
    units, set_aside = Counter[str](), Counter[str]()
    formats: dict[str, Counter[str]] = {}
    for part in parts:
        units.update(part.units)
        set_aside.update(part.set_aside)
        for name, found in part.formats.items():
            formats.setdefault(name, Counter()).update(found)
    return StoredRows(
        partition=partition,
        source=place.shown,
        rows=joined([part.rows for part in parts]),
        units=dict(units),
        formats={name: dict(found) for name, found in formats.items()},
        set_aside=dict(set_aside),
    )
