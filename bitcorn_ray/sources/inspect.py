"""What was understood of a source of bars, and how each thing was decided: nothing is loaded, nothing is judged.

Of a database: its tables with what each column was taken for, the tables that are none of bars with the reason, and the
partitions. A table is gone through once for the rows and the ends of all its partitions; only where times are text, or
units are mixed, are all times of a partition read. Of files the same, a file in place of a table (see `spans`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import stored_step
from bitcorn_ray.sources.columns import match_columns
from bitcorn_ray.sources.connection import connected
from bitcorn_ray.sources.database import BarReader
from bitcorn_ray.sources.ends import Ends, ends_of
from bitcorn_ray.sources.files import opened_file
from bitcorn_ray.sources.formats.formats import opened_rows
from bitcorn_ray.sources.held import StoredPartition, one_unit
from bitcorn_ray.sources.lake import hive_partition, is_bar_file, names_in_path
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import is_database, shown_source, source_files
from bitcorn_ray.sources.spans import Span, spans_of
from bitcorn_ray.sources.tables import BarTable
from bitcorn_ray.sources.times import ParsedTimes, read_times
from bitcorn_ray.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class InspectedTable:
    """A table, view or file. columns: our names to the stored ones; further: stored names that are none of ours.

    ignored: why it is none of bars; None where it is one.
    """

    name: str
    kind: str
    columns: dict[str, str] = field(default_factory=dict)
    further: tuple[str, ...] = ()
    ignored: str | None = None


@dataclass(frozen=True, kw_only=True)
class InspectedPartition:
    """A partition as it was understood.

    first, last: times of its first and last bar, as ISO text. time: how times were read; units: rows by unit or form.
    problem: why it cannot be read as it is; None where it can.
    """

    symbol: str
    timeframe: str
    table: str
    rows: int
    first: str | None
    last: str | None
    time: str
    units: dict[str, int]
    symbol_from: str
    timeframe_from: str
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was understood of a source. kind: database, file or folder. problems: what is wrong with it as a whole."""

    source: str
    kind: str
    tables: list[InspectedTable]
    partitions: list[InspectedPartition]
    problems: list[str]


def inspect_source(source: str | Path, reading: Reading | None = None) -> Inspection:
    """Say what is understood of a database, a file, or a folder or URI of files, and how it was decided.

    Raises BitcornError where the source is missing, cannot be read, or holds no bars at all.
    """
    reading = reading or Reading()
    files = source_files(source)
    if len(files) == 1 and is_database(files[0].place):
        return _of_database(Path(source).expanduser(), reading)
    tables, partitions, problems = list[InspectedTable](), list[InspectedPartition](), list[str]()
    root = Location.of(source)
    for file in files:
        try:
            table, inside = _of_file(file.place, _name(file.place, root), reading)
        except BitcornError as error:
            if len(files) == 1:
                raise
            problems.append(str(error))
            tables.append(InspectedTable(name=_name(file.place, root), kind="file", ignored=str(error)))
            continue
        tables.append(table)
        partitions += inside
    kind = "file" if len(files) == 1 and files[0].place == root and files[0].place.info() else "folder"
    return Inspection(
        source=shown_source(source), kind=kind, tables=tables, partitions=_with_problems(partitions), problems=problems
    )


def _of_database(path: Path, reading: Reading) -> Inspection:
    with connected(path) as database:
        reader = BarReader(database, None, reading)
        problems = list[str]()
        try:
            held = reader.held
        except BitcornError as error:  # the tables are worth telling even where no one can say whose bars they hold
            held = []
            problems.append(str(error))
        views = frozenset(table.name for table in reader.tables if table.is_view)
        partitions = _with_problems(map(partial(_inspected, reader), held, ends_of(database, held)), views)
        tables = [_table(table) for table in reader.tables]
        used = {each.table.name for each in held}
        tables += [
            InspectedTable(name=each.name, kind="table", further=each.columns, ignored=each.reason)
            for each in reader.ignored
        ]
        if held:
            unused = [table.name for table in reader.tables if table.name not in used]
            problems += [f"table {name}: nothing says whose bars they are, or how far apart" for name in unused]
    return Inspection(source=str(path), kind="database", tables=tables, partitions=partitions, problems=problems)


def _table(table: BarTable) -> InspectedTable:
    known = {*table.columns.values()}
    return InspectedTable(
        name=table.name,
        kind="view" if table.is_view else "table",
        columns=table.columns,
        further=tuple(name for name in table.all_columns if name not in known),
    )


