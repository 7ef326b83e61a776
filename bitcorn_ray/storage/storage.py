"""Files in a folder of any file system that pyarrow knows: of the cache, runs, checkpoints and sweeps.

Small records are JSON with a checksum. A missing or damaged record reads as None. A log is a file of lines that is only
appended to; on an object store, where an object cannot be appended to, each line is an object below the log's name.
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
from bitcorn_ray.storage.location import Location, filesystem_of, read_whole, reason_of, shown_uri
from bitcorn_ray.storage.publish import TEMPORARY, is_object_store, publish, publish_together

_log = logging.getLogger(__name__)
_CHECKSUM = "crc32"
_MAGIC = 4  # bytes that identify the type of a file
_REMOTE_REQUESTS = 16  # concurrent ones, because they wait for the network


class StorageError(BitcornError):
    """Storage is full, lost, or does not answer; the same work may succeed later."""


@dataclass(frozen=True)
class StoredFile:
    """A file. name: relative to the root. size: in bytes. written: seconds of the epoch, now if there is no time."""

    name: str
    size: int
    written: float


class Storage:
    """A root folder, and files in it by their relative names, such as `features/<key>.parquet`.

    location: a folder or a URI such as `s3://bucket/folder`; it is created by the first write. what: its content, and
    remedy: for a failed write, in messages. Raises BitcornError for an unknown kind of URI, or one without a bucket.
    """

    def __init__(
        self, location: str | Path, what: str = "files", remedy: str = "make room, or give another place"
    ) -> None:
        self.what, self.remedy, self._location = what, remedy, Location.of(location)
        if self._location.is_remote:
            self._fs, self._root = filesystem_of(self.address, f"the {what} at {self.shown} cannot be opened")
        else:
            self._fs, self._root = fs.LocalFileSystem(use_mmap=True), self.address
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)
        if not self._root:
            raise BitcornError(f"{self.shown} cannot store the {what}: name a bucket or folder")

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.address, self.what, self.remedy)

    @property
    def address(self) -> str:
        """Return the absolute path or complete URI, which another process can open."""
        return self._location.address

    @property
    def shown(self) -> str:
        """Return the path or URI without user, password and options."""
        return self._location.shown

    @property
    def is_file(self) -> bool:
        """Return True if the root is a local file."""
        return self.is_local and os.path.isfile(self._root)

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self._location.name

    @property
    def handle(self) -> tuple[str, fs.FileSystem | None]:
        """Return the path and the file system for a library that writes itself; None for the local file system."""
        return self._root, None if self.is_local else self._fs

    def child(self, name: str, what: str | None = None) -> Storage:
        """Return the storage of a subfolder."""
        return Storage(self._location.child(name).address, what or self.what, self.remedy)

    def read(self, name: str) -> pa.Buffer:
        """Return the content of a file, as a memory map of a local one. Raises OSError if there is none."""
        return read_whole(self._fs, self._path(name))

    def has(self, name: str) -> bool:
        """Return True if a file exists."""
        return bool(self.existing([name]))

    def publish(self, name: str, content: bytes | pa.Buffer, *, durable: bool = False) -> None:
        """Write a file atomically, see `publish.publish`. Raises StorageError if it cannot be written."""
        with self._writing():
            publish(self._fs, self._path(name), content, durable=durable)

    def publish_together(self, files: Mapping[str, bytes]) -> None:
        """Replace a set of files, see `publish.publish_together`. Raises StorageError if they cannot be written."""
        with self._writing():
            publish_together(self._fs, self._root, files)

    def publish_json(self, name: str, value: dict[str, Any], indent: int | None = None) -> None:
        """Write a record with its checksum. indent: for people; it takes ten times as long."""
        content = {**value, _CHECKSUM: _checksum(name, value)}
        self.publish(name, json.dumps(content, indent=indent, allow_nan=False).encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return a record, or None if it is missing or damaged."""
        try:
            value = json.loads(bytes(self.read(name)))
        except (OSError, ValueError, RecursionError):  # pyarrow's errors are among these
            return None
        if not isinstance(value, dict) or value.pop(_CHECKSUM, None) != _checksum(name, value):
            return None
        return value

    def read_jsons(self, names: Iterable[str]) -> list[dict[str, Any] | None]:
        """Return several records; those of a remote storage are requested concurrently."""
        return self.side_by_side(self.read_json, list(names))

    def side_by_side(self, work: Any, items: list[Any], local_threads: int = 1) -> list[Any]:
        """Map a function over items in order, in threads if they help."""
        # A file system in Python may have a single connection, such as fsspec's SFTP, which threads cannot share.
        remote = 1 if self._fs.type_name.startswith("py::") else _REMOTE_REQUESTS
        threads = min(len(items), local_threads if self.is_local else remote)
        if threads <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))

    def files(self, folder: str = "") -> Iterator[StoredFile]:
        """Yield every file in a folder and its subfolders, or nothing if it does not exist."""
        selector = fs.FileSelector(self._path(folder), recursive=True, allow_not_found=True)
        with self._reading():
            infos = self._fs.get_file_info(selector)
        for info in infos:
            if info.type == fs.FileType.File:
                yield StoredFile(info.path[len(self._root) + 1 :], info.size, _written(info))

    def existing(self, names: Iterable[str]) -> dict[str, StoredFile]:
        """Return the existing files of some names, by name."""
        names = list(names)
        with self._reading():
            infos = self._fs.get_file_info([self._path(name) for name in names])
        return {
            name: StoredFile(name, info.size, _written(info))
            for name, info in zip(names, infos, strict=True)
            if info.type == fs.FileType.File
        }

    def names(self) -> list[str]:
        """Return the sorted names of the files and folders in the root, or nothing if it does not exist."""
        selector = fs.FileSelector(self._root, allow_not_found=True)
        with self._reading(), suppress(NotADirectoryError):
            return sorted(info.base_name for info in self._fs.get_file_info(selector))
        return []

    def add_line(self, log: str, line: str) -> None:
        """Append a line to a log. Raises StorageError if it cannot be written."""
        with self._writing():
            if is_object_store(self._fs):
                name = f"{log}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
                return publish(self._fs, self._path(name), line.encode())
            path = self._path(log)
            self._fs.create_dir(dirname(path), recursive=True)
            with self._fs.open_append_stream(path) as file:
                file.write(f"{chr(10) * self._is_torn(path)}{line}{chr(10)}".encode())

    def add_mark(self, name: str) -> None:
        """Make a file one byte longer: its size is the number of marks, its time that of the last one.

        On an object store concurrent marks may count as one. Raises StorageError if it cannot be written; on a full
        disk the time is set all the same.
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
        """Return the lines of a log in their order, or nothing if it does not exist."""
        if is_object_store(self._fs):
            names = sorted(file.name for file in self.files(log))
            with self._reading():
                return [bytes(content).decode() for content in self.side_by_side(self.read, names)]
        try:
            return bytes(self.read(log)).decode(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def require_writable(self) -> None:
        """Raise BitcornError if files cannot be written, before long work. A folder is not created yet."""
        if self.is_local:
            folder = Path(self._root)
            existing = next(path for path in (folder, *folder.parents) if path.exists())
            if not (existing.is_dir() and os.access(existing, os.W_OK)):
                raise BitcornError(
                    f"the {self.what} at {self.shown} cannot be written: {existing} is not a writable folder; "
                    f"{self.remedy}"
                )
        else:
            self.publish(f"{TEMPORARY}probe", b"")
            self.delete([f"{TEMPORARY}probe"])

    def remove_folder(self, name: str) -> None:
        """Remove a subfolder with its content; log a warning if it cannot be removed."""
        try:
            self._fs.delete_dir(self._path(name))
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException) as error:
            _log.warning("%s in %s cannot be removed: %s", name, self.shown, reason_of(error, self.address))

    def remove_empty(self) -> None:
        """Remove the root folder if it is empty; an object store has no empty folders."""
        if self.is_local:
            with suppress(OSError):
                os.rmdir(self._root)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are ignored. Raises StorageError if one cannot be removed."""

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):
                self._fs.delete_file(self._path(name))

        with self._writing():
            self.side_by_side(remove, list(names))

    def _path(self, name: str) -> str:
        return join(self._root, name) if name else self._root

    def _is_torn(self, path: str) -> bool:
        """Return True if the last line of a file has no end, because its writer died."""
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


