"""Upsert the rows of a staging table into table `ohlcv` by SQL, inside one transaction that the caller ends.

There is one row per symbol, timeframe and time. A row that is equal to the stored one is not written. Under "revise" a
partition whose common bars mostly differ from the stored ones is another market, and refused.
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
from bitcorn_ray.market.bars import PRICE_COLUMNS, show_time
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import stored_step, timeframe_of_ms
from bitcorn_ray.sources.journal import Journal
from bitcorn_ray.sources.sqlite.connection import BUSY_SECONDS
from bitcorn_ray.sources.staging import StagedSource

Conflict = Literal["revise", "keep", "replace", "error"]
"""What to do with rows of one time and different values; see `ingest.ingest_files`."""

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
# Prices that differ by more than rounding.
_OTHER_PRICES = "({})".format(
    " OR ".join(f"abs(o.{name} - i.{name}) > 1e-5 * max(abs(o.{name}), abs(i.{name}))" for name in PRICE_COLUMNS)
)
_CREATE_PARTS = "CREATE TEMP TABLE parts (part INTEGER PRIMARY KEY, symbol TEXT, timeframe TEXT, last INTEGER)"
_SET_LAST = """
UPDATE temp.parts AS p SET last = (
    SELECT max(o.ts) FROM main.ohlcv AS o WHERE o.symbol = p.symbol AND o.timeframe = p.timeframe
)
"""
# Of a part, by the rows that are stored too: how many are before the newest stored one, which may have been unfinished,
# how many of these have other prices, the first of them, and how far the newest one is off.
_COMPARED = f"""
SELECT sum(o.ts < p.last), sum(coalesce(o.ts < p.last AND {_OTHER_PRICES}, 0)),
    min(CASE WHEN o.ts < p.last AND {_OTHER_PRICES} THEN o.ts END), p.last,
    max(CASE WHEN o.ts = p.last THEN max(o.close / i.close, i.close / o.close) END)
{_STORED} AND i.part = :part
"""
_FACTOR = 1.5  # between prices of one unfinished bar, at most
_REPEATED_SHARE = 0.1  # of rows with the time of another row and other values, at most
_PART_ROWS = "FROM staging.incoming WHERE rowid >= :first AND rowid < :end AND part = :part"
_STAGED = "SELECT part, count(*) FROM staging.incoming WHERE rowid >= :first AND rowid < :end GROUP BY part"
_WAL = "PRAGMA main.journal_mode = WAL"
_CHUNK_ROWS = 250_000
_CACHE_KB = 65_536


class Target:
    """A database inside a write transaction.

    connection: to it, with the staging table attached. written: the last source that wrote each partition.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.journal = Journal(connection)
        self.written: dict[Partition, str] = {}
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


