"""Where bars come from: a SQLite database, a file of bars, or a folder or URI of such files.

`open_source` decides once which of them a path is. A `Source` lists its files; a `SourceFile` is what can be read on
its own: a database, a file, or a folder of files that are one partition.

An unchanged file need not be read again, which its fingerprint tells: path, size, times of change and inode. That of a
database also has SQLite's change counter and, since a commit in WAL mode changes neither, the state of its -wal file
(size, time of change, salts). That of an object has its size and time of change. A file that changed in the last
seconds has no fingerprint: a clock may be too coarse to tell the next change from this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition, identity_of, is_requested, select_partitions
from bitcorn_ray.sources.columns import match_columns
from bitcorn_ray.sources.files import FilesReader, column_names
from bitcorn_ray.sources.folders import files_at, files_in_folder, hive_partition, is_bar_file, names_in_path
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.reader import PartitionReader, StoredRows
from bitcorn_ray.sources.sqlite.database import opened_database
from bitcorn_ray.storage.location import Location, remedy_for_missing

_SQLITE, _DATABASE_ENDINGS = b"SQLite format 3\0", {".db", ".db3", ".sqlite", ".sqlite3"}
_CHANGE_COUNTER = slice(24, 28)
_WAL_SALTS = slice(12, 24)  # checkpoint number and salts, which a restart of the log changes
_SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system in use, FAT's
_SETTLED_REMOTE_NS = 60_000_000_000  # a store's clock is not ours
_BYTES_PER_BAR = 40

_NEXT = "\n"  # between the addresses of several files

OpenedFile = AbstractContextManager[PartitionReader]


@dataclass(frozen=True)
class SourceFile(ABC):
    """What can be read on its own.

    location: its absolute path or URI; of several files that are one partition, the first. size: of all, in bytes.
    parts: the other files.
    """

    location: Location
    size: int
    parts: tuple[Location, ...] = ()

    @classmethod
    def at(cls, path: str | Path | Location, size: int = 0) -> SourceFile:
        """Return the file at a path or URI, or at an `address`, which must exist."""
        first, *parts = [Location.of(line) for line in str(path).split(_NEXT)] if isinstance(path, str) else [path]
        location = Location.of(first)
        is_database = not (location.is_remote or location.path.is_dir()) and _is_database(location.path)
        return (DatabaseFile if is_database else BarFiles)(location, size, tuple(map(Location.of, parts)))

    @property
    def address(self) -> str:
        """The absolute path or the URI with its secrets, to open it by; a line for each of several files."""
        return _NEXT.join(part.address for part in (self.location, *self.parts))

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return shown_source(self.address)

    is_indexed: ClassVar[bool]
    """Whether its partitions can be listed, and their newest bars read, without reading all of it."""

    @abstractmethod
    def opened(self, options: SourceOptions | None = None, symbol: str | None = None) -> OpenedFile:
        """Open the file for the time of a block.

        symbol: of the bars if nothing else says one. Raises BitcornError if it cannot be read.
        """

    @abstractmethod
    def partition_in_name(self, options: SourceOptions | None = None) -> Partition | None:
        """Return the one partition that its name or folders say; None if its columns may say others."""

    @abstractmethod
    def fingerprint(self) -> str | None:
        """Return a text that is equal as long as the content is; None if it has just changed or is gone."""

    def bar_count(self) -> int:
        """Return about how many bars it has, by its size."""
        return self.size // _BYTES_PER_BAR


class DatabaseFile(SourceFile):
    """A SQLite database."""

    is_indexed = True

    def opened(self, options: SourceOptions | None = None, symbol: str | None = None) -> OpenedFile:
        """Open the database."""
        return opened_database(self.location.path, symbol or (options.default_symbol if options else None), options)

    def partition_in_name(self, options: SourceOptions | None = None) -> None:
        """Return None: tables say the partitions."""

    def fingerprint(self) -> str | None:
        """Return the state of the database and of its -wal file."""
        named = self.location.path
        path = named.resolve()  # SQLite puts the -wal beside the file, not beside a link to it
        wal = path.with_name(path.name + "-wal")
        try:
            stats, heads = [_stat(path)], [_head(path)[_CHANGE_COUNTER].hex()]
            if wal.exists() and wal.stat().st_size:
                stats.append(_stat(wal))
                heads.append(_head(wal)[_WAL_SALTS].hex())
        except OSError:
            return None
        if time.time_ns() - max(stat[1] for stat in stats) < _SETTLED_NS:
            return None
        return _digest([str(named), str(path), stats, heads])


class BarFiles(SourceFile):
    """A file, several files that are one partition, or a folder of such files."""

    is_indexed = False

    def opened(self, options: SourceOptions | None = None, symbol: str | None = None) -> OpenedFile:
        """Open the files, which are read whole, once."""
        default = symbol or (options.default_symbol if options else None)
        return nullcontext(FilesReader([self.location, *self.parts], default, options))

    def partition_in_name(self, options: SourceOptions | None = None) -> Partition | None:
        """Return the partition that folders or name say, unless columns may say others."""
        if hive := hive_partition(self.location):
            return hive
        try:
            symbol, timeframe = names_in_path(self.location)
            if not (symbol and timeframe):
                return None
            # An object's name is believed: looking into each would cost a request.
            names = [] if self.location.is_remote else column_names(self.location)
            columns, _ = match_columns(names, dict((options or SourceOptions()).mapping)) if names else ({}, [])
        except BitcornError:  # reading the file reports it
            return None
        return None if {"symbol", "timeframe"} & set(columns) else Partition(symbol, timeframe)

    def fingerprint(self) -> str | None:
        """Return the state of the file or object, or of all files of the folder."""
        try:
            files = [file for part in (self.location, *self.parts) for file in files_at(part)]
            stats = [] if self.location.is_remote else [_stat(file.path) for file in files]
        except (BitcornError, OSError):
            return None
        times = [file.changed_ns for file in files if file.changed_ns is not None]
        if not files or len(times) < len(files):  # some file systems know no times
            return None
        settled = _SETTLED_REMOTE_NS if self.location.is_remote else _SETTLED_NS
        if time.time_ns() - max(times) < settled:
            return None
        return _digest([self.location.shown, [[file.shown, file.size, file.changed_ns] for file in files], stats])


@dataclass(frozen=True)
class Source:
    """A database, a file of bars, or a folder or URI of such files, and how to read it; see `open_source`."""

    location: Location
    files: tuple[SourceFile, ...]
    options: SourceOptions

    @property
    def shown(self) -> str:
        """The path or URI as it may be printed and stored, without secrets."""
        return self.location.shown

    @property
    def database(self) -> DatabaseFile | None:
        """The file if the source is a database."""
        first = self.files[0]
        return first if isinstance(first, DatabaseFile) and len(self.files) == 1 else None

    def partitions(self) -> list[Partition]:
        """Return every symbol x timeframe, by the files' names where these say it, else by opening the files."""
        return [partition for _, partition in self.partitions_of_files()]

    def partitions_of_files(self) -> list[tuple[SourceFile, Partition]]:
        """Return every file with each of its partitions. Raises BitcornError if two files hold one partition."""
        found = list[tuple[SourceFile, Partition]]()
        for file in self.files:
            if (named := file.partition_in_name(self.options)) is not None:
                found.append((file, named))
            else:
                with file.opened(self.options) as reader:
                    found += [(file, partition) for partition in reader.partitions]
        require_one_file((partition, file.shown) for file, partition in found)
        return found

    def read(self, symbol: str, timeframe: str, limit: int | None = None) -> tuple[Bars, Partition]:
        """Read the bars of one partition, ascending in time; rows of one time stay side by side, as stored.

        symbol: in any spelling. limit: only the rows of the newest so many different times.
        Returns (bars, the partition as stored). Raises BitcornError if the symbol or the timeframe does not exist.
        """
        if limit is not None and limit < 1:
            raise BitcornError(f"limit is {limit}: it must be at least 1, or None for all bars")
        if self.database is not None:
            with self.database.opened(self.options, symbol) as reader:
                return reader.read(symbol, timeframe, limit)
        named = {file: file.partition_in_name(self.options) for file in self.files}
        matching = [f for f, partition in named.items() if partition and is_requested(partition, [symbol], [timeframe])]
        found = list[tuple[Partition, str, PartitionReader]]()
        for file in matching or [file for file, partition in named.items() if partition is None]:
            with file.opened(self.options, symbol if len(self.files) == 1 else None) as reader:
                wanted = [one for one in reader.partitions if is_requested(one, [symbol], [timeframe])]
                found += [(one, file.shown, reader) for one in wanted]
        require_one_file((partition, shown) for partition, shown, _ in found)
        if found:
            return found[0][2].read(symbol, timeframe, limit)
        names = ", ".join(sorted(str(partition) for partition in named.values() if partition)[:20]) or "none by name"
        raise BitcornError(f"{self.shown} has no bars of {symbol} {timeframe}: it has {names}")

    def stored_rows(
        self, symbols: Sequence[str] | None = None, timeframes: Sequence[str] | None = None
    ) -> Iterator[StoredRows]:
        """Yield the rows of every partition as they are stored, for diagnosis.

        symbols, timeframes: only these, in any spelling; a single symbol is that of the bars if nothing else says one.
        Raises BitcornError if the source cannot be read, for a symbol or timeframe that it does not have, and for rows
        of one time that a further column tells apart.
        """
        exist, held = list[Partition](), list[tuple[Partition, str]]()

        def requested(partition: Partition) -> bool:
            exist.append(partition)
            return is_requested(partition, symbols, timeframes)

        default_symbol = symbols[0] if symbols and len(symbols) == 1 else None
        for file in self.files:
            named = file.partition_in_name(self.options)
            if named is None or requested(named):
                with file.opened(self.options, default_symbol) as reader:
                    for rows in reader.stored_rows(requested):
                        held.append((rows.partition, file.shown))
                        require_one_file(held)
                        yield rows
        select_partitions(exist, symbols, timeframes)  # names what does not exist


