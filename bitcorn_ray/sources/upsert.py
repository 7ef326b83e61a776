"""Upsert the rows of a staging table into table `ohlcv` by SQL, inside one transaction that the caller ends.

There is one row per symbol, timeframe and time. A row that is equal to the stored one is not written.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import stored_step, timeframe_of_ms
from bitcorn_ray.sources.sqlite.connection import BUSY_SECONDS
from bitcorn_ray.sources.staging import StagedSource

Conflict = Literal["keep", "replace", "error"]

_CREATE = """
CREATE TABLE IF NOT EXISTS main.ohlcv (
    symbol TEXT NOT NULL, timeframe TEXT NOT NULL, ts INTEGER NOT NULL,
    open REAL, high REAL, low REAL, close REAL, volume REAL,
    UNIQUE (symbol, timeframe, ts)
)
"""
_UPSERT = """
INSERT INTO main.ohlcv (symbol, timeframe, ts, open, high, low, close, volume)
SELECT p.symbol, p.timeframe, i.ts, i.open, i.high, i.low, i.close, i.volume
FROM staging.incoming AS i CROSS JOIN temp.parts AS p ON p.part = i.part
WHERE i.rowid >= :first AND i.rowid < :end
"""
_REPLACE = """
ON CONFLICT (symbol, timeframe, ts) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume
WHERE (open, high, low, close, volume)
    IS NOT (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)
"""
_KEEP = "ON CONFLICT (symbol, timeframe, ts) DO NOTHING"
_DIFFER = "(o.open, o.high, o.low, o.close, o.volume) IS NOT (i.open, i.high, i.low, i.close, i.volume)"
_STORED = """
FROM staging.incoming AS i CROSS JOIN temp.parts AS p ON p.part = i.part
CROSS JOIN main.ohlcv AS o ON o.symbol = p.symbol AND o.timeframe = p.timeframe AND o.ts = i.ts
WHERE i.rowid >= :first AND i.rowid < :end
"""
# Rows of one time within a source, except the one that is kept: the first or the last of them.
_REPEATED = """
CREATE TABLE temp.repeated AS
SELECT i.rowid AS id, i.part AS part, {differ} AS differs
FROM (
    SELECT s.rowid AS id, first_value(s.rowid) OVER (PARTITION BY p.symbol, p.timeframe, s.ts ORDER BY s.rowid {order})
        AS kept
    FROM staging.incoming AS s JOIN temp.parts AS p ON p.part = s.part
    WHERE s.rowid >= :first AND s.rowid < :end
) AS r
JOIN staging.incoming AS i ON i.rowid = r.id JOIN staging.incoming AS o ON o.rowid = r.kept
WHERE r.id <> r.kept
"""
_STAGED = "SELECT part, count(*) FROM staging.incoming WHERE rowid >= :first AND rowid < :end GROUP BY part"
_WAL = "PRAGMA main.journal_mode = WAL"
_CHUNK_ROWS = 250_000
_CACHE_KB = 65_536


class Target:
    """A database inside a write transaction. connection: to it, with the staging table attached."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._spellings = _Spellings(connection)

    def commit(self) -> None:
        """Commit, and set WAL mode unless another process is reading the database."""
        self.connection.execute("COMMIT")
        with suppress(sqlite3.OperationalError):
            self.connection.execute(_WAL)

    def close(self) -> None:
        """Close the connection and roll back what is not committed."""
        self.connection.close()

    def stored_name(self, partition: Partition) -> Partition:
        """Return the partition as the table spells it."""
        return self._spellings.of(partition)


def open_target(path: Path, staging: Path, on_conflict: Conflict = "replace") -> Target:
    """Open a database for writing, begin a transaction, and attach the staging table.

    on_conflict: with "error" even the journal mode stays unchanged until the transaction ends.
    Raises sqlite3.Error if the file is no database or has another table `ohlcv`, and leaves it unchanged.
    """
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("ATTACH ? AS staging", [str(staging)])
        connection.execute("CREATE TEMP TABLE parts (part INTEGER PRIMARY KEY, symbol TEXT, timeframe TEXT)")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_CREATE)
        connection.execute(f"EXPLAIN {_UPSERT} {_REPLACE}", {"first": 0, "end": 0})
        connection.execute("ROLLBACK")
        if on_conflict != "error":
            # Set before writing: an interrupted write then leaves nothing that a reader would have to roll back.
            connection.execute(_WAL)
        connection.execute(f"PRAGMA main.cache_size = -{_CACHE_KB}")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_CREATE)
        return Target(connection)
    except BaseException:
        connection.close()
        raise