def open_target(path: Path, staging: Path, on_conflict: Conflict = "revise") -> Target:
    """Open a database for writing, begin a transaction, and attach the staging table.

    on_conflict: with "error" even the journal mode stays unchanged until the transaction ends.
    Raises sqlite3.Error if the file is no database or has another table `ohlcv`, and leaves it unchanged.
    """
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("ATTACH ? AS staging", [str(staging)])
        connection.execute(_CREATE_PARTS)
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
    Raises BitcornError for a refused conflict, and for a partition that is another market than the stored one.
    """
    run = target.connection.execute
    names = {part: target.stored_name(partition) for part, partition in source.partitions.items()}
    run("DELETE FROM temp.parts")
    rows = [(part, name.symbol, name.timeframe) for part, name in names.items()]
    target.connection.executemany("INSERT INTO temp.parts (part, symbol, timeframe) VALUES (?, ?, ?)", rows)
    span = {"first": source.first, "end": source.end}
    counts = {name: RowCounts() for name in names.values()}
    for (part, reason), count in source.rejected.items():
        counts.setdefault(names.get(part, Partition("", "")), RowCounts()).rejected[reason] += count
    if not source.ordered or len(counts) < len(names):
        _drop_repeated(target.connection, span, on_conflict, counts, source.source, names)
    for part, count in run(_STAGED, span).fetchall():
        counts[names[part]].inserted += count
    if any(_is_stored(target.connection, name) for name in names.values()):
        _compare_stored(target, span, on_conflict, counts, source.source, names)
    if not any(count.inserted or count.updated for count in counts.values()):
        on_rows(source.end - source.first)
        return counts
    replaces = on_conflict in ("revise", "replace")
    if any(count.updated for count in counts.values()):
        target.journal.keep_replaced(f"{_STORED} AND {_DIFFER}", span)
    target.written |= dict.fromkeys(names.values(), source.source)
    order = "" if source.ordered else "ORDER BY i.part, i.ts"
    for first in range(source.first, source.end, _CHUNK_ROWS):
        end = min(first + _CHUNK_ROWS, source.end)
        run(f"{_UPSERT} {order} {_REPLACE if replaces else _KEEP}", {"first": first, "end": end})
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
    order, kept = ("DESC", "last") if on_conflict in ("revise", "replace") else ("ASC", "first")
    connection.execute("DROP TABLE IF EXISTS temp.repeated")
    connection.execute(_REPEATED.format(differ=_DIFFER, order=order), span)
    query = "SELECT part, differs, count(*), min(id) FROM temp.repeated GROUP BY part, differs"
    for part, differs, count, first in connection.execute(query).fetchall():
        rows = connection.execute(f"SELECT count(*) {_PART_ROWS}", {**span, "part": part}).fetchone()[0]
        too_many = on_conflict == "revise" and count > max(1, _REPEATED_SHARE * rows)
        if differs and (on_conflict == "error" or too_many):
            time = connection.execute("SELECT ts FROM staging.incoming WHERE rowid = ?", [first]).fetchone()[0]
            raise BitcornError(
                f"{source} holds {names[part]} at {show_time(time)} twice, with different values ({count:,} such "
                "rows): if they are of one market, choose by --on-conflict keep (the first) or replace (the last)"
            )
        if differs:
            counts[names[part]].rejected[f"are duplicates with conflicting values (kept the {kept})"] += count
        else:
            counts[names[part]].unchanged += count
    connection.execute("DELETE FROM staging.incoming WHERE rowid IN (SELECT id FROM temp.repeated)")


def _compare_stored(
    target: Target,
    span: dict[str, int],
    on_conflict: Conflict,
    counts: dict[Partition, RowCounts],
    source: str,
    names: dict[int, Partition],
) -> None:
    """Count the rows that are already stored, and those of them with other values.

    Raises BitcornError for a refused difference, and for bars of another market: most have other prices.
    """
    run = target.connection.execute
    query = f"SELECT i.part, count(*), sum({_DIFFER}) {_STORED} GROUP BY i.part"
    for part, stored, differing in run(query, span).fetchall():
        if differing and on_conflict == "error":
            first = f"SELECT p.symbol, p.timeframe, i.ts {_STORED} AND {_DIFFER} LIMIT 1"
            symbol, timeframe, time = run(first, span).fetchone()
            raise BitcornError(
                f"{source} holds {symbol} {timeframe} at {show_time(time)} with other values than are stored "
                f"({differing} such rows): choose by --on-conflict keep (the stored) or replace (those of the file)"
            )
        if differing and on_conflict != "replace":
            _require_same_market(target, source, names[part], part, span)
        count = counts[names[part]]
        count.inserted -= stored
        count.unchanged += stored - differing
        if on_conflict in ("revise", "replace"):
            count.updated += differing
        elif differing:
            count.rejected["differ from the stored row (kept the stored)"] += differing


def _require_same_market(target: Target, source: str, name: Partition, part: int, span: dict[str, int]) -> None:
    """Raise BitcornError, with an example, if most common bars have other prices: they are of another market."""
    run, only = target.connection.execute, {**span, "part": part}
    run(_SET_LAST)
    earlier, other, first, last, factor = run(_COMPARED, only).fetchone()
    if 2 * other > earlier:
        time, what = first, f"{other:,} of {earlier:,} common bars differ"
    elif factor is not None and factor > _FACTOR:
        time, what = last, "the newest common bar differs"
    else:
        return
    prices = ", ".join(f"{row}.{column}" for row in "io" for column in PRICE_COLUMNS)
    values = run(f"SELECT {prices} {_STORED} AND i.part = :part AND i.ts = :time", {**only, "time": time}).fetchone()
    shown = ["none" if value is None else f"{value:.8g}" for value in values]
    where = f"{target.written[name]} holds" if name in target.written else "is stored"
    raise BitcornError(
        f"{source} holds another market than the {name} that {where}: {what}, at {show_time(time)} open, high, low and "
        f"close are {', '.join(shown[:4])} instead of {', '.join(shown[4:])}; say its symbol by --symbol, or, if its "
        "prices are the right ones, give --on-conflict replace"
    )


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
