"""A folder, or a place on any file system that pyarrow knows, by one set of calls: cache, runs, checkpoints, sweeps.

Small records are JSON with a checksum of their own, so that a flipped byte is noticed. What is missing, torn or flipped
reads as None. A log, lines that are only ever added, is a file; on an object store, where nothing can be added to a
file, each line is an object of its own below the log's name.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, join
from typing import Any

import pyarrow as pa
from pyarrow import fs

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.location import Location, filesystem_of, read_whole, reason_of
from bitcorn_ray.storage.publish import TEMPORARY, is_object_store, publish, publish_together

_log = logging.getLogger(__name__)
_CHECKSUM = "crc32"
_MAGIC = 4  # bytes that tell kinds of files apart
_REMOTE_REQUESTS = 16  # at once: each waits for the network, not for a processor


class StorageError(BitcornError):
    """Storage is full, gone, or does not answer: what was to be done is not at fault, and may go well another time."""


@dataclass(frozen=True)
class StoredFile:
    """A file: name below the storage's root, size in bytes, time of writing in seconds of the epoch.

    Where the file system tells no time it is now, so that nothing passes for old.
    """

    name: str
    size: int
    written: float


class Storage:
    """A root, and files by their names below it, `features/<key>.parquet`."""

    def __init__(
        self, location: str | Path, what: str = "files", remedy: str = "make room, or give another place"
    ) -> None:
        """Open a folder or a URI such as `s3://bucket/folder`; nothing is created before something is written.

        what: it holds, and remedy: what to do where it cannot be written, for messages.
        Raises BitcornError for a URI that pyarrow does not understand or that names no bucket.
        """
        self.what, self.remedy, self._place = what, remedy, Location.of(location)
        if self._place.is_remote:
            self._fs, self._root = filesystem_of(self.address, f"the {what} at {self.shown} cannot be opened")
        else:
            self._fs, self._root = fs.LocalFileSystem(use_mmap=True), self.address
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)
        if not self._root:
            raise BitcornError(f"{self.shown} is no place for the {what}: name a bucket or folder")

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.address, self.what, self.remedy)

    @property
    def address(self) -> str:
        """The place as another process finds it, in whatever folder it runs: an absolute path, or the whole URI."""
        return self._place.address

    @property
    def shown(self) -> str:
        """The place as it may be shown: without user, password and options."""
        return self._place.shown

    @property
    def is_file(self) -> bool:
        """Whether a local file lies at the place, so that nothing can lie below it."""
        return self.is_local and os.path.isfile(self._root)

    @property
    def name(self) -> str:
        """Last part of the place's path."""
        return self._place.name

    @property
    def handle(self) -> tuple[str, fs.FileSystem | None]:
        """Path and file system for a library that writes there itself; None for the local one."""
        return self._root, None if self.is_local else self._fs

    def child(self, name: str, what: str | None = None) -> Storage:
        """Return a place below this one."""
        return Storage(self._place.child(name).address, what or self.what, self.remedy)

    def read(self, name: str) -> pa.Buffer:
        """Content of a file: a memory map of a local one. Raises OSError where there is none."""
        return read_whole(self._fs, self._path(name))

    def has(self, name: str) -> bool:
        """Tell whether there is a file."""
        return bool(self.existing([name]))

    def publish(self, name: str, content: bytes | pa.Buffer, *, durable: bool = False) -> None:
        """Write a file at once. durable: it outlives a power cut. Raises BitcornError where that cannot be done."""
        with self._writing():
            publish(self._fs, self._path(name), content, durable=durable)

    def publish_together(self, files: Mapping[str, bytes]) -> None:
        """Write a set of files over an older one; the last file is what makes it valid, see `publish_together`.

        Raises BitcornError where that cannot be done.
        """
        with self._writing():
            publish_together(self._fs, self._root, files)

    def publish_json(self, name: str, value: dict[str, Any], indent: int | None = None) -> None:
        """Write a record, with its checksum; indented where people look at it, which takes ten times as long."""
        content = {**value, _CHECKSUM: _checksum(name, value)}
        self.publish(name, json.dumps(content, indent=indent, allow_nan=False).encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return a record, or None where it is missing or damaged."""
        try:
            value = json.loads(bytes(self.read(name)))
        except (OSError, ValueError, RecursionError):  # pyarrow's errors are among these
            return None
        if not isinstance(value, dict) or value.pop(_CHECKSUM, None) != _checksum(name, value):
            return None
        return value

    def read_jsons(self, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Return several records, requested side by side where they are far away."""
        return self.side_by_side(self.read_json, list(names))

    def side_by_side(self, work: Any, items: list[Any], local_threads: int = 1) -> list[Any]:
        """Map a function over items in order, in threads where these help."""
        # Behind a file system in Python may be a single connection, as fsspec's SFTP has, which threads would tangle.
        remote = 1 if self._fs.type_name.startswith("py::") else _REMOTE_REQUESTS
        threads = min(len(items), local_threads if self.is_local else remote)
        if threads <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))

    def files(self, folder: str = "") -> Iterator[StoredFile]:
        """Yield every file below a folder; nothing where there is no such folder."""
        selector = fs.FileSelector(self._path(folder), recursive=True, allow_not_found=True)
        with self._reading():
            infos = self._fs.get_file_info(selector)
        for info in infos:
            if info.type == fs.FileType.File:
                yield StoredFile(info.path[len(self._root) + 1 :], info.size, _written(info))

    def existing(self, names: Iterable[str]) -> dict[str, StoredFile]:
        """Return those of some files that exist, by name."""
        names = list(names)
        with self._reading():
            infos = self._fs.get_file_info([self._path(name) for name in names])
        return {
            name: StoredFile(name, info.size, _written(info))
            for name, info in zip(names, infos, strict=True)
            if info.type == fs.FileType.File
        }

    def names(self) -> list[str]:
        """Names of the files and folders at the root, sorted; none where there is no such place."""
        selector = fs.FileSelector(self._root, allow_not_found=True)
        with self._reading(), suppress(NotADirectoryError):
            return sorted(info.base_name for info in self._fs.get_file_info(selector))
        return []

    def add_line(self, log: str, line: str) -> None:
        """Add a line to a log. Raises BitcornError where that cannot be done."""
        with self._writing():
            if is_object_store(self._fs):
                # By their names in order, whoever writes them.
                name = f"{log}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
                return publish(self._fs, self._path(name), line.encode())
            path = self._path(log)
            self._fs.create_dir(dirname(path), recursive=True)
            with self._fs.open_append_stream(path) as file:
                file.write(f"{chr(10) * self._is_torn(path)}{line}{chr(10)}".encode())

    def add_mark(self, name: str) -> None:
        """Make a file one byte longer: its size counts, and its time is that of the last mark.

        On an object store marks that several make at once may count as one. Raises BitcornError where it cannot be
        done; on a full disk the time is that of the last try.
        """
        path = self._path(name)
        with self._writing():
            if is_object_store(self._fs):
                return publish(self._fs, path, bytes((self._fs.get_file_info(path).size or 0) + 1))
            self._fs.create_dir(dirname(path), recursive=True)
            with self._fs.open_append_stream(path) as file:
                if self.is_local:
                    os.utime(path)
                file.write(bytes(1))

    def lines(self, log: str) -> list[str]:
        """Lines of a log in the order in which they were added; none where there is no log."""
        if is_object_store(self._fs):
            names = sorted(file.name for file in self.files(log))
            with self._reading():
                return [bytes(content).decode() for content in self.side_by_side(self.read, names)]
        try:
            return bytes(self.read(log)).decode(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def require_writable(self) -> None:
        """Raise BitcornError where nothing could be written; asked before what takes long. A folder is not made yet."""
        if self.is_local:
            folder = Path(self._root)
            existing = next(path for path in (folder, *folder.parents) if path.exists())
            if not (existing.is_dir() and os.access(existing, os.W_OK)):
                raise BitcornError(
                    f"the {self.what} at {self.shown} cannot be written: {existing} is no folder that may be written; "
                    f"{self.remedy}"
                )
        else:
            self.publish(f"{TEMPORARY}probe", b"")
            self.delete([f"{TEMPORARY}probe"])

    def remove_folder(self, name: str) -> None:
        """Remove a folder that is no longer needed, with all that is in it; what cannot be removed stays."""
        try:
            self._fs.delete_dir(self._path(name))
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException) as error:
            _log.warning("%s in %s cannot be removed: %s", name, self.shown, reason_of(error, self.address))

    def remove_empty(self) -> None:
        """Remove the folder itself where nothing is in it; an object store has no empty folders."""
        if self.is_local:
            with suppress(OSError):
                os.rmdir(self._root)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone already is no error."""

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):
                self._fs.delete_file(self._path(name))

        with self._writing():
            self.side_by_side(remove, list(names))

    def _path(self, name: str) -> str:
        return join(self._root, name) if name else self._root

    def _is_torn(self, path: str) -> bool:
        """Tell whether the last line of a file has no end, as its writer died."""
        with self._fs.open_input_file(path) as file:
            return bool(file.size()) and file.read_at(1, file.size() - 1) != b"\n"

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise StorageError(
                f"the {self.what} at {self.shown} cannot be read: {reason_of(error, self.address)}"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise StorageError(
                f"the {self.what} at {self.shown} cannot be written: {reason_of(error, self.address)}; {self.remedy}"
            ) from error


def publish_file(place: str | Path, what: str, content: str | bytes | pa.Buffer) -> None:
    """Write one file, at a path or URI, over an older one of its kind. what: it is, for messages.

    Raises BitcornError where it cannot be written, and over a file that begins otherwise, such as a database; an older
    file is then still there.
    """
    at = Location.of(place)
    failing = f"the {what} cannot be written to {at}"
    filesystem, path = filesystem_of(at.address, failing)
    held = content.encode() if isinstance(content, str) else content
    try:
        if not _begins_as(filesystem, path, bytes(held[:_MAGIC])):
            raise BitcornError(f"{failing}: a file of another kind is there; give another name, or remove it")
        publish(filesystem, path, held)
    except (OSError, pa.ArrowException) as error:
        raise BitcornError(f"{failing}: {reason_of(error, at.address)}") from error


def _begins_as(filesystem: fs.FileSystem, path: str, content: bytes) -> bool:
    """Tell whether a file is not there, is empty, or begins with some bytes."""
    info = filesystem.get_file_info(path)
    if info.type != fs.FileType.File or not info.size:
        return True
    with filesystem.open_input_stream(path) as file:
        return bool(file.read(len(content)) == content)


def _written(info: fs.FileInfo) -> float:
    return (time.time_ns() if info.mtime_ns is None else info.mtime_ns) / 1e9


def _checksum(name: str, value: dict[str, Any]) -> int:
    # With the name: another record's file under it is no record.
    return zlib.crc32(json.dumps([name, value], sort_keys=True).encode())
