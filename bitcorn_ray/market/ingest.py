"""Files into a SQLite database: one table `ohlcv`, one row for each symbol, timeframe and time, WAL mode.

All files are read and checked first; then everything is written in one transaction. A file that cannot be used, and a
crash at any instant, leave the database as it was. A row that is there already is replaced where it differs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.files import read_file
from bitcorn_ray.market.partition import Partition, normalise_symbol

__all__ = ["IngestedPartition", "ingest_files", "write_bars"]

_CREATE = """
CREATE TABLE IF NOT EXISTS ohlcv (
    symbol TEXT NOT NULL, timeframe TEXT NOT NULL, ts INTEGER NOT NULL,
    open REAL, high REAL, low REAL, close REAL, volume REAL,
    UNIQUE (symbol, timeframe, ts)
)
"""
_UPSERT = """
INSERT INTO ohlcv (symbol, timeframe, ts, open, high, low, close, volume) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (symbol, timeframe, ts) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume
WHERE (open, high, low, close, volume)
    IS NOT (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)
"""


@dataclass(frozen=True)
class IngestedPartition:
    """What became of the rows of one partition of one file: rows = inserted + updated + unchanged."""

    source: str
    partition: Partition
    rows: int
    inserted: int
    updated: int
    unchanged: int


def ingest_files(
    files: Sequence[str | Path],
    db_path: str | Path,
    symbol: str | None = None,
    timeframe: str | None = None,
    on_file: Callable[[str], None] | None = None,
) -> list[IngestedPartition]:
    """Upsert Parquet and CSV files into table `ohlcv` of a database, which is created where it is missing.

    symbol, timeframe: for files that name neither. on_file: called with each file's name before it is read.
    Raises BitcornError for a file that cannot be used; the database is then unchanged.
    """
    read: list[tuple[str, Partition, Bars]] = []
    for file in files:
        if on_file:
            on_file(str(file))
        read += [(str(file), partition, bars) for partition, bars in read_file(file, symbol, timeframe)]
    return write_bars(read, db_path)


def write_bars(partitions: Iterable[tuple[str, Partition, Bars]], db_path: str | Path) -> list[IngestedPartition]:
    """Upsert (source name, partition, bars) into table `ohlcv` in one transaction.

    A symbol that the table holds under another spelling keeps the stored one.
    Raises BitcornError where the database cannot be written or has another table of that name.
    """
    path = Path(db_path).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=30.0, isolation_level=None)) as connection:
            _require_usable(connection)
            # Before the write: one that is cut short then leaves nothing that a reader would have to roll back.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_CREATE)
            spellings = {normalise_symbol(s): s for (s,) in connection.execute("SELECT DISTINCT symbol FROM ohlcv")}
            done = [_upsert(connection, source, part, bars, spellings) for source, part, bars in partitions]
            connection.execute("COMMIT")
            return done
    except (sqlite3.Error, OSError) as error:
        raise BitcornError(f"{path} cannot be written: {error}") from error


def _require_usable(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.Error where the file is no database or has another `ohlcv`, and leave it as it is."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_CREATE)
    connection.execute(f"EXPLAIN {_UPSERT}", [None] * 8)
    connection.execute("ROLLBACK")


def _upsert(
    connection: sqlite3.Connection, source: str, partition: Partition, bars: Bars, spellings: dict[str, str]
) -> IngestedPartition:
    symbol = spellings.setdefault(normalise_symbol(partition.symbol), partition.symbol)
    partition = Partition(symbol, partition.timeframe)
    columns = [column.tolist() for column in bars.columns().values()]
    before, changes = _count(connection, partition), connection.total_changes
    rows = zip([symbol] * len(bars), [partition.timeframe] * len(bars), *columns, strict=True)
    connection.executemany(_UPSERT, rows)
    inserted = _count(connection, partition) - before
    updated = connection.total_changes - changes - inserted
    return IngestedPartition(source, partition, len(bars), inserted, updated, len(bars) - inserted - updated)


def _count(connection: sqlite3.Connection, partition: Partition) -> int:
    query = "SELECT count(*) FROM ohlcv WHERE symbol = ? AND timeframe = ?"
    return int(connection.execute(query, (partition.symbol, partition.timeframe)).fetchone()[0])
