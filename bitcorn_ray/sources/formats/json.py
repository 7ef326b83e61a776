"""JSON in the forms in which exchanges write bars, as batches of Arrow rows, without all of it in memory.

A list of rows, each a list of values or an object, or one object a line. A file is read in pieces: rows are not nested,
so that a piece may end after any closing bracket. A response of an API that wraps its rows in an object is read whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.formats.rows import RawRows, default_names, named_rows

_PIECE_BYTES = 8_000_000


def opened_json(file: Any, head: bytes, where: str) -> RawRows:
    """Open a file; its first rows say its column names. Raises BitcornError as `json_rows` does."""
    batches = json_rows(file, where)
    first = next(batches, None)
    if first is None:
        return RawRows([], lambda numbers, texts: iter(()))
    return named_rows(first.schema.names, lambda numbers, texts: chain([first], batches), where)


def json_rows(file: Any, where: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file as batches; rows without names get those of `default_names`.

    Raises BitcornError for text that is not JSON, and for JSON that does not hold rows.
    """
    columns: list[str] | None = None
    for rows in _pieces(file, where):
        if not rows:
            continue
        batch = _batch(rows, where)
        if columns is not None and set(batch.schema.names) - set(columns):
            raise BitcornError(f"{where} cannot be read: its rows have different values, {batch.schema.names} in some")
        columns = columns or batch.schema.names
        yield batch


def _pieces(file: Any, where: str) -> Iterator[list[Any]]:
    """Yield rows, a piece of the file at a time."""
    text = file.read(_PIECE_BYTES).lstrip(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise BitcornError(f"{where} cannot be read: it is empty")
    in_list = text[:1] == b"[" and text[1:].lstrip()[:1] in (b"[", b"{")
    if not in_list and (text[:1] != b"{" or _is_one_object(text)):
        yield _wrapped(_parsed(text + file.read(), where), where)
        return
    rest, closing = text[1:] if in_list else text, b"}" if text.lstrip(b"[ \r\n\t")[:1] == b"{" else b"]"
    while True:
        more = file.read(_PIECE_BYTES)
        if not more:
            break
        cut = rest.rfind(closing) + 1
        if closing == b"]":  # the last bracket may end the list
            cut = rest.rfind(closing, 0, max(cut - 1, 0)) + 1
        yield _rows(rest[:cut], where)
        rest = rest[cut:] + more
    tail = rest.rstrip()
    if in_list:
        if not tail.endswith(b"]"):
            raise BitcornError(f"{where} cannot be read: its list of rows does not end, it was cut off")
        tail = tail[:-1]
    yield _rows(tail, where)


def _is_one_object(text: bytes) -> bool:
    """Return True if a text that starts with an object is one object, not an object per line."""
    line, _, rest = text.partition(b"\n")
    if not rest.lstrip().startswith(b"{"):
        return True
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _rows(piece: bytes, where: str) -> list[Any]:
    inner = piece.strip().strip(b",")
    # Rows in lines have no commas between them.
    lines = inner.replace(b"}\r\n{", b"},{").replace(b"}\n{", b"},{") if inner[:1] == b"{" else inner
    rows: list[Any] = _parsed(b"[" + lines + b"]", where)
    return rows


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BitcornError(f"{where} cannot be read: it is not valid JSON ({error})") from error


def _wrapped(value: Any, where: str) -> list[Any]:
    """Find the one list of rows in an object."""
    found = list(_lists(value))
    if len(found) != 1:
        what = "several lists" if found else "no list"
        raise BitcornError(f"{where} holds {what} of rows: give a list of lists or of objects")
    return found[0]


def _lists(value: Any, depth: int = 0) -> Iterator[list[Any]]:
    if isinstance(value, list):
        if value and all(isinstance(row, list | dict) for row in value):
            yield value
    elif isinstance(value, dict) and depth < 5:
        for nested in value.values():
            yield from _lists(nested, depth + 1)


def _batch(rows: list[Any], where: str) -> pa.RecordBatch:
    kinds = {type(row) for row in rows}
    if kinds == {list}:
        lengths = {len(row) for row in rows}
        if len(lengths) != 1:
            raise BitcornError(f"{where} cannot be read: its rows have {min(lengths)} to {max(lengths)} values")
        names = default_names(lengths.pop())
        return pa.RecordBatch.from_arrays([_column(list(values)) for values in zip(*rows, strict=True)], names=names)
    if kinds == {dict}:
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.RecordBatch.from_arrays([_column([row.get(name) for row in rows]) for name in names], names=names)
    raise BitcornError(f"{where} cannot be read: its rows are neither lists nor objects")


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # numbers and text in one column
        return pa.array([None if value is None else str(value) for value in values])
