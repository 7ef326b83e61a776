"""Files of bars in any format, opened as column names and batches of Arrow rows.

1. The first bytes say how a file is packed (gzip, zip) and whether it is Parquet or Feather; JSON and CSV are told by
   the name, and by their first letter where the name does not say.
2. Rows without names are given those of the layout that they have (see `layouts`).
3. Rows come in batches of some megabytes, so that a file may be larger than the memory.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.formats_csv import HEAD_BYTES, CsvHead, csv_head, csv_rows
from bitcorn_ray.market.formats_json import json_rows
from bitcorn_ray.market.layouts import UNORDERED, ordered_prices
from bitcorn_ray.storage.location import Location

__all__ = ["FILE_ENDINGS", "RawRows", "opened_rows"]

FILE_ENDINGS = (
    *(ending + packed for ending in (".csv", ".tsv", ".json", ".jsonl", ".ndjson") for packed in ("", ".gz", ".zip")),
    *(".parquet", ".pq", ".feather", ".arrow", ".zip"),
)
"""How the names of files of bars end."""

_SMALL_BYTES = 8_000_000
_BATCH_ROWS = 262_144


@dataclass(frozen=True)
class RawRows:
    """Rows as a file has them. names: of its columns.

    read: yields batches that have at least the given columns; call it once. Its first argument names those that have to
    be numbers, its second those that are wanted as they stand there, as text where the format is text.
    is_columnar: reading few columns costs less than reading all. ends: the number of rows, with the smallest and the
    largest value of a column, where the file says them without its rows being read, else None.
    """

    names: list[str]
    read: Callable[[Sequence[str], Sequence[str]], Iterator[pa.RecordBatch]]
    is_columnar: bool = False
    ends: Callable[[str], tuple[int, pa.Array] | None] = lambda name: None


@contextmanager
def opened_rows(place: Location) -> Iterator[RawRows]:
    """Open a file of bars. Raises BitcornError where it cannot be read, then or while its rows are."""
    name, where = place.name.lower(), place.shown
    try:
        with place.opened() as file:
            magic = bytes(file.read(8))
            file.seek(0)
            if magic[:4] == b"PAR1" or name.endswith((".parquet", ".pq")):
                yield from _parquet(file)
            elif magic[:6] == b"ARROW1" or name.endswith((".feather", ".arrow")):
                yield _feather(file)
            elif not name.endswith(FILE_ENDINGS):
                raise BitcornError(
                    f"{where} is of an unknown format: give .csv or .json (also .gz or .zip), .feather or .parquet"
                )
            else:
                with _unpacked(file, magic, where) as (text, inner):
                    yield _text(text, inner or name, where)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise BitcornError(f"{where} cannot be read: {error}") from error


def _parquet(file: pa.NativeFile) -> Iterator[RawRows]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
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

        yield RawRows(list(parquet.schema_arrow.names), read, True, lambda name: _ends(parquet, name))


def _ends(parquet: Any, name: str) -> tuple[int, pa.Array] | None:
    """Rows of a Parquet file, and the ends of a column that has no missing value, by its statistics."""
    kind = parquet.schema_arrow.field(name).type
    metadata, place = parquet.metadata, parquet.schema_arrow.get_field_index(name)
    # Columns of columns would be counted otherwise; and of texts the ends are not those of their times.
    if metadata.num_columns != len(parquet.schema_arrow) or not (
        pa.types.is_integer(kind) or pa.types.is_temporal(kind)
    ):
        return None
    found = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
    if not found or not all(each and each.has_min_max and each.null_count == 0 for each in found):
        return None
    ends = [min(each.min for each in found), max(each.max for each in found)]
    return metadata.num_rows, pa.array(ends, kind)


def _feather(file: pa.NativeFile) -> RawRows:
    reader = pa.ipc.open_file(file)

    def read(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for place in range(reader.num_record_batches):
            yield reader.get_batch(place).select([*numbers, *texts])

    return RawRows(list(reader.schema.names), read, is_columnar=True)


def _text(file: Any, name: str, where: str) -> RawRows:
    head = bytes(file.read(HEAD_BYTES))
    file = _Rejoined(head, file)
    is_json = ".json" in name or name.endswith((".jsonl", ".ndjson"))
    if is_json or (".csv" not in name and head.lstrip()[:1] in (b"[", b"{")):
        return _json(file, where)
    return _csv(file, csv_head(head, where), where)


def _json(file: Any, where: str) -> RawRows:
    batches = json_rows(file, where)
    first = next(batches, None)
    if first is None:
        return RawRows([], lambda numbers, texts: iter(()))
    return _named(first.schema.names, lambda numbers, texts: chain([first], batches), where)


def _csv(file: Any, head: CsvHead, where: str) -> RawRows:
    def read(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        kinds = dict.fromkeys(texts, pa.string()) | dict.fromkeys(numbers, pa.float64())
        return csv_rows(file, head, kinds, where)

    return _named(head.names, read, where)


def _named(names: list[str], read: Callable[..., Iterator[pa.RecordBatch]], where: str) -> RawRows:
    """Rows with names; of six places, the prices in the order that they turn out to have."""
    if names != list(UNORDERED):
        return RawRows(names, read)

    def ordered(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return ordered_prices(read(UNORDERED[1:], UNORDERED[:1]), where)

    return RawRows(["timestamp", "open", "high", "low", "close", "volume"], ordered)


@contextmanager
def _unpacked(file: pa.NativeFile, magic: bytes, where: str) -> Iterator[tuple[Any, str | None]]:
    """Yield the text in a file, and its name where the packing knows it."""
    if magic[:2] == b"\x1f\x8b" or where.lower().endswith(".gz"):
        with pa.CompressedInputStream(file, "gzip") as text:
            yield text, None
    elif magic[:4] == b"PK\x03\x04" or where.lower().endswith(".zip"):
        if magic[:4] == b"PK\x05\x06":  # an end without a beginning
            raise BitcornError(f"{where} holds no file")
        with zipfile.ZipFile(file) as archive:
            members = [each for each in archive.namelist() if not each.endswith("/") and "__MACOSX" not in each]
            if len(members) != 1:
                raise BitcornError(f"{where} holds {len(members)} files: pack one, or unpack them and give them all")
            with archive.open(members[0]) as text:
                yield text, members[0].lower()
    else:
        yield file, None


class _Rejoined(io.RawIOBase):
    """A stream whose head has been read, from its start again, as Arrow and others read it."""

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
