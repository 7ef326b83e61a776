"""A journal of ingests in the database that they write, so that the last ones can be undone.

The journal is three tables beside `ohlcv`, written in the transaction of the ingest:

- `bitcorn_ingests`: what came from which source: a row per ingest, source and partition;
- `bitcorn_undo`: which rows of `ohlcv` an ingest inserted, as a range of row ids, and a checksum of all it wrote;
- `bitcorn_replaced`: the rows that it replaced, as they were.

An ingest can be undone as long as it is one of the last 20, all later ones are undone, and its rows are unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.sqlite.connection import BUSY_SECONDS, OWN_TABLES, local_database

_KEPT = 20
_VALUES = "open, high, low, close, volume"
_CREATE = f"""
CREATE TABLE IF NOT EXISTS main.{OWN_TABLES}ingests (
    ingest INTEGER, at TEXT, source TEXT, symbol TEXT, timeframe TEXT, inserted INTEGER, updated INTEGER
);
CREATE TABLE IF NOT EXISTS main.{OWN_TABLES}undo (
    ingest INTEGER PRIMARY KEY, after_row INTEGER, last_row INTEGER, checksum TEXT
);
CREATE TABLE IF NOT EXISTS main.{OWN_TABLES}replaced (
    ingest INTEGER, row INTEGER, open REAL, high REAL, low REAL, close REAL, volume REAL, PRIMARY KEY (ingest, row)
);
"""
_CHECKSUM = (
    "SELECT count(*) || ' ' || total(ts) || ' ' || total(open) || ' ' || total(high) || ' ' || total(low) || ' ' || "
    "total(close) || ' ' || total(volume) FROM main.ohlcv WHERE (rowid > :after AND rowid <= :last) "
    f"OR rowid IN (SELECT row FROM main.{OWN_TABLES}replaced WHERE ingest = :ingest)"
)


@dataclass(frozen=True)
class IngestRecord:
    """What an ingest took from one source for one partition. at: when, UTC, as ISO text."""

    at: str
    source: str
    partition: Partition
    inserted: int
    updated: int


class Journal:
    """The journal of one ingest, whose transaction has begun. Nothing is written for an ingest without changes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ingest: int | None = None
        self._after = _last_row(connection)

    def keep_replaced(self, selected: str, span: dict[str, int]) -> None:
        """Keep stored rows before they are replaced. selected: FROM and WHERE that select them, with `o` for them."""
        if self._after is not None:
            self._connection.execute(
                f"INSERT OR IGNORE INTO main.{OWN_TABLES}replaced SELECT :ingest, o.rowid, o.open, o.high, o.low, "
                f"o.close, o.volume {selected} AND o.rowid <= :after",
                {**span, "ingest": self._begin(), "after": self._after},
            )

    def finish(self, records: Iterable[tuple[str, Partition, int, int]]) -> None:
        """Write what was taken. records: source, partition, and numbers of inserted and updated rows."""
        changed = [(source, p.symbol, p.timeframe, *counts) for source, p, *counts in records if any(counts)]
        if not changed:
            return
        ingest, run = self._begin(), self._connection.execute
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._connection.executemany(
            f"INSERT INTO main.{OWN_TABLES}ingests VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(ingest, at, *record) for record in changed],
        )
        if self._after is None:  # a table WITHOUT ROWID, which a user has made
            return
        last = _last_row(self._connection)
        checksum = run(_CHECKSUM, {"after": self._after, "last": last, "ingest": ingest}).fetchone()[0]
        run(f"INSERT INTO main.{OWN_TABLES}undo VALUES (?, ?, ?, ?)", (ingest, self._after, last, checksum))
        for table in ("undo", "replaced"):
            run(f"DELETE FROM main.{OWN_TABLES}{table} WHERE ingest <= ?", [ingest - _KEPT])

    def _begin(self) -> int:
        if self._ingest is None:
            for statement in _CREATE.split(";")[:-1]:
                self._connection.execute(statement)
            latest = self._connection.execute(f"SELECT max(ingest) FROM main.{OWN_TABLES}ingests").fetchone()[0]
            self._ingest = (latest or 0) + 1
        return self._ingest


def undo_ingest(db_path: str | Path) -> list[IngestRecord]:
    """Undo the last ingest of a database: remove what it inserted, and restore what it replaced.

    Returns what is undone. Raises BitcornError if there is no ingest to undo, if its rows have changed since, and if
    the database cannot be written; it is then unchanged.
    """
    path = local_database(db_path)
    if not path.is_file():
        raise BitcornError(f"{path} does not exist: nothing can be undone")
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            records = _undo(connection, path)
            connection.execute("COMMIT")
            return records
    except sqlite3.Error as error:
        raise BitcornError(f"{path} cannot be written: {error}") from error


def _undo(connection: sqlite3.Connection, path: Path) -> list[IngestRecord]:
    run = connection.execute
    if run("SELECT 1 FROM sqlite_schema WHERE name = ?", [f"{OWN_TABLES}undo"]).fetchone() is None:
        raise BitcornError(f"{path} has no ingest that can be undone")
    found = run(f"SELECT * FROM main.{OWN_TABLES}undo ORDER BY ingest DESC LIMIT 1").fetchone()
    if found is None:
        raise BitcornError(f"{path} has no ingest that can be undone: the journal keeps the last {_KEPT}")
    ingest, after, last, checksum = found
    if run(_CHECKSUM, {"after": after, "last": last, "ingest": ingest}).fetchone()[0] != checksum:
        raise BitcornError(f"the rows of the last ingest into {path} have changed since: it cannot be undone")
    records = [
        IngestRecord(at, source, Partition(symbol, timeframe), inserted, updated)
        for at, source, symbol, timeframe, inserted, updated in run(
            f"SELECT at, source, symbol, timeframe, inserted, updated FROM main.{OWN_TABLES}ingests WHERE ingest = ?",
            [ingest],
        )
    ]
    run("DELETE FROM main.ohlcv WHERE rowid > ? AND rowid <= ?", (after, last))
    run(
        f"UPDATE main.ohlcv SET ({_VALUES}) = (SELECT {_VALUES} FROM main.{OWN_TABLES}replaced AS r "
        "WHERE r.ingest = :ingest AND r.row = ohlcv.rowid) "
        f"WHERE rowid IN (SELECT row FROM main.{OWN_TABLES}replaced WHERE ingest = :ingest)",
        {"ingest": ingest},
    )
    for table in ("ingests", "undo", "replaced"):
        run(f"DELETE FROM main.{OWN_TABLES}{table} WHERE ingest = ?", [ingest])
    return records


def _last_row(connection: sqlite3.Connection) -> int | None:
    """Return the greatest row id of the table, 0 for an empty one; None if it has no row ids."""
    try:
        return connection.execute("SELECT max(rowid) FROM main.ohlcv").fetchone()[0] or 0
    except sqlite3.OperationalError:
        return None
