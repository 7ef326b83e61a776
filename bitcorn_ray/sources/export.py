"""Export any source of bars to a folder or URI of Parquet: one file per partition, in hive folders.

`symbol=BTC%2FUSDT/timeframe=1h/bars.parquet` holds the bars of one partition as they are stored, ascending, not
cleaned. Such a folder is a source itself, and workers of a cluster can read it from an object store; Arrow, Spark,
DuckDB and Polars read it as one table. Each file appears whole or not at all.
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
from bitcorn_ray.sources.folders import bar_files, names_in_path
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import open_source
from bitcorn_ray.storage.location import Location
from bitcorn_ray.storage.storage import publish_file

_LONGEST_NAME = 255  # in bytes, of most file systems


@dataclass(frozen=True)
class ExportedPartition:
    """An exported partition. file: its address without secrets. bytes: its size."""

    partition: Partition
    rows: int
    file: str
    bytes: int


def export_bars(
    source: str | Path,
    target: str | Path,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    options: SourceOptions | None = None,
    on_done: Callable[[ExportedPartition], None] = lambda _: None,
) -> list[ExportedPartition]:
    """Write the partitions of a source as Parquet below a folder or URI; files of an earlier export are replaced.

    symbols, timeframes: only these, in any spelling. options: for reading the source; its further columns are written
    too. on_done: called with each partition when it is written.
    Raises BitcornError if the source cannot be read, a symbol or timeframe does not exist, or the target cannot be
    written or holds one of the partitions in another file.
    """
    opened = open_source(source, (options or SourceOptions()).with_symbols(symbols))
    stored = opened.partitions_of_files()
    chosen = set(select_partitions([partition for _, partition in stored], symbols, timeframes))
    for partition in chosen:
        _require_short(partition)
    root = Location.of(target)
    _require_free(root, chosen)
    exported = []
    for file, partition in stored:
        if partition in chosen:
            with file.opened(opened.options) as reader:
                bars, _ = reader.read_stored(partition)
            exported.append(_written(root, partition, bars))
            on_done(exported[-1])
    return exported


def _name(partition: Partition) -> str:
    return f"symbol={quote(partition.symbol, safe='')}/timeframe={quote(partition.timeframe, safe='')}/bars.parquet"


def _require_short(partition: Partition) -> None:
    """Raise BitcornError if a folder name would be too long."""
    longest = max(len(part.encode()) for part in _name(partition).split("/"))
    if longest > _LONGEST_NAME:
        raise BitcornError(
            f"{partition.symbol[:40]}... cannot be exported: its folder's name would have {longest:,} bytes, and "
            f"{_LONGEST_NAME} is the most; leave it out with symbols"
        )


def _require_free(root: Location, partitions: set[Partition]) -> None:
    """Raise BitcornError if the target holds one of the partitions in a file that would not be replaced."""
    if root.info() is not None:
        raise BitcornError(f"{root} cannot be written: it is a file, and a folder is needed")
    ours = {(normalise_symbol(p.symbol), p.timeframe): _name(p) for p in partitions}
    for file in bar_files(root):
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
    content, file = sink.getvalue(), root.child(_name(partition))
    publish_file(file.address, f"bars of {partition}", content)
    return ExportedPartition(partition, len(bars), file.shown, content.size)
