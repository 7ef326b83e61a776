"""Publishing: a file is there whole, under its name, or not at all.

On a file system: under a temporary name beside it, then a rename, which is atomic within a folder. On an object store:
a single PUT (above 10 MB an upload in parts, which appears when it is completed). A reader sees the old file, none, or
the whole new one, and of two writers at once one wins. No lock is taken.
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
_ATTEMPTS = 10  # where someone clears the cache and takes the temporary file away


def publish(filesystem: fs.FileSystem, path: str, content: bytes | pa.Buffer, *, durable: bool = False) -> None:
    """Write a file at once.

    durable: it is on the disk when this returns. Without, after a power cut a file may be torn, which a checksum has to
    tell the reader; an object store keeps what it has taken anyway.
    Raises OSError where it cannot be written; nothing is left behind then.
    """
    if is_object_store(filesystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    for attempt in range(_ATTEMPTS):
        temporary = _beside(path)
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
    """Write a set of files over an older one, durably; the last file is what makes the set valid.

    The older set's last file goes first, and the new one's comes last. On a file system all are written beside their
    places before, so that a full disk leaves the older set as it was; then only names change.
    Raises OSError where they cannot be written.
    """
    last = join(folder, list(files)[-1])
    if is_object_store(filesystem):
        _remove(filesystem, last)
        for name, content in files.items():
            publish(filesystem, join(folder, name), content)
        return
    written = {_beside(join(folder, name)): join(folder, name) for name in files}
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
    """Tell whether a write appears only when it is complete, and a rename is a copy."""
    # fsspec's names are "py::fsspec+memory" and "py::fsspec+('s3', 's3a')".
    return not _OBJECT_STORES.isdisjoint(re.findall(r"\w+", filesystem.type_name))


def _beside(path: str) -> str:
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
        # Renamed before it is on the disk it could be found empty after a power cut; a full disk says so here at last.
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _remove(filesystem: fs.FileSystem, path: str) -> None:
    with suppress(FileNotFoundError):
        filesystem.delete_file(path)
