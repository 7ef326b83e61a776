"""Encode and decode a chunk: a Parquet file of equally long columns with a checksum for each.

The schema's metadata holds the chunk's key and the checksums, so that a foreign or damaged file is detected.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

_METADATA = b"bitcorn_chunk"
# Float noise does not compress. One plain page per column lies in the file as it lies in memory.
_PARQUET: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "data_page_size": 1 << 22,
    "max_rows_per_page": 1 << 20,
}


def encode_chunk(key: str, columns: Mapping[str, NDArray[Any]]) -> pa.Buffer:
    """Return columns (n,) as a file. The column `timestamp`, milliseconds, is stored as times in UTC."""
    columns = {name: np.ascontiguousarray(column) for name, column in columns.items()}
    metadata = json.dumps({"key": key, "crc32": {name: _checksum(column) for name, column in columns.items()}})
    arrays = {name: pa.array(column) for name, column in columns.items()}
    if "timestamp" in arrays:
        arrays["timestamp"] = arrays["timestamp"].cast(pa.timestamp("ms", "UTC"))
    # Not nullable: NaN is a value, and pages without definition levels are read a third faster.
    fields = [pa.field(name, array.type, nullable=False) for name, array in arrays.items()]
    sink = pa.BufferOutputStream()
    schema = pa.schema(fields, metadata={_METADATA: metadata})
    pq.write_table(pa.table(list(arrays.values()), schema=schema), sink, **_PARQUET)
    return sink.getvalue()


def decode_chunk(content: pa.Buffer, key: str, names: Sequence[str], dtype: Any, rows: int) -> list[NDArray[Any]]:
    """Return the named columns (rows,) of a chunk; they may share the memory of ``content``.

    Raises BitcornError, with the reason, if the file is damaged or is not this chunk.
    """
    try:
        metadata = pq.read_metadata(pa.BufferReader(content))
        facts = json.loads((metadata.metadata or {}).get(_METADATA, b"{}"))
        if facts.get("key") != key:
            raise BitcornError("it is another file under this name")
        if metadata.num_rows != rows:
            raise BitcornError(f"it holds {metadata.num_rows} rows, not {rows}")
        checksums = facts["crc32"]
        numbers = {name: number for number, name in enumerate(checksums)}
        group, columns = metadata.row_group(0), []
        for name in names:
            column = _in_place(content, group.column(numbers[name]), rows, dtype)
            if column is None or _checksum(column) != checksums[name]:
                # Another Parquet writer may lay out pages in another way.
                column = _by_arrow(content, name, dtype)
                if _checksum(column) != checksums[name]:
                    raise BitcornError(f"the checksum of column {name} differs")
            columns.append(column)
    except BitcornError:
        raise
    except Exception as error:  # a damaged file can make a reader raise anything
        raise BitcornError(f"it cannot be read: {str(error).splitlines()[0] if str(error) else error!r}") from error
    return columns


def _in_place(content: pa.Buffer, column: pq.ColumnChunkMetaData, rows: int, dtype: Any) -> NDArray[Any] | None:
    """Return the values of a column of one plain page: they follow the page's header, at its end."""
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
