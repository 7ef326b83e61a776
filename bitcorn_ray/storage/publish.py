"""Publishing: a file is there whole, under its name, or not at all."""

from __future__ import annotations

import uuid
from contextlib import suppress
from posixpath import dirname, join

import pyarrow as pa
from pyarrow import fs

__all__ = ["TEMPORARY", "is_object_store", "publish"]

TEMPORARY = ".writing-"
_ATTEMPTS = 10  # where someone clears the cache and takes the temporary file away


def publish(filesystem: fs.FileSystem, path: str, content: bytes | pa.Buffer) -> None:
    """Write a file at once.

    On a file system: under a temporary name beside it, then a rename, which is atomic within a folder. On an object
    store: a single PUT (above 10 MB an upload in parts, which appears when it is completed). A reader sees the old
    file, none, or the whole new one, and of two writers at once one wins. No lock is taken, and no fsync: after a power
    cut a file may be torn, which its checksum tells the reader.
    Raises OSError where it cannot be written; nothing is left behind then.
    """
    if is_object_store(filesystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    for attempt in range(_ATTEMPTS):
        try:
            return _write_beside(filesystem, path, content)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise


def _write_beside(filesystem: fs.FileSystem, path: str, content: bytes | pa.Buffer) -> None:
    temporary = join(dirname(path), f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        try:
            stream = filesystem.open_output_stream(temporary)
        except FileNotFoundError:
            filesystem.create_dir(dirname(path), recursive=True)
            stream = filesystem.open_output_stream(temporary)
        with stream:
            stream.write(content)
        filesystem.move(temporary, path)
    except BaseException:
        with suppress(OSError):  # it may not exist yet, or no longer
            filesystem.delete_file(temporary)
        raise


def is_object_store(filesystem: fs.FileSystem) -> bool:
    """Tell whether a write appears only when it is complete, and a rename is a copy."""
    return filesystem.type_name in ("s3", "gcs", "gs", "abfs") or filesystem.type_name.startswith("py::fsspec")
