"""Where bars are taken from: a SQLite database, a Parquet or CSV file, or a folder of such files.

A source that has not changed need not be read again. A file's fingerprint says so: its path, size, times of change
and inode, and of a database also SQLite's change counter and, as a commit in WAL mode moves neither, what its -wal file
says (size, time of change, salts). A file that was changed in the last seconds has none: a file system's clock may tick
too slowly to tell the next change from this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.columns import match_columns
from bitcorn_ray.market.database import opened_bars
from bitcorn_ray.market.files import column_names, read_file
from bitcorn_ray.market.partition import Partition, normalise_symbol, partition_of_file, same_timeframe

__all__ = [
    "PartitionReader",
    "SourceFile",
    "fingerprint",
    "is_database",
    "opened_source",
    "partition_named",
    "source_files",
]

_BAR_FILES = (".parquet", ".pq", ".csv", ".csv.gz")
_CHANGE_COUNTER = slice(24, 28)
_WAL_SALTS = slice(12, 24)  # checkpoint number and salts, which a restart of the log changes
_SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system in use, FAT's


@dataclass(frozen=True)
class SourceFile:
    """A file of a source. path: absolute. size: in bytes."""

    path: Path
    size: int


class PartitionReader(Protocol):
    """Reads the partitions of an open file."""

    @property
    def partitions(self) -> list[Partition]:
        """Every symbol x timeframe, sorted, as stored."""

    def read(self, symbol: str, timeframe: str) -> tuple[Bars, Partition]:
        """Return the bars of one partition as stored, and its stored name."""

    def read_stored(self, partition: Partition) -> tuple[Bars, Partition]:
        """Return the same for a partition that is named as it is stored."""


def source_files(source: str | Path) -> list[SourceFile]:
    """Return the files of a source, sorted by path. Raises BitcornError where there is none."""
    path = Path(source).expanduser().absolute()
    if not path.is_dir():
        if not path.is_file():
            raise BitcornError(f"no database, file or folder of bars at {path}: check the path")
        return [_described(path)]
    found = [each for each in sorted(path.iterdir()) if each.name.lower().endswith(_BAR_FILES) and each.is_file()]
    if not found:
        raise BitcornError(f"{path} holds no file of bars: give a folder with {', '.join(_BAR_FILES)} files")
    return [_described(each) for each in found]


def partition_named(path: Path) -> Partition | None:
    """Partition that a file's name says, where the file has no columns that may say others."""
    if is_database(path):
        return None
    try:
        symbol, timeframe = partition_of_file(path)
        columns = match_columns(column_names(path))[0]
    except BitcornError:  # told when the file is read, as its own failure
        return None
    return Partition(symbol, timeframe) if symbol and timeframe and not {"symbol", "timeframe"} & set(columns) else None


def is_database(path: Path) -> bool:
    """Tell whether a file is not one of the formats of bar files, and so is taken for a database."""
    return not path.name.lower().endswith(_BAR_FILES)


@contextmanager
def opened_source(path: Path) -> Iterator[PartitionReader]:
    """Open one file. Raises BitcornError where it cannot be read."""
    if is_database(path):
        with opened_bars(path) as reader:
            yield reader
    else:
        yield _FileReader(path)


def fingerprint(path: Path) -> str | None:
    """Say which state a file is in: equal texts, equal content; None for one that was just changed or is gone."""
    named, path = path, path.resolve()  # SQLite puts the -wal beside the file, not beside a link to it
    try:
        facts: list[list[int] | str] = [_stat(path)]
        if is_database(path):
            wal = path.with_name(path.name + "-wal")
            facts.append(_head(path)[_CHANGE_COUNTER].hex())
            facts += [_stat(wal), _head(wal)[_WAL_SALTS].hex()] if wal.exists() and wal.stat().st_size else []
    except OSError:
        return None
    newest = max(fact[1] for fact in facts if isinstance(fact, list))
    if time.time_ns() - newest < _SETTLED_NS:
        return None
    return hashlib.sha256(json.dumps([str(named), str(path), *facts]).encode()).hexdigest()[:32]


class _FileReader:
    """The partitions of a file, which is read whole, once."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, read_file(path)

    @property
    def partitions(self) -> list[Partition]:
        return sorted(partition for partition, _ in self._read)

    def read_stored(self, partition: Partition) -> tuple[Bars, Partition]:
        return self.read(partition.symbol, partition.timeframe)

    def read(self, symbol: str, timeframe: str) -> tuple[Bars, Partition]:
        for partition, bars in self._read:
            if normalise_symbol(partition.symbol) == normalise_symbol(symbol) and same_timeframe(
                partition.timeframe, timeframe
            ):
                assert bars.timestamp is not None
                return bars.take(np.argsort(bars.timestamp, kind="stable")), partition
        raise BitcornError(f"{self._path} has no bars of {symbol} {timeframe}")


def _described(path: Path) -> SourceFile:
    return SourceFile(path, path.stat().st_size)


def _stat(path: Path) -> list[int]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns]


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(32)