def _is_database(path: Path) -> bool:
    """Return True for a SQLite database: by its first bytes, or by its name if it is empty or damaged."""
    try:
        head = _head(path)
    except OSError:
        return not is_bar_file(path.name)
    if head.startswith(_SQLITE):
        return True
    return not is_bar_file(path.name) and (not head or path.suffix.lower() in _DATABASE_ENDINGS)


def open_source(path: str | Path | Location, options: SourceOptions | None = None) -> Source:
    """Return the source at a path or URI. options: for reading the source.

    Raises BitcornError if nothing is there, or no file of bars.
    """
    location = Location.of(path)
    single = location.info()
    if single is None and not location.is_remote and not location.path.is_dir():
        raise BitcornError(f"no database, file or folder of bars at {location}{remedy_for_missing(location.path)}")
    units = [[single]] if single is not None else files_in_folder(location)
    files = tuple(
        SourceFile.at(_NEXT.join(file.address for file in unit), sum(file.size or 0 for file in unit)) for unit in units
    )
    return Source(location, files, options or SourceOptions())


def open_file(address: str, options: SourceOptions | None = None) -> OpenedFile:
    """Open a file of a source by its address for the time of a block. Raises BitcornError if it cannot be read."""
    return SourceFile.at(address).opened(options)


def shown_source(source: str | Path) -> str:
    """Return a source, or the address of one of its files, as it may be printed and stored."""
    first, *others = str(source).split(_NEXT)
    more = f" and {len(others):,} more file{'s' if len(others) > 1 else ''}" if others else ""
    return f"{Location.of(first).shown}{more}"


def require_one_file(found: Iterable[tuple[Partition, str]]) -> None:
    """Raise BitcornError if two files hold one partition. found: each with the file that holds it, as shown."""
    files: dict[tuple[str, object], str] = {}
    for partition, shown in found:
        other = files.setdefault(identity_of(partition), shown)
        if other != shown:
            raise BitcornError(
                f"{partition} is in {other} and in {shown}, which may be two markets: keep one of them, or name the "
                "folders of each market exchange=NAME"
            )


def _digest(facts: list[object]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _stat(path: Path) -> list[int]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns]


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(32)
