"""Files of bars in any format, opened as column names and batches of Arrow rows.

1. The first bytes say how a file is compressed (gzip, zip) and whether it is Parquet or Feather. The name says other
   formats, and the first character tells JSON from CSV if the name does not: a file of text may have any ending. The
   files of a zip archive are parts of one, in the order of their names.
2. Rows without column names get those of their layout (see `rows`).
3. Rows come in batches of some megabytes, so that a file may be larger than the memory.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from posixpath import splitext
from typing import Any

import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.formats.csv import HEAD_BYTES, opened_csv
from bitcorn_ray.sources.formats.json import opened_json
from bitcorn_ray.sources.formats.rows import RawRows
from bitcorn_ray.storage.location import Location

_OTHER_ENDINGS = (".xlsx", ".xls", ".ods", ".h5", ".hdf5", ".pkl", ".npy", ".npz", ".avro", ".orc", ".pdf", ".html")
_SMALL_BYTES = 8_000_000
_BATCH_ROWS = 262_144


@contextmanager
def opened_rows(location: Location) -> Iterator[RawRows]:
    """Open a file of bars. Raises BitcornError if it cannot be read, on opening or while rows are read."""
    name, where = location.name.lower(), location.shown
    try:
        with location.opened() as file:
            magic = bytes(file.read(8))
            file.seek(0)
            kind = next((ending for start, ending in _MAGIC.items() if magic.startswith(start)), splitext(name)[1])
            if kind in _BINARIES:
                yield _BINARIES[kind](file)
            elif magic[:4] == b"PK\x03\x04" or where.lower().endswith(".zip"):
                with zipfile.ZipFile(file) as archive:
                    yield _archived(archive, where)
            else:
                with _unpacked(file, magic, where) as text:
                    yield _text(text, name, where)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise BitcornError(f"{where} cannot be read: {error}") from error


def _parquet(file: pa.NativeFile) -> RawRows:
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    count = parquet.metadata.num_rows

    def read(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if count <= _BATCH_ROWS:
            source, small = parquet, file.size() <= _SMALL_BYTES
            if small:  # read at once, and decoded before a pool of threads would have started
                file.seek(0)
                source = pq.ParquetFile(pa.BufferReader(file.read_buffer()), metadata=parquet.metadata)
            table = source.read([*numbers, *texts], use_threads=not small)
            yield from table.combine_chunks().to_batches()
        else:
            yield from parquet.iter_batches(_BATCH_ROWS, columns=[*numbers, *texts])

    return RawRows(list(parquet.schema_arrow.names), read, is_columnar=True)


def _feather(file: pa.NativeFile) -> RawRows:
    reader = pa.ipc.open_file(file)

    def read(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index).select([*numbers, *texts])

    return RawRows(list(reader.schema.names), read, is_columnar=True)


def _text(file: Any, name: str, where: str) -> RawRows:
    head = bytes(file.read(HEAD_BYTES))
    is_other = b"\0" in head or not head.strip() or name.endswith(_OTHER_ENDINGS)
    if not name.endswith((*_TEXTS, ".gz", ".zip")) and is_other:
        known = f"{', '.join(_TEXTS)} (also .gz or .zip), {', '.join(_BINARIES)}"
        raise BitcornError(f"{where} has an unknown format: give text, or one of {known}")
    kind = splitext(name.removesuffix(".gz").removesuffix(".zip"))[1]
    if kind not in _TEXTS:
        kind = ".json" if head.lstrip()[:1] in (b"[", b"{") else ".csv"
    return _TEXTS[kind](_Rejoined(head, file), head, where)


_BINARIES: Mapping[str, Callable[[pa.NativeFile], RawRows]] = {
    **dict.fromkeys((".parquet", ".pq"), _parquet),
    **dict.fromkeys((".feather", ".arrow"), _feather),
}
# The first bytes of a file say more than its name.
_MAGIC = {b"PAR1": ".parquet", b"ARROW1": ".feather"}
# Text may be compressed. A function gets the stream from its start, its first bytes, and the name for messages.
_TEXTS: Mapping[str, Callable[[Any, bytes, str], RawRows]] = {
    **dict.fromkeys((".csv", ".tsv"), opened_csv),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), opened_json),
}
FILE_ENDINGS = (*(ending + packed for ending in _TEXTS for packed in ("", ".gz", ".zip")), *_BINARIES, ".zip")
"""Endings of the names of files of bars."""


def _archived(archive: zipfile.ZipFile, where: str) -> RawRows:
    """Return the rows of all files in an archive, which must have the same columns."""
    members = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
    if not members:
        raise BitcornError(f"{where} holds no file")

    def opened(member: str) -> RawRows:
        return _text(archive.open(member), member.lower(), where)

    first, *others = sorted(members)
    rows = opened(first)

    def read(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from rows.read(numbers, texts)
        for member in others:
            part = opened(member)
            if part.names != rows.names:
                raise BitcornError(
                    f"{where} holds {first} and {member}, which have different columns: unpack them and give each"
                )
            yield from part.read(numbers, texts)

    return replace(rows, read=read)


@contextmanager
def _unpacked(file: pa.NativeFile, magic: bytes, where: str) -> Iterator[Any]:
    """Yield the text in a file."""
    if magic[:2] == b"\x1f\x8b" or where.lower().endswith(".gz"):
        with pa.CompressedInputStream(file, "gzip") as text:
            yield text
    else:
        yield file


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes have been read, from its start again."""

    def __init__(self, head: bytes, rest: Any) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        head, self._head = self._head, b""
        if size is None or size < 0:
            return head + bytes(self._rest.read())
        if len(head) > size:
            self._head, head = head[size:], head[:size]
        return head + bytes(self._rest.read(size - len(head))) if len(head) < size else head