def _inspected(reader: BarReader, held: StoredPartition, ends: Ends) -> InspectedPartition:
    times, untimed = _times_of(ends), ends.untimed
    if times is None:
        times, bad = reader.read_times(held)
        times, untimed = ParsedTimes(times.ms[~bad], times.how, times.units), int(bad.sum())
    problem = f"{untimed} rows have no time" if untimed else held.table.doubt
    step = stored_step(held.partition.timeframe)
    if step is None:
        problem = f"{held.partition.timeframe!r} is no timeframe of a fixed length"
    elif problem is None and len(times.ms):
        too_many = ends.rows > 1 + (int(times.ms.max()) - int(times.ms.min())) // step
        problem = reader.mixture(held) if too_many or held.table.no_timeframes else None
    return InspectedPartition(
        symbol=held.partition.symbol,
        timeframe=held.partition.timeframe,
        table=held.table.name,
        rows=ends.rows,
        **_range(times.ms),
        time=times.how,
        units=times.units,
        symbol_from=held.symbol_from,
        timeframe_from=held.timeframe_from,
        problem=problem,
    )


def _times_of(ends: Ends) -> ParsedTimes | None:
    """Times of a partition's ends, counted as all of its rows; None where these say nothing of the others."""
    if not one_unit(ends.smallest, ends.largest):
        return None
    times, bad = read_times(pa.array([ends.smallest, ends.largest]))
    return None if bad.any() else ParsedTimes(times.ms, times.how, dict.fromkeys(times.units, ends.rows - ends.untimed))


def _range(ms: Any) -> dict[str, str | None]:
    first, last = (show_time(int(ms.min())), show_time(int(ms.max()))) if len(ms) else (None, None)
    return {"first": first, "last": last}


def _name(place: Location, root: Location) -> str:
    """Name of a file of a source: where it lies in a folder, its own name elsewhere."""
    return place.name if place == root else place.relative_to(root)


def _of_file(place: Location, name: str, reading: Reading) -> tuple[InspectedTable, list[InspectedPartition]]:
    """Inspect a file, or a folder of files that are one partition, which count as their first one."""
    files = [place] if place.info() else [file for file in place.files() if is_bar_file(file.name)]
    with opened_rows(files[0]) as rows:
        found, _ = match_columns(rows.names, dict(reading.mapping))
        further = tuple(name for name in rows.names if name not in found.values())
    table = InspectedTable(name=name, kind="file", columns=found, further=further)
    _, named_timeframe = names_in_path(files[0])
    by_name = "the folders' names" if hive_partition(files[0]) else "the file's name"
    told, how, units = spans_of(files, reading)
    partitions = [
        InspectedPartition(
            symbol=partition.symbol,
            timeframe=partition.timeframe,
            table=name,
            rows=span.rows,
            **_range(np.array([span.first, span.last])),
            time=how,
            units=units,
            symbol_from=f"column {found['symbol']}" if "symbol" in found else by_name,
            timeframe_from=f"column {found['timeframe']}"
            if "timeframe" in found
            else (by_name if named_timeframe else "the bars' most frequent distance"),
            problem=_mixed(files, reading, partition, span),
        )
        for partition, span in sorted(told.items())
    ]
    return table, partitions


def _mixed(files: Sequence[Location], reading: Reading, partition: Partition, span: Span) -> str | None:
    """Say which column tells rows of one time apart, where there are more rows than a partition can have."""
    step = stored_step(partition.timeframe)
    if step is None or span.rows <= 1 + (span.last - span.first) // step:
        return None
    for place in files:
        with opened_file(place, *names_in_path(place), reading) as file:
            if problem := file.mixture():
                return problem
    return None


def _with_problems(
    partitions: Iterable[InspectedPartition], views: frozenset[str] = frozenset()
) -> list[InspectedPartition]:
    """Sort partitions, and tell those that several tables hold; a view of what a table holds is no second one."""
    found = sorted(partitions, key=lambda each: (each.symbol, each.timeframe, each.table))
    tables: dict[tuple[str, object], list[str]] = {}
    for each in found:
        tables.setdefault(_identity(each), []).append(each.table)
    told = []
    for each in found:
        others = [name for name in tables[_identity(each)] if name != each.table]
        if each.table in views and any(name not in views for name in others):
            continue
        rivals = [name for name in others if name not in views or each.table in views]
        if rivals and each.problem is None:
            each = replace(each, problem=f"also in {', '.join(rivals)}: say which by --table {each.table}")
        told.append(each)
    return told


def _identity(each: InspectedPartition) -> tuple[str, object]:
    return normalise_symbol(each.symbol), stored_step(each.timeframe) or each.timeframe
