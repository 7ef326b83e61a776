"""Bars out of files: Parquet and CSV with named columns, read into Arrow.

A file may hold one partition, named by its file name or by the caller, or several, told apart by a symbol and a
timeframe column.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, modal_step
from bitcorn_ray.market.columns import BAR_COLUMNS, is_number, match_columns, milliseconds
from bitcorn_ray.market.partition import Partition, partition_of_file, timeframe_ms, timeframe_of_ms

__all__ = ["column_names", "read_file"]

_SMALL_BYTES = 8_000_000
_HEAD_BYTES = 65_536


def read_file(
    path: str | Path, symbol: str | None = None, timeframe: str | None = None
) -> list[tuple[Partition, Bars]]:
    """Read every partition of a Parquet or CSV file, rows in the file's order.

    symbol, timeframe: used where the file has no such column; by default they come from the file name
    (``BTCUSDT_1h.parquet``), and the timeframe, where that says none either, from the bars' most frequent distance.
    Raises BitcornError where the file is missing, cannot be read, lacks a column, or does not say its symbol.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise BitcornError(f"no file at {path}: check the path")
    table = _read_table(path)
    found, missing = match_columns(table.column_names)
    if twice := [name for name in found.values() if table.column_names.count(name) > 1]:
        raise BitcornError(f"{path} has column {twice[0]} more than once: keep one of them")
    if missing:
        raise BitcornError(f"{path} has no column {', '.join(missing)}: it has {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise BitcornError(f"{path} has no rows")
    file_symbol, file_timeframe = partition_of_file(path)
    symbol, timeframe = symbol or file_symbol, timeframe or file_timeframe
    partitions = []
    for keys, rows in _groups(table, found):
        bars = _to_bars(rows, found, path)
        of_symbol = keys.get("symbol") or symbol
        if not of_symbol:
            raise BitcornError(f"{path} does not say its symbol, neither in a column nor in its name: pass --symbol")
        assert bars.timestamp is not None
        of_timeframe = keys.get("timeframe") or timeframe or timeframe_of_ms(modal_step(np.sort(bars.timestamp)))
        timeframe_ms(of_timeframe)
        partitions.append((Partition(of_symbol, of_timeframe.strip().lower()), bars))
    return partitions


def column_names(path: Path) -> list[str]:
    """Names of a file's columns, without reading its rows. Raises BitcornError where it cannot be read."""
    name = path.name.lower()
    try:
        if name.endswith((".parquet", ".pq")):
            import pyarrow.parquet as pq

            return list(pq.read_schema(path, memory_map=True).names)
        with (
            pa.OSFile(str(path)) as raw,
            pa.CompressedInputStream(raw, "gzip") if name.endswith(".gz") else raw as file,
        ):
            head = bytes(file.read(_HEAD_BYTES)).decode("utf-8", "replace")
    except (pa.ArrowException, OSError) as error:
        raise BitcornError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    return [column.strip().strip('"') for column in head.partition("\n")[0].split(",")]


def _read_table(path: Path) -> pa.Table:
    name = path.name.lower()
    try:
        if name.endswith((".parquet", ".pq")):
            import pyarrow.parquet as pq

            # A small file is read before a pool of threads has started.
            with pa.memory_map(str(path)) as file, pq.ParquetFile(file) as parquet:
                return parquet.read(use_threads=path.stat().st_size > _SMALL_BYTES)
        if name.endswith((".csv", ".csv.gz")):
            from pyarrow import csv

            with pa.OSFile(str(path)) as raw:
                return csv.read_csv(pa.CompressedInputStream(raw, "gzip") if name.endswith(".gz") else raw)
    except (pa.ArrowException, OSError) as error:
        raise BitcornError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    raise BitcornError(f"{path} is of an unknown format: give .parquet, .csv or .csv.gz")


def _groups(table: pa.Table, found: dict[str, str]) -> Iterator[tuple[dict[str, str], pa.Table]]:
    keys = [name for name in ("symbol", "timeframe") if name in found]
    for key in keys:
        if nulls := table.column(found[key]).null_count:
            raise BitcornError(f"{nulls} rows have no {key} in column {found[key]!r}: remove or complete them")
    if not keys:
        yield {}, table
        return
    for values in (
        table.select([found[key] for key in keys]).group_by([found[key] for key in keys]).aggregate([]).to_pylist()
    ):
        mask: Any = True
        for key in keys:
            mask = pc.and_(mask, pc.equal(table.column(found[key]), values[found[key]]))
        yield {key: str(values[found[key]]) for key in keys}, table.filter(mask)


def _to_bars(table: pa.Table, found: dict[str, str], path: Path) -> Bars:
    times = table.column(found["timestamp"])
    where = f"column {found['timestamp']!r} of {path}"
    if times.null_count:
        raise BitcornError(f"{times.null_count} rows in {where} have no time: remove them")
    if pa.types.is_date(times.type):
        times = times.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(times.type):
        timestamp = times.cast(pa.timestamp("ms", times.type.tz), safe=False).cast(pa.int64()).to_numpy()
    else:
        timestamp = milliseconds(times.to_numpy(), where)
    columns = {}
    for name in BAR_COLUMNS[1:]:
        column = table.column(found[name])
        if not is_number(column.type):
            example = next((value for value in column.to_pylist() if not _reads_as_number(value)), column[0])
            raise BitcornError(f"column {found[name]!r} of {path} holds {example!r}, which is not a number")
        columns[name] = column.cast(pa.float64(), safe=False).to_numpy()
    return Bars(timestamp=timestamp, **columns)


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return value is None
    return True
