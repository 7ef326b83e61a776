"""A chunk as a Parquet file: one row a bar, `timestamp`, `bar`, and the features as float32.

`bar` is a fingerprint of each bar's prices and volume, by which `explain` finds which bars were changed. The schema's
metadata names the chunk, so that another one's file under its name is told, and holds a checksum of each column.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars

__all__ = ["decode_bars", "decode_chunk", "encode_chunk", "fingerprint_bars"]

_METADATA = b"bitcorn_chunk"
# Float noise does not compress: a column is one plain page, so that it lies in the file as it lies in memory.
_PARQUET: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "data_page_size": 1 << 22,
    "max_rows_per_page": 1 << 20,
}


def encode_chunk(key: str, names: Sequence[str], matrix: NDArray[np.float32], bars: Bars) -> pa.Buffer:
    """Features (F, n) of n bars as a file."""
    columns: dict[str, NDArray[Any]] = {} if bars.timestamp is None else {"timestamp": bars.timestamp}
    columns["bar"] = fingerprint_bars(bars)
    columns |= {name: np.ascontiguousarray(row) for name, row in zip(names, matrix, strict=True)}
    metadata = json.dumps({"key": key, "crc32": {name: _checksum(column) for name, column in columns.items()}})
    arrays = {name: pa.array(column) for name, column in columns.items()}
    if "timestamp" in arrays:
        arrays["timestamp"] = arrays["timestamp"].cast(pa.timestamp("ms", "UTC"))
    # Not nullable: NaN is a value here, and pages without levels are read a third faster.
    fields = [pa.field(name, array.type, nullable=False) for name, array in arrays.items()]
    sink = pa.BufferOutputStream()
    schema = pa.schema(fields, metadata={_METADATA: metadata})
    pq.write_table(pa.table(list(arrays.values()), schema=schema), sink, **_PARQUET)
    return sink.getvalue()


def decode_chunk(content: pa.Buffer, key: str, names: Sequence[str], out: NDArray[np.float32]) -> None:
    """Read the named features of a chunk into ``out`` (F, n).

    Raises BitcornError with what is wrong where the file is not whole, or is not this chunk.
    """
    for name, row, column in zip(names, out, _columns(content, key, names, np.float32), strict=True):
        if column.shape != row.shape:
            raise BitcornError(f"column {name} holds {len(column)} rows, not {len(row)}")
        row[:] = column


def decode_bars(content: pa.Buffer, key: str, timed: bool) -> tuple[NDArray[np.int64] | None, NDArray[np.uint32]]:
    """Times (n,) and fingerprints (n,) of a chunk's bars. Raises BitcornError as `decode_chunk` does."""
    times = _columns(content, key, ["timestamp"], np.int64) if timed else [None]
    return times[0], _columns(content, key, ["bar"], np.uint32)[0]


def fingerprint_bars(bars: Bars) -> NDArray[np.uint32]:
    """Hash of each bar's prices and volume: (T,)."""
    mixed = np.zeros(len(bars), np.uint64)
    for name, column in bars.columns().items():
        if name != "timestamp":
            # One round of the finaliser of MurmurHash3 a column; products wrap around.
            mixed ^= np.ascontiguousarray(column).view(np.uint64)
            mixed ^= mixed >> np.uint64(33)
            mixed *= np.uint64(0xFF51AFD7ED558CCD)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def _columns(content: pa.Buffer, key: str, names: Sequence[str], dtype: Any) -> list[NDArray[Any]]:
    try:
        metadata = pq.read_metadata(pa.BufferReader(content))
        facts = json.loads((metadata.metadata or {}).get(_METADATA, b"{}"))
        if facts.get("key") != key:
            raise BitcornError("it is another file under this name")
        checksums = facts["crc32"]
        places = {name: place for place, name in enumerate(checksums)}
        group, columns = metadata.row_group(0), []
        for name in names:
            column = _in_place(content, group.column(places[name]), metadata.num_rows, dtype)
            if column is None or _checksum(column) != checksums[name]:
                # Laid out by another writer: Parquet says how, and the checksum is of what the column holds.
                column = _by_arrow(content, name, dtype)
                if _checksum(column) != checksums[name]:
                    raise BitcornError(f"the checksum of column {name} differs")
            columns.append(column)
    except BitcornError:
        raise
    except Exception as error:  # there is no end to what a damaged file can make a reader raise
        raise BitcornError(f"it cannot be read: {str(error).splitlines()[0] if str(error) else error!r}") from error
    return columns


def _in_place(content: pa.Buffer, column: pq.ColumnChunkMetaData, rows: int, dtype: Any) -> NDArray[Any] | None:
    """Column of one plain page, where it lies in the file: after the page's header, at its end."""
    size = rows * np.dtype(dtype).itemsize
    start = column.data_page_offset + column.total_compressed_size - size
    if not 0 <= start <= len(content) - size:
        return None
    return np.frombuffer(content, dtype, rows, start)


def _by_arrow(content: pa.Buffer, name: str, dtype: Any) -> NDArray[Any]:
    column = pq.ParquetFile(pa.BufferReader(content)).read(columns=[name], use_threads=False).column(0).to_numpy()
    return np.ascontiguousarray(column.view(np.int64) if column.dtype.kind == "M" else column, dtype)


def _checksum(column: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(column).data)
