"""A private table on disk for rows on their way into a database, so that there may be more than fit into memory.

All rows are read and checked into it before the database is touched. ADBC writes it, since it takes Arrow directly;
Python's own SQLite reads it and writes the database. The user's connections in this process are of the same SQLite copy
then, and two copies in one process do not see each other's locks.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.market.bars import BAR_COLUMNS, Bars
from bitcorn_ray.market.partition import Partition

_CREATE = "CREATE TABLE incoming (part INTEGER, ts INTEGER, open REAL, high REAL, low REAL, close REAL, volume REAL)"


@dataclass(frozen=True)
class StagedSource:
    """The staged rows of one source.

    partitions: by part, a number. rejected: numbers of rows by part (-1: none) and reason. first, end: range of its row
    ids, end excluded. ordered: no time of a part occurs twice, as all parts rise from row to row, or all fall.
    """

    source: str
    partitions: dict[int, Partition]
    rejected: Counter[tuple[int, str]]
    first: int
    end: int
    ordered: bool


class Staging:
    """The table and its sources. path: of the private database."""

    def __init__(self, path: Path, connection: Any) -> None:
        self.path, self._connection = path, connection
        self.sources: list[StagedSource] = []
        self._rows = self._first = self._parts = 0
        self._order = _Order()

    @property
    def may_repeat(self) -> bool:
        """Whether a time may have occurred twice in a partition of the source that is being read."""
        return not self._order.is_strict

    def add(self, codes: NDArray[np.int64], bars: Bars) -> None:
        """Append T bars of the source that is being read. codes: (T,) indices of their partitions."""
        columns = dict(zip(("ts", *BAR_COLUMNS[1:]), bars.columns().values(), strict=True))
        batch = pa.record_batch({"part": codes + self._parts, **columns})
        if len(bars):
            with self._connection.cursor() as cursor:
                cursor.adbc_ingest("incoming", batch, mode="append")
        self._rows += len(bars)
        self._order.add(codes, bars.timestamp)

    def finish(self, source: str, partitions: Sequence[Partition], rejected: Counter[tuple[int, str]]) -> None:
        """Finish a source. partitions: by code. rejected: numbers of rows by code and reason."""
        first = self._parts
        self.sources.append(
            StagedSource(
                source,
                {first + code: partition for code, partition in enumerate(partitions)},
                Counter({(-1 if code < 0 else first + code, why): n for (code, why), n in rejected.items()}),
                self._first + 1,
                self._rows + 1,
                self._order.is_strict,
            )
        )
        self._parts, self._first, self._order = first + len(partitions), self._rows, _Order()


@contextmanager
def staged() -> Iterator[Staging]:
    """Open an empty staging table for the time of a block."""
    from adbc_driver_sqlite import dbapi

    with tempfile.TemporaryDirectory(prefix="bitcorn-ingest-") as folder:
        path = Path(folder) / "staging.db"
        with dbapi.connect(path.as_uri(), autocommit=True) as connection:
            # Nobody needs it after a crash.
            for sql in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", _CREATE):
                with connection.cursor() as cursor:
                    cursor.execute(sql)
                    if sql.startswith("PRAGMA"):
                        cursor.fetchall()
            yield Staging(path, connection)


class _Order:
    """Whether the times of every part rise from row to row, or all fall."""

    def __init__(self) -> None:
        self._rises = self._falls = True
        self._codes = self._times = np.zeros(0, np.int64)  # the last row of each part

    @property
    def is_strict(self) -> bool:
        """Whether no time can have occurred twice."""
        return self._rises or self._falls

    def add(self, codes: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        codes, times = np.concatenate((self._codes, codes)), np.concatenate((self._times, times))
        if len(codes) == 0 or not self.is_strict:
            return
        if (codes != codes[0]).any():
            order = np.argsort(codes, kind="stable")
            codes, times = codes[order], times[order]
        is_last = np.append(np.diff(codes) != 0, True)
        steps = np.diff(times)[~is_last[:-1]]
        self._rises, self._falls = self._rises and bool((steps > 0).all()), self._falls and bool((steps < 0).all())
        self._codes, self._times = codes[is_last], times[is_last]