@dataclass
class RowCounts:
    """What happened to the rows of one partition. rejected: by reason."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def upsert_source(
    target: Target, source: StagedSource, on_conflict: Conflict, on_rows: Callable[[int], None]
) -> dict[Partition, RowCounts]:
    """Upsert the rows of one source.

    Returns counts by partition as stored; rows without a partition belong to the one with empty names.
    Raises BitcornError for a refused conflict.
    """
    run = target.connection.execute
    names = {part: target.stored_name(partition) for part, partition in source.partitions.items()}
    run("DELETE FROM temp.parts")
    target.connection.executemany(
        "INSERT INTO temp.parts VALUES (?, ?, ?)", [(part, n.symbol, n.timeframe) for part, n in names.items()]
    )
    span = {"first": source.first, "end": source.end}
    counts = {name: RowCounts() for name in names.values()}
    for (part, reason), count in source.rejected.items():
        counts.setdefault(names.get(part, Partition("", "")), RowCounts()).rejected[reason] += count
    if not source.ordered or len(counts) < len(names):
        _drop_repeated(target.connection, span, on_conflict, counts, source.source, names)
    for part, count in run(_STAGED, span).fetchall():
        counts[names[part]].inserted += count
    if any(_is_stored(target.connection, name) for name in names.values()):
        _count_stored(target.connection, span, on_conflict, counts, source.source, names)
    if not any(count.inserted or count.updated for count in counts.values()):
        on_rows(source.end - source.first)
        return counts
    order = "" if source.ordered else "ORDER BY i.part, i.ts"
    for first in range(source.first, source.end, _CHUNK_ROWS):
        end = min(first + _CHUNK_ROWS, source.end)
        run(f"{_UPSERT} {order} {_REPLACE if on_conflict == 'replace' else _KEEP}", {"first": first, "end": end})
        on_rows(end - first)
    return counts


def _drop_repeated(
    connection: sqlite3.Connection,
    span: dict[str, int],
    on_conflict: Conflict,
    counts: dict[Partition, RowCounts],
    source: str,
    names: dict[int, Partition],
) -> None:
    """Keep one row per time of a source."""
    order, kept = ("DESC", "last") if on_conflict == "replace" else ("ASC", "first")
    connection.execute("DROP TABLE IF EXISTS temp.repeated")
    connection.execute(_REPEATED.format(differ=_DIFFER, order=order), span)
    query = "SELECT part, differs, count(*), min(id) FROM temp.repeated GROUP BY part, differs"
    for part, differs, count, first in connection.execute(query).fetchall():
        if differs and on_conflict == "error":
            time = connection.execute("SELECT ts FROM staging.incoming WHERE rowid = ?", [first]).fetchone()[0]
            raise BitcornError(
                f"{source} holds {names[part]} at {show_time(time)} twice, with different values ({count} such rows): "
                "choose by --on-conflict keep (the first) or replace (the last)"
            )
        if differs:
            counts[names[part]].rejected[f"are duplicates with conflicting values (kept the {kept})"] += count
        else:
            counts[names[part]].unchanged += count
    connection.execute("DELETE FROM staging.incoming WHERE rowid IN (SELECT id FROM temp.repeated)")


def _count_stored(
    connection: sqlite3.Connection,
    span: dict[str, int],
    on_conflict: Conflict,
    counts: dict[Partition, RowCounts],
    source: str,
    names: dict[int, Partition],
) -> None:
    """Count the rows that are already stored, and those of them with other values."""
    query = f"SELECT i.part, count(*), sum({_DIFFER}) {_STORED} GROUP BY i.part"
    for part, stored, differing in connection.execute(query, span).fetchall():
        if differing and on_conflict == "error":
            first = f"SELECT p.symbol, p.timeframe, i.ts {_STORED} AND {_DIFFER} LIMIT 1"
            symbol, timeframe, time = connection.execute(first, span).fetchone()
            raise BitcornError(
                f"{source} holds {symbol} {timeframe} at {show_time(time)} with other values than are stored "
                f"({differing} such rows): choose by --on-conflict keep (the stored) or replace (those of the file)"
            )
        count = counts[names[part]]
        count.inserted -= stored
        count.unchanged += stored - differing
        if on_conflict == "replace":
            count.updated += differing
        elif differing:
            count.rejected["differ from the stored row (kept the stored)"] += differing


def _is_stored(connection: sqlite3.Connection, name: Partition) -> bool:
    query = "SELECT 1 FROM main.ohlcv WHERE symbol = ? AND timeframe = ? LIMIT 1"
    return connection.execute(query, (name.symbol, name.timeframe)).fetchone() is not None


class _Spellings:
    """The spellings of partitions in the table: BTC/USDT 60m and btcusdt 1h are one partition."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._symbols: dict[str, str] = {}
        self._timeframes: dict[tuple[str, int | None], str] = {}
        # Searched from key to key in the index, since DISTINCT would visit every row.
        following = (
            "SELECT symbol, timeframe FROM main.ohlcv WHERE (symbol, timeframe) > (?, ?) "
            "ORDER BY symbol, timeframe LIMIT 1"
        )
        found = connection.execute(following, ("", "")).fetchone()
        while found is not None:
            self._add(Partition(*found))
            found = connection.execute(following, found).fetchone()

    def of(self, partition: Partition) -> Partition:
        symbol = self._symbols.get(normalise_symbol(partition.symbol), partition.symbol)
        step = stored_step(partition.timeframe)
        usual = partition.timeframe if step is None else timeframe_of_ms(step)
        named = Partition(symbol, self._timeframes.get((normalise_symbol(symbol), step), usual))
        self._add(named)
        return named

    def _add(self, partition: Partition) -> None:
        plain = normalise_symbol(partition.symbol)
        self._symbols.setdefault(plain, partition.symbol)
        self._timeframes.setdefault((plain, stored_step(partition.timeframe)), partition.timeframe)


def stored_span(path: str | Path, partition: Partition) -> tuple[int, int] | None:
    """Return the first and last time of a partition in table `ohlcv` of a database; None if it has no rows.

    Raises BitcornError if the file cannot be read as a database.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        return None
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
        ) as connection:
            if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ohlcv'").fetchone() is None:
                return None
            name = _Spellings(connection).of(partition)
            query = "SELECT min(ts), max(ts) FROM main.ohlcv WHERE symbol = ? AND timeframe = ?"
            first, last = connection.execute(query, (name.symbol, name.timeframe)).fetchone()
    except sqlite3.Error as error:
        raise BitcornError(f"{path} cannot be read as a SQLite database: {error}") from error
    return None if first is None else (first, last)
