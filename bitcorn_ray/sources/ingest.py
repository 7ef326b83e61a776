"""Files into a SQLite database: one table `ohlcv`, one row for each symbol, timeframe and time, WAL mode.

1. All files are read and checked into a private table (see `staging`); the database is not touched before the last of
   them was understood.
2. Of several rows of a file with one time, one is kept.
3. Each file is upserted by SQL, in the order given, all in one transaction. A file that cannot be used, and a crash at
   any instant, leave the database as it was.

The same file twice changes nothing. What becomes of a row that differs from the stored one is for the caller to say.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import PRICE_COLUMNS, Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.connection import local_database
from bitcorn_ray.sources.files import BarFile, KeyedBars, opened_file, require_one_each
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.staging import Staging, staged
from bitcorn_ray.sources.upsert import Conflict, open_target, upsert_source
from bitcorn_ray.storage.location import shown_uri


@dataclass(frozen=True)
class IngestedPartition:
    """What became of the rows of one partition of one file.

    rows = inserted + updated + unchanged + the sum of rejected, which are counts by reason. Rows that say no partition
    are of the partition with empty names.
    """

    source: str
    partition: Partition
    rows: int
    inserted: int
    updated: int
    unchanged: int
    rejected: dict[str, int] = field(default_factory=dict)


def ingest_files(
    files: Sequence[str | Path],
    db_path: str | Path,
    symbol: str | None = None,
    timeframe: str | None = None,
    on_file: Callable[[str], None] | None = None,
    *,
    on_conflict: Conflict = "replace",
    mapping: Mapping[str, str] | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[IngestedPartition]:
    """Upsert files into table `ohlcv` of a database, which is created where it is missing.

    files: CSV, JSON (also packed with gzip or zip), Feather and Parquet, as paths or URIs. symbol, timeframe: for files
    that name neither. mapping: our names of columns to the files', where these are not understood.
    on_conflict: what becomes of a row whose time is stored with other values, or stands in the file again: "replace"
    lets the last one win, "keep" the first, "error" refuses. on_file: called with each
    file's name, as it may be shown, before it is read.
    on_rows: called with numbers of rows as they are read, and again as they are written.
    Raises BitcornError for a file that cannot be used, and for a conflict that is refused; the database is then
    unchanged.
    """
    _require_known(on_conflict)
    local_database(db_path)
    with staged() as staging:
        for name in files:
            if on_file:
                on_file(shown_uri(name))
            with opened_file(name, symbol, timeframe, Reading.of(mapping=mapping or {})) as file:
                _stage(file, staging, on_rows)
        return _write(staging, db_path, on_conflict, on_rows)


def write_bars(
    partitions: Iterable[tuple[str, Partition, Bars]],
    db_path: str | Path,
    *,
    on_conflict: Conflict = "replace",
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[IngestedPartition]:
    """Upsert (source name, partition, bars) into table `ohlcv` in one transaction; see `ingest_files`.

    A symbol or timeframe that the table holds under another spelling keeps the stored one.
    Raises BitcornError where the database cannot be written or has another table of that name.
    """
    _require_known(on_conflict)
    local_database(db_path)
    with staged() as staging:
        for source, partition, bars in partitions:
            staging.add(np.zeros(len(bars), np.int64), bars)
            staging.finish(source, [partition], Counter())
        return _write(staging, db_path, on_conflict, on_rows)


def _require_known(on_conflict: str) -> None:
    if on_conflict not in get_args(Conflict):
        raise BitcornError(f"on_conflict is {on_conflict!r}: give one of {', '.join(get_args(Conflict))}")


def _stage(file: BarFile, staging: Staging, on_rows: Callable[[int], None]) -> None:
    kept = 0
    for keyed in file.batches():
        usable = _with_prices(file, keyed)
        staging.add(usable.codes, usable.bars)
        kept += len(usable.bars)
        on_rows(len(keyed.bars))
    if kept == 0:
        why = "; ".join(f"{count} {reason}" for reason, count in _by_reason(file.rejected).items())
        raise BitcornError(f"no row of {file.place} can be used: {why}")
    if staging.may_repeat:
        require_one_each(file)
    staging.finish(str(file.place), [file.partition(code) for code in range(len(file.keys))], file.rejected)


def _with_prices(file: BarFile, keyed: KeyedBars) -> KeyedBars:
    """Set rows aside that hold no price at all: they say nothing about their bar."""
    missing = np.logical_and.reduce([np.isnan(getattr(keyed.bars, name)) for name in PRICE_COLUMNS])
    return file.without(keyed, missing, "have no price")


def _by_reason(rejected: Counter[tuple[int, str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (_, reason), count in rejected.items():
        total[reason] += count
    return total


def _write(
    staging: Staging, db_path: str | Path, on_conflict: Conflict, on_rows: Callable[[int], None]
) -> list[IngestedPartition]:
    path = local_database(db_path)
    is_new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(open_target(path, staging.path, on_conflict)) as target:
            done = [
                IngestedPartition(source.source, *counts)
                for source in staging.sources
                for counts in upsert_source(target, source, on_conflict, on_rows)
            ]
            target.commit()
            return done
    except (sqlite3.Error, OSError) as error:
        remedy = ": another process writes it, wait until that is done" if "locked" in str(error) else ""
        raise BitcornError(f"{path} cannot be written: {error}{remedy}") from error
    finally:
        if is_new and path.is_file() and path.stat().st_size == 0:  # nothing was written to what SQLite created
            path.unlink()
