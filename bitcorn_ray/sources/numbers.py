"""Read prices and volumes that are stored as numbers or as text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_MISSING = pa.array(["", "nan", "null", "none", "na", "n/a", "-"])


def parse_numbers(column: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read a column of T numbers, or of text that holds numbers.

    Returns (the numbers (T,), NaN for missing ones, which values are no numbers (T,)). Empty text, nan and null are
    missing values.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = pc.cast(column, kind.value_type)
        kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        # A volume beyond 2^53 is rounded, as any float64 would round it.
        return _floats(column), np.zeros(len(column), bool)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return np.full(len(column), np.nan), np.ones(len(column), bool)
    text = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    try:
        return _floats(text), np.zeros(len(text), bool)
    except pa.ArrowInvalid:
        pass
    missing = pc.fill_null(pc.is_in(pc.utf8_lower(text), _MISSING.cast(pa.large_string())), True)
    number = pc.and_(pc.fill_null(pc.match_substring_regex(text, _NUMBER), False), pc.invert(missing))
    bad = np.asarray(pc.invert(pc.or_(missing, pc.or_(number, pc.is_null(text)))))
    return _floats(pc.if_else(number, pc.utf8_ltrim(text, "+"), None)), bad


def missing_as_null(column: pa.Array) -> pa.Array:
    """Return a column of text in which words for a missing value (empty text, nan, null) are null."""
    words = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    return pc.if_else(pc.fill_null(pc.is_in(words, _MISSING.cast(words.type)), True), None, column)


def _floats(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    chunks = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    numbers: NDArray[np.float64] = chunks.cast(pa.float64(), safe=False).to_numpy()
    return numbers
