"""JSON in the forms in which exchanges write bars, as batches of Arrow rows, without all of it in memory.

A list of rows, each a list of values or an object, or one object a line. A file is read in pieces: rows are not nested,
so that a piece may end after any closing bracket. One object that holds the rows is read whole:

1. a list of rows anywhere in it, with the names of columns beside it (`columns`, `fields`, `headers`), as pandas writes
   with orient="split";
2. a list per column, as servers of TradingView's UDF answer;
3. an object per column, as pandas writes by default, or an object per time, as Alpha Vantage answers. The keys of the
   rows are the column `index`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.columns import has_prices
from bitcorn_ray.sources.formats.rows import RawRows, default_names, named_rows

_PIECE_BYTES = 8_000_000
_DEEPEST = 5
_NAMES = ("columns", "fields", "headers", "header", "cols", "names", "keys")  # of lists of the names of columns


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
    """Find the one table in an object."""
    found = list(_tables(value))
    if len(found) != 1:
        what = "several tables" if found else "no table"
        raise BitcornError(
            f"{where} holds {what} of bars: keep one list of rows, or one list per column under the names of columns"
        )
    return found[0]


def _tables(value: Any, depth: int = 0) -> Iterator[list[Any]]:
    """Yield the rows of each table in a value."""
    if isinstance(value, list):
        if value and all(isinstance(row, list | dict) for row in value):
            yield value
        return
    if not isinstance(value, dict) or depth > _DEEPEST:
        return
    if (table := _named_lists(value) or _columns(value) or _objects(value)) is not None:
        yield table
        return
    for name, nested in value.items():
        if name != "schema":  # of pandas' orient="table"
            yield from _tables(nested, depth + 1)


def _named_lists(value: dict[str, Any]) -> list[Any] | None:
    """Return rows whose names are a list beside them."""
    names = next((value[key] for key in _NAMES if _is_list_of(value.get(key), str)), None)
    if names is None:
        return None
    rows = [rows for rows in value.values() if _is_list_of(rows, list) and {len(row) for row in rows} == {len(names)}]
    if len(rows) != 1:
        return None
    found = [dict(zip(names, row, strict=True)) for row in rows[0]]
    index = value.get("index")
    if isinstance(index, list) and len(index) == len(found) and "index" not in names:
        found = [{"index": key, **row} for key, row in zip(index, found, strict=True)]
    return found


def _columns(value: dict[str, Any]) -> list[Any] | None:
    """Return the rows of lists under the names of columns, or of objects with equal keys."""
    for kind in (list, dict):
        columns: dict[str, Any] = {n: column for n, column in value.items() if isinstance(column, kind) and column}
        if not has_prices(list(columns)):
            continue
        if len({len(column) for column in columns.values()}) != 1:
            return None
        if kind is list:
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        keys = list(next(iter(columns.values())))
        if all(set(column) == set(keys) for column in columns.values()):
            return [{"index": key, **{name: column[key] for name, column in columns.items()}} for key in keys]
    return None


def _objects(value: dict[str, Any]) -> list[Any] | None:
    """Return the rows of an object per time."""
    if not value or not all(isinstance(row, dict) and has_prices(list(row)) for row in value.values()):
        return None
    return [{"index": key, **row} for key, row in value.items()]


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _batch(rows: list[Any], where: str) -> pa.RecordBatch:
    kinds = {type(row) for row in rows}
    if kinds == {list}:
        lengths = {len(row) for row in rows}
        if len(lengths) != 1:
            raise BitcornError(f"{where} cannot be read: its rows have {min(lengths)} to {max(lengths)} values")
        names = default_names(rows)
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
