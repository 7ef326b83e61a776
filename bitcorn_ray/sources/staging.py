"""Rows on their way into a database: a private table on the disk, so that they may be more than fit into memory.

Everything is read and checked into it before the database is touched. It is written through ADBC, which takes Arrow as
it is, and read by Python's own SQLite, which writes the database: a connection that the user holds to that is of the
same SQLite, and two copies in one process do not know of each other's locks.
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
    """The rows of one source. partitions: by part, a number. rejected: rows by part (-1: none) and reason.

    first, end: its rows' numbers, the end excluded. ordered: no time of a part occurs twice, as each of them rises from
    row to row, or falls.
    """

    source: str
    partitions: dict[int, Partition]
    rejected: Counter[tuple[int, str]]
    first: int
    end: int
    ordered: bool


class Staging:
    """The table, and what its rows are. path: of the private database."""

    def __init__(self, path: Path, connection: Any) -> None:
        self.path, self._connection = path, connection
        self.sources: list[StagedSource] = []
        self._rows = self._first = self._parts = 0
        self._order = _Order()

    @property
    def may_repeat(self) -> bool:
        """Whether a time of the source that is being read may have occurred twice in one of its partitions."""
        return not self._order.is_strict

    def add(self, codes: NDArray[np.int64], bars: Bars) -> None:
        """Append T bars of the source that is being read. codes: (T,) which of its partitions each belongs to."""
        assert bars.timestamp is not None
        columns = dict(zip(("ts", *BAR_COLUMNS[1:]), bars.columns().values(), strict=True))
        batch = pa.record_batch({"part": codes + self._parts, **columns})
        if len(bars):
            with self._connection.cursor() as cursor:
                cursor.adbc_ingest("incoming", batch, mode="append")
        self._rows += len(bars)
        self._order.add(codes, bars.timestamp)

    def finish(self, source: str, partitions: Sequence[Partition], rejected: Counter[tuple[int, str]]) -> None:
        """End a source. partitions: of its codes. rejected: by code and reason."""
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
    """Open an empty staging table, which is gone after the block."""
    from adbc_driver_sqlite import dbapi

    with tempfile.TemporaryDirectory(prefix="bitcorn-ingest-") as folder:
        path = Path(folder) / "staging.db"
        with dbapi.connect(path.as_uri(), autocommit=True) as connection:
            # What a crash leaves of it is of no use: nothing has to be safe.
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
        self._last = np.zeros(0, np.int64)  # by code; a code without rows so far has _NONE

    @property
    def is_strict(self) -> bool:
        """Tell whether no time can have occurred twice."""
        return self._rises or self._falls

    def add(self, codes: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        if len(codes) == 0 or not self.is_strict:
            return
        if (codes != codes[0]).any():
            order = np.argsort(codes, kind="stable")
            codes, times = codes[order], times[order]
        most = int(codes[-1]) + 1
        self._last = np.append(self._last, np.full(max(0, most - len(self._last)), _NONE))
        starts = np.flatnonzero(np.r_[True, np.diff(codes) != 0])
        steps = np.diff(times)
        before = self._last[codes[starts]]
        known = before != _NONE
        steps[starts[1:] - 1] = 0
        inside = np.ones(len(steps), bool)
        inside[starts[1:] - 1] = False
        joined = np.r_[steps[inside], (times[starts] - before)[known]]
        self._rises, self._falls = self._rises and bool((joined > 0).all()), self._falls and bool((joined < 0).all())
        self._last[codes[starts]] = times[np.r_[starts[1:] - 1, len(times) - 1]]


_NONE = np.iinfo(np.int64).min
