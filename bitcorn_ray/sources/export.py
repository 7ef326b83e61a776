"""Any source of bars into a folder or URI of Parquet: one file a partition, in hive folders.

`symbol=BTC%2FUSDT/timeframe=1h/bars.parquet` holds the bars of one partition as they are stored, ascending, nothing
cleaned. Such a folder is a source itself, and a cluster's workers can read it where it lies on an object store; Arrow,
Spark, DuckDB and Polars read it as one table. Each file appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition, normalise_symbol, select_partitions
from bitcorn_ray.sources.lake import is_bar_file, names_in_path
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import SourceFile, is_database, opened_source, partition_named, source_files
from bitcorn_ray.storage.location import Location
from bitcorn_ray.storage.storage import publish_file

_LONGEST_NAME = 255  # in bytes, of most file systems


@dataclass(frozen=True)
class ExportedPartition:
    """A partition that was written. file: its address as it may be shown. bytes: its size."""

    partition: Partition
    rows: int
    file: str
    bytes: int


def export_bars(
    source: str | Path,
    target: str | Path,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    reading: Reading | None = None,
    on_done: Callable[[ExportedPartition], None] = lambda _: None,
) -> list[ExportedPartition]:
    """Write the partitions of a source as Parquet below a folder or URI; files of an earlier export are replaced.

    symbols, timeframes: only these, in any spelling. reading: what the user says about the source; its further columns
    are written too. on_done: called with each partition as it is written.
    Raises BitcornError where the source cannot be read, a symbol or timeframe is not there, the target cannot be
    written, or holds one of the partitions in another file.
    """
    held = [(file, each) for file in source_files(source) for each in _partitions(file, reading)]
    chosen = set(select_partitions([partition for _, partition in held], symbols, timeframes))
    for partition in chosen:
        _require_short(partition)
    root = Location.of(target)
    _require_free(root, chosen)
    done = []
    for file, partition in held:
        if partition in chosen:
            with opened_source(file.place, reading) as reader:
                bars, _ = reader.read_stored(partition)
            done.append(_written(root, partition, bars))
            on_done(done[-1])
    return done


def _partitions(file: SourceFile, reading: Reading | None) -> list[Partition]:
    named = None if is_database(file.place) else partition_named(file.place, reading)
    if named is not None:
        return [named]
    with opened_source(file.place, reading) as reader:
        return list(reader.partitions)


def _name(partition: Partition) -> str:
    return f"symbol={quote(partition.symbol, safe='')}/timeframe={quote(partition.timeframe, safe='')}/bars.parquet"


def _require_short(partition: Partition) -> None:
    """Refuse what no folder can be named by."""
    longest = max(len(part.encode()) for part in _name(partition).split("/"))
    if longest > _LONGEST_NAME:
        raise BitcornError(
            f"{partition.symbol[:40]}... cannot be exported: its folder's name would have {longest:,} bytes, and "
            f"{_LONGEST_NAME} is the most; leave it out with symbols"
        )


def _require_free(root: Location, partitions: set[Partition]) -> None:
    """Refuse a target that holds one of the partitions in a file that would stay beside the new one."""
    if root.info() is not None:
        raise BitcornError(f"{root} cannot be written: it is a file, and a folder is needed")
    ours = {(normalise_symbol(each.symbol), each.timeframe): _name(each) for each in partitions}
    for file in root.files(lambda folder: "=" in folder):
        if not is_bar_file(file.name):
            continue
        symbol, timeframe = names_in_path(file)
        name = ours.get((normalise_symbol(symbol or ""), timeframe or ""))
        if name is not None and file.relative_to(root) != name:
            raise BitcornError(
                f"{root} holds {symbol} {timeframe} already, in {file.relative_to(root)}: remove it, or export "
                "to another place"
            )


def _written(root: Location, partition: Partition, bars: Bars) -> ExportedPartition:
    import pyarrow.parquet as pq

    columns = {**bars.columns(), **bars.extra}
    times = pa.array(columns.pop("timestamp")).cast(pa.timestamp("ms", "UTC"))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"timestamp": times, **columns}), sink, compression="zstd")
    content, place = sink.getvalue(), root.child(_name(partition))
    publish_file(place.address, f"bars of {partition}", content)
    return ExportedPartition(partition, len(bars), place.shown, content.size)
