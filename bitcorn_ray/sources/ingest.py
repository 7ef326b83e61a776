"""Write files of bars into a SQLite database: one table `ohlcv`, one row per symbol, timeframe and time, WAL mode.

1. All files are read and checked into a private table (see `staging`). The database is not touched before the last file
   has been read.
2. Of several rows of a file with one time, one is kept.
3. Each file is upserted by SQL, in the order given, all in one transaction. A file that cannot be used, and a crash at
   any time, leave the database unchanged.

Ingesting the same file twice changes nothing. `on_conflict` decides about a row that differs from the stored one. What
each ingest wrote is kept in a journal, so that it can be undone (see `journal`).
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import PRICE_COLUMNS, Bars
from bitcorn_ray.market.partition import Partition, identity_of, parse_file_name
from bitcorn_ray.sources.files import BarFile, opened_file
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.sqlite.connection import local_database
from bitcorn_ray.sources.staging import StagedSource, Staging, staged
from bitcorn_ray.sources.upsert import Conflict, RowCounts, open_target, upsert_source
from bitcorn_ray.storage.location import shown_uri


@dataclass(frozen=True)
class IngestedPartition:
    """Counts of the rows of one partition of one file.

    rows = inserted + updated + unchanged + the sum of rejected, which counts by reason. Rows without a partition belong
    to the partition with empty names.
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
    on_conflict: Conflict = "revise",
    mapping: Mapping[str, str] | None = None,
    source_options: SourceOptions | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[IngestedPartition]:
    """Upsert files into table `ohlcv` of a database, which is created if it does not exist.

    files: CSV, JSON (also compressed with gzip or zip), Feather and Parquet, as paths or URIs. symbol, timeframe: for
    files that name neither. mapping: our column names to the files', if these are not recognised; or source_options,
    with all options for reading.
    on_conflict: which of two rows of one time with different values, stored or in one file, counts: "replace" keeps the
    last, "keep" the first, "error" refuses. "revise" replaces, but refuses a file of another market, of which most bars
    that are stored too have other prices; "keep" refuses it too. on_file: called with each file's name, without
    secrets, before it is read. on_rows: called with numbers of rows when they are read, and again when they are
    written.
    Raises BitcornError for a file that cannot be used, and for a refused conflict; the database is then unchanged.
    """
    _require_known(on_conflict)
    local_database(db_path)
    options = source_options or SourceOptions.of(mapping=mapping or {})
    with staged() as staging:
        for name in files:
            if on_file:
                on_file(shown_uri(name))
            with opened_file(name, symbol, timeframe, options) as file:
                _stage(file, staging, on_rows)
        if symbol is None:
            _require_one_market(staging.sources)
        return _write(staging, db_path, on_conflict, on_rows)


def write_bars(
    partitions: Iterable[tuple[str, Partition, Bars]],
    db_path: str | Path,
    *,
    on_conflict: Conflict = "revise",
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[IngestedPartition]:
    """Upsert (source name, partition, bars) into table `ohlcv` in one transaction; see `ingest_files`.

    A symbol or timeframe that the table holds under another spelling keeps the stored one.
    Raises BitcornError if the database cannot be written or has another table of that name.
    """
    _require_known(on_conflict)
    local_database(db_path)
    with staged() as staging:
        for source, partition, bars in partitions:
            staging.add(np.zeros(len(bars), np.int64), bars)
            staging.finish(source, [partition], Counter())
        return _write(staging, db_path, on_conflict, on_rows)


def _require_one_market(sources: Iterable[StagedSource]) -> None:
    """Raise BitcornError if files whose names may be those of different markets hold one partition."""
    seen: dict[tuple[str, object], tuple[str, tuple[str, ...]]] = {}
    for source in sources:
        name = source.source.rpartition("/")[2]
        labels = parse_file_name(name).labels
        for partition in source.partitions.values():
            other, others = seen.setdefault(identity_of(partition), (name, labels))
            if labels != others:
                words = " and ".join(repr(word) for word in sorted({*labels} ^ {*others}))
                raise BitcornError(
                    f"{other} and {name} both hold {partition}, but may be of two markets, as their names differ by "
                    f"{words}: ingest each with its own --symbol, or, if they are of one market, with the same --symbol"
                )


def _require_known(on_conflict: str) -> None:
    if on_conflict not in get_args(Conflict):
        raise BitcornError(f"on_conflict is {on_conflict!r}: give one of {', '.join(get_args(Conflict))}")


def _stage(file: BarFile, staging: Staging, on_rows: Callable[[int], None]) -> None:
    kept = 0
    for batch in file.batches():
        priced = ~np.logical_and.reduce([np.isnan(getattr(batch.bars, name)) for name in PRICE_COLUMNS])
        file.count_rejected(batch.codes[~priced], "have no price")
        staging.add(batch.codes[priced], batch.bars.take(priced))
        kept += int(priced.sum())
        on_rows(len(batch.bars))
    if kept == 0:
        reasons = Counter[str]()
        for (_, reason), count in file.rejected.items():
            reasons[reason] += count
        why = "; ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise BitcornError(f"no row of {file.location} can be used: {why}")
    if staging.may_repeat:
        file.require_one_series()
    staging.finish(str(file.location), [file.partition(code) for code in range(len(file.keys))], file.rejected)


def _write(
    staging: Staging, db_path: str | Path, on_conflict: Conflict, on_rows: Callable[[int], None]
) -> list[IngestedPartition]:
    path = local_database(db_path)
    is_new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(open_target(path, staging.path, on_conflict)) as target:
            done = [
                _ingested(source.source, partition, counts)
                for source in staging.sources
                for partition, counts in upsert_source(target, source, on_conflict, on_rows).items()
            ]
            target.journal.finish((one.source, one.partition, one.inserted, one.updated) for one in done)
            target.commit()
            return done
    except (sqlite3.Error, OSError) as error:
        remedy = ": another process writes it, wait until that is done" if "locked" in str(error) else ""
        raise BitcornError(f"{path} cannot be written: {error}{remedy}") from error
    finally:
        if is_new and path.is_file():
            _remove_if_empty(path)


def _remove_if_empty(path: Path) -> None:
    """Remove a database that SQLite created and into which nothing was written."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None:
            path.unlink()


def _ingested(source: str, partition: Partition, counts: RowCounts) -> IngestedPartition:
    rows = counts.inserted + counts.updated + counts.unchanged + counts.rejected.total()
    return IngestedPartition(
        source, partition, rows, counts.inserted, counts.updated, counts.unchanged, dict(counts.rejected)
    )