def publish_file(location: str | Path, what: str, content: str | bytes | pa.Buffer) -> None:
    """Write one file atomically at a path or URI, over an older file of the same type. what: its name in messages.

    Raises BitcornError if it cannot be written, or if a file of another type exists there, such as a database.
    """
    address = Location.of(location).address
    failing = f"the {what} cannot be written to {shown_uri(address)}"
    filesystem, path = filesystem_of(address, failing)
    data = content.encode() if isinstance(content, str) else content
    try:
        if not _begins_with(filesystem, path, bytes(data[:_MAGIC])):
            raise BitcornError(f"{failing}: a file of another type exists there; give another name, or remove it")
        publish(filesystem, path, data)
    except (OSError, pa.ArrowException) as error:
        raise BitcornError(f"{failing}: {reason_of(error, address)}") from error


def _begins_with(filesystem: fs.FileSystem, path: str, content: bytes) -> bool:
    """Return True if a file does not exist, is empty, or begins with some bytes."""
    info = filesystem.get_file_info(path)
    if info.type != fs.FileType.File or not info.size:
        return True
    with filesystem.open_input_stream(path) as file:
        return bool(file.read(len(content)) == content)


def _written(info: fs.FileInfo) -> float:
    return (time.time_ns() if info.mtime_ns is None else info.mtime_ns) / 1e9


def _checksum(name: str, value: dict[str, Any]) -> int:
    # With the name, so that the file of another record is not valid.
    return zlib.crc32(json.dumps([name, value], sort_keys=True).encode())
