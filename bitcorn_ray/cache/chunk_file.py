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
# Float noise does not compress: plain pages, whole columns, are read back fastest.
_PARQUET: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "data_page_size": 1 << 17,
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


def decode_chunk(file: pa.NativeFile, key: str, names: Sequence[str], out: NDArray[np.float32]) -> None:
    """Read the named features of a chunk into ``out`` (F, n).

    Raises BitcornError with what is wrong where the file is not whole, or is not this chunk.
    """
    for name, row, column in zip(names, out, _columns(file, key, names), strict=True):
        if column.dtype != np.float32 or column.shape != row.shape:
            raise BitcornError(f"column {name} holds {column.dtype} {column.shape}, not float32 {row.shape}")
        row[:] = column


def decode_bars(file: pa.NativeFile, key: str, timed: bool) -> tuple[NDArray[np.int64] | None, NDArray[np.uint32]]:
    """Times (n,) and fingerprints (n,) of a chunk's bars. Raises BitcornError as `decode_chunk` does."""
    columns = _columns(file, key, ["timestamp", "bar"] if timed else ["bar"])
    return (columns[0] if timed else None), columns[-1]


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


def _columns(file: pa.NativeFile, key: str, names: Sequence[str]) -> list[NDArray[Any]]:
    try:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            metadata = json.loads((parquet.schema_arrow.metadata or {}).get(_METADATA, b"{}"))
            if metadata.get("key") != key:
                raise BitcornError("it is another file under this name")
            table = parquet.read(columns=list(names), use_threads=False)
        columns = [_plain(table.column(name)) for name in names]
        for name, column in zip(names, columns, strict=True):
            if metadata["crc32"][name] != _checksum(column):
                raise BitcornError(f"the checksum of column {name} differs")
    except BitcornError:
        raise
    except Exception as error:  # there is no end to what a damaged file can make a reader raise
        raise BitcornError(f"it cannot be read: {str(error).splitlines()[0] if str(error) else error!r}") from error
    return columns


def _plain(column: pa.ChunkedArray) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy()
    return values.view(np.int64) if values.dtype.kind == "M" else values


def _checksum(column: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(column).data)
