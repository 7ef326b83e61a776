"""Where bars are taken from: a SQLite database, a file of bars, or a folder or URI of such files.

A source that has not changed need not be read again. A file's fingerprint says so: its path, size, times of change
and inode, and of a database also SQLite's change counter and, as a commit in WAL mode moves neither, what its -wal file
says (size, time of change, salts); of an object its size and time of change. A file that was changed in the last
seconds has none: a clock may tick too slowly to tell the next change from this one.
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
from bitcorn_ray.market.bars import Bars, joined
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import same_timeframe
from bitcorn_ray.sources.columns import match_columns
from bitcorn_ray.sources.database import opened_bars
from bitcorn_ray.sources.files import column_names, read_file
from bitcorn_ray.sources.lake import hive_partition, is_bar_file, lake_units, names_in_path
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.storage.location import Location
from bitcorn_ray.storage.nodes import remedy_for_missing

_CHANGE_COUNTER = slice(24, 28)
_WAL_SALTS = slice(12, 24)  # checkpoint number and salts, which a restart of the log changes
_SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system in use, FAT's
_SETTLED_REMOTE_NS = 60_000_000_000  # a store's clock is not ours


@dataclass(frozen=True)
class SourceFile:
    """What can be opened on its own: a file, or a folder whose files are one partition. size: in bytes."""

    place: Location
    size: int

    @property
    def address(self) -> str:
        """The absolute path or the URI, with its secrets, to open it by."""
        return self.place.address

    @property
    def path(self) -> Path:
        """The path of a local file."""
        return self.place.path


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
    place = Location.of(source)
    file = place.info()
    if file is not None:
        return [SourceFile(file, file.size or 0)]
    if not place.is_remote and not place.path.is_dir():
        raise BitcornError(f"no database, file or folder of bars at {place}{remedy_for_missing(place.path)}")
    return [SourceFile(unit, unit.size or 0) for unit in lake_units(place)]


def shown_source(source: str | Path) -> str:
    """Return a source, or the address of a file of it, as it may be printed and stored."""
    return Location.of(source).shown


def partition_named(path: str | Path | Location, reading: Reading | None = None) -> Partition | None:
    """Partition that a file's name or its folders say, where the file has no columns that may say others."""
    place = Location.of(path)
    if is_database(place):
        return None
    if hive := hive_partition(place):
        return hive
    try:
        symbol, timeframe = names_in_path(place)
        # An object's name is believed: to look into each would cost a request.
        columns = {} if place.is_remote else match_columns(column_names(place), dict((reading or Reading()).mapping))[0]
    except BitcornError:  # told when the file is read, as its own failure
        return None
    return Partition(symbol, timeframe) if symbol and timeframe and not {"symbol", "timeframe"} & set(columns) else None


def is_database(path: str | Path | Location) -> bool:
    """Tell whether a place is not one of files of bars, and so is taken for a database."""
    place = Location.of(path)
    return not (place.is_remote or is_bar_file(place.name) or place.path.is_dir())


@contextmanager
def opened_source(path: str | Path | Location, reading: Reading | None = None) -> Iterator[PartitionReader]:
    """Open one file, or a folder whose files are one partition.

    reading: what the user says about it. Raises BitcornError where it cannot be read.
    """
    place = Location.of(path)
    if is_database(place):
        with opened_bars(place.path, reading=reading) as reader:
            yield reader
    else:
        yield _FileReader(place, reading)


def read_partition(
    source: str | Path, symbol: str, timeframe: str, limit: int | None = None, reading: Reading | None = None
) -> tuple[Bars, Partition]:
    """Read the bars of one partition of any source, ascending in time; rows of one time stay side by side, as stored.

    symbol: in any spelling. limit: only the rows of the newest so many different times. reading: what the user says
    about the source.
    Returns (bars, the partition as stored). Raises BitcornError where the source, the symbol or the timeframe is not
    there.
    """
    files = source_files(source)
    if len(files) == 1 and is_database(files[0].place):
        with opened_bars(files[0].path, symbol, reading) as reader:
            return reader.read(symbol, timeframe, limit)
    if limit is not None and limit < 1:
        raise BitcornError(f"limit is {limit}: it must be at least 1, or None for all bars")
    known = {file: partition_named(file.place, reading) for file in files}
    if named := [file for file, partition in known.items() if partition and _is(partition, symbol, timeframe)]:
        files = named
    else:
        files = [file for file, partition in known.items() if partition is None]
    for file in files:
        with opened_source(file.place, reading) as opened:
            if any(_is(partition, symbol, timeframe) for partition in opened.partitions):
                bars, partition = opened.read(symbol, timeframe)
                return _newest(bars, limit), partition
    there = ", ".join(sorted(str(partition) for partition in known.values() if partition)[:20]) or "none by name"
    raise BitcornError(f"{shown_source(source)} has no bars of {symbol} {timeframe}: it has {there}")


def fingerprint(path: str | Path | Location) -> str | None:
    """Say which state a file is in: equal texts, equal content; None for one that was just changed or is gone."""
    place = Location.of(path)
    if place.is_remote or place.path.is_dir():
        return _fingerprint_of_all(place)
    named, path = place.path, place.path.resolve()  # SQLite puts the -wal beside the file, not beside a link to it
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
    return _digest([str(named), str(path), *facts])


def _fingerprint_of_all(place: Location) -> str | None:
    """Fingerprint of an object, or of all files of a folder."""
    try:
        one = place.info()
        files = [one] if one else [file for file in place.files() if is_bar_file(file.name)]
    except BitcornError:
        return None
    times = [file.changed_ns for file in files if file.changed_ns is not None]
    if not files or len(times) < len(files):  # some file systems tell no times
        return None
    settled = _SETTLED_REMOTE_NS if place.is_remote else _SETTLED_NS
    if time.time_ns() - max(times) < settled:
        return None
    stats = [] if place.is_remote else [_stat(file.path) for file in files]
    return _digest([place.shown, [[file.shown, file.size, file.changed_ns] for file in files], stats])


def _digest(facts: list[object]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _is(partition: Partition, symbol: str, timeframe: str) -> bool:
    return normalise_symbol(partition.symbol) == normalise_symbol(symbol) and same_timeframe(
        partition.timeframe, timeframe
    )


def _newest(bars: Bars, limit: int | None) -> Bars:
    if limit is None or len(bars) <= limit:
        return bars
    assert bars.timestamp is not None
    return bars.take(bars.timestamp >= np.unique(bars.timestamp)[-limit:][0])


class _FileReader:
    """The partitions of a file, or of the files of a folder, which are read whole, once."""

    def __init__(self, place: Location, reading: Reading | None = None) -> None:
        self._place = place
        inside = [] if place.info() else [file for file in place.files() if is_bar_file(file.name)]
        self._read: dict[Partition, list[Bars]] = {}
        for file in inside or [place]:
            for partition, bars in read_file(file, *names_in_path(file), reading):
                self._read.setdefault(partition, []).append(bars)

    @property
    def partitions(self) -> list[Partition]:
        return sorted(self._read)

    def read_stored(self, partition: Partition) -> tuple[Bars, Partition]:
        return self.read(partition.symbol, partition.timeframe)

    def read(self, symbol: str, timeframe: str) -> tuple[Bars, Partition]:
        for partition, parts in self._read.items():
            if _is(partition, symbol, timeframe):
                bars = joined(parts)
                assert bars.timestamp is not None
                return bars.take(np.argsort(bars.timestamp, kind="stable")), partition
        raise BitcornError(f"{self._place} has no bars of {symbol} {timeframe}")


def _stat(path: Path) -> list[int]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns]


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(32)
