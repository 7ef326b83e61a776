"""Atomic writes: a file exists completely or not at all.

On a file system a file is written under a temporary name and renamed, which is atomic within a folder. On an object
store it is a single PUT, or above 10 MB an upload in parts that appears when it is complete. A reader sees the old file
or the complete new one. One of two concurrent writers wins. No lock is taken.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from posixpath import dirname, join

import pyarrow as pa
from pyarrow import fs

TEMPORARY = ".writing-"
_OBJECT_STORES = {"s3", "gcs", "gs", "abfs", "hf"}
_ATTEMPTS = 10  # in case another process clears the cache, and the temporary file with it


def publish(filesystem: fs.FileSystem, path: str, content: bytes | pa.Buffer, *, durable: bool = False) -> None:
    """Write a file atomically.

    durable: sync it to the disk; otherwise it may be damaged after a power cut, which a checksum has to detect. An
    object store is always durable.
    Raises OSError if it cannot be written; no other file is left behind.
    """
    if is_object_store(filesystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    for attempt in range(_ATTEMPTS):
        temporary = _temporary(path)
        try:
            _write(filesystem, temporary, content, durable)
            filesystem.move(temporary, path)
            return
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
        finally:
            _remove(filesystem, temporary)


def publish_together(filesystem: fs.FileSystem, folder: str, files: Mapping[str, bytes]) -> None:
    """Write a set of files over an older set, durably; the last file makes the set valid.

    The last file of the older set is removed first, and that of the new set is written last. On a file system all files
    are written under temporary names before that, so that a full disk leaves the older set complete.
    Raises OSError if they cannot be written.
    """
    last = join(folder, list(files)[-1])
    if is_object_store(filesystem):
        _remove(filesystem, last)
        for name, content in files.items():
            publish(filesystem, join(folder, name), content)
        return
    written = {_temporary(join(folder, name)): join(folder, name) for name in files}
    try:
        for temporary, content in zip(written, files.values(), strict=True):
            _write(filesystem, temporary, content, durable=True)
        _remove(filesystem, last)
        for temporary, path in written.items():
            filesystem.move(temporary, path)
    finally:
        for temporary in written:
            _remove(filesystem, temporary)


def is_object_store(filesystem: fs.FileSystem) -> bool:
    """Return True for an object store: a write appears when it is complete, and a rename is a copy."""
    # fsspec's names are "py::fsspec+memory" and "py::fsspec+('s3', 's3a')".
    return not _OBJECT_STORES.isdisjoint(re.findall(r"\w+", filesystem.type_name))


def _temporary(path: str) -> str:
    return join(dirname(path), f"{TEMPORARY}{uuid.uuid4().hex}")


def _write(filesystem: fs.FileSystem, path: str, content: bytes | pa.Buffer, durable: bool) -> None:
    try:
        stream = filesystem.open_output_stream(path)
    except FileNotFoundError:
        filesystem.create_dir(dirname(path), recursive=True)
        stream = filesystem.open_output_stream(path)
    with stream:
        stream.write(content)
    if durable and filesystem.type_name == "local":
        # Otherwise the renamed file could be empty after a power cut. A full disk raises here at the latest.
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _remove(filesystem: fs.FileSystem, path: str) -> None:
    with suppress(FileNotFoundError):
        filesystem.delete_file(path)
