"""Where the cache lies: a folder, or a place on any file system that pyarrow knows, by one set of calls.

Small records are JSON with a checksum of their own, so that a flipped byte is noticed. What is missing, torn or flipped
reads as None.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from posixpath import join
from typing import Any

import pyarrow as pa
from pyarrow import fs

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.location import filesystem_of, shown_uri
from bitcorn_ray.market.publish import publish

__all__ = ["Storage", "StoredFile"]

_CHECKSUM = "crc32"
_REMOTE_REQUESTS = 16  # at once: each waits for the network, not for a processor


@dataclass(frozen=True)
class StoredFile:
    """A file: name below the storage's root, size in bytes, time of writing in seconds of the epoch."""

    name: str
    size: int
    written: float


class Storage:
    """A root, and files by their names below it, `features/<key>.parquet`."""

    def __init__(self, location: str | Path) -> None:
        """Open a folder or a URI such as `s3://bucket/folder`; nothing is created before something is written.

        Raises BitcornError for a URI that pyarrow does not understand or that names no bucket, and for a file.
        """
        self.location = str(location)
        if "://" in self.location:
            self._fs, self._root = filesystem_of(self.location, f"the cache at {self.shown} cannot be opened")
        else:
            self._fs, self._root = fs.LocalFileSystem(use_mmap=True), str(Path(location).expanduser().absolute())
        self.is_local = isinstance(self._fs, fs.LocalFileSystem)
        if not self._root:
            raise BitcornError(f"the cache at {self.shown} has no place: name a bucket or folder")
        if self.is_local and os.path.isfile(self._root):
            raise BitcornError(f"the cache at {self.shown} is a file: give a folder")

    @property
    def address(self) -> str:
        """The location as another process finds it, in whatever folder it runs."""
        return self.location if "://" in self.location else self._root

    @property
    def shown(self) -> str:
        """The location as it may be shown: without user, password and options."""
        return shown_uri(self.location)

    def read(self, name: str) -> pa.Buffer:
        """Content of a file: a memory map of a local one. Raises OSError where there is none."""
        with self._fs.open_input_file(self._path(name)) as file:
            return file.read_buffer()

    def publish(self, name: str, content: bytes | pa.Buffer) -> None:
        """Write a file at once. Raises BitcornError where that cannot be done."""
        with self._writing():
            publish(self._fs, self._path(name), content)

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
        threads = min(len(items), local_threads if self.is_local else _REMOTE_REQUESTS)
        if threads <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))

    def list(self, folder: str = "") -> Iterator[StoredFile]:
        """Yield every file below a folder; nothing where there is no such folder."""
        selector = fs.FileSelector(self._path(folder), recursive=True, allow_not_found=True)
        try:
            infos = self._fs.get_file_info(selector)
        except (pa.ArrowException, OSError) as error:
            raise BitcornError(f"the cache at {self.shown} cannot be listed: {error}") from error
        for info in infos:
            if info.type == fs.FileType.File:
                yield StoredFile(info.path[len(self._root) + 1 :], info.size, (info.mtime_ns or 0) / 1e9)

    def existing(self, names: Iterable[str]) -> dict[str, StoredFile]:
        """Return those of some files that exist, by name."""
        names = list(names)
        try:
            infos = self._fs.get_file_info([self._path(name) for name in names])
        except (pa.ArrowException, OSError) as error:
            raise BitcornError(f"the cache at {self.shown} cannot be read: {error}") from error
        return {
            name: StoredFile(name, info.size, (info.mtime_ns or 0) / 1e9)
            for name, info in zip(names, infos, strict=True)
            if info.type == fs.FileType.File
        }

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone already is no error."""

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):
                self._fs.delete_file(self._path(name))

        with self._writing():
            self.side_by_side(remove, list(names))

    def _path(self, name: str) -> str:
        return join(self._root, name) if name else self._root

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            what = "cache" if not self.is_local else "cache folder"
            raise BitcornError(
                f"the {what} {self.shown} cannot be written: {error}; give another one or turn the cache off"
            ) from error


def _checksum(name: str, value: dict[str, Any]) -> int:
    # With the name: another record's file under it is no record.
    return zlib.crc32(json.dumps([name, value], sort_keys=True).encode())
