"""Read prices and volumes that are stored as numbers or as text.

Text may have currency signs, thousands separators, a decimal comma, and K, M or B for a thousand, a million and a
billion. The last of a point and a comma is the decimal one. A comma alone is decimal if the values of the column have
other than three digits after it, and separates thousands if a value has several; else the value is no number, as 1,234
may be either.
"""

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
    text = _plain(text)
    missing = pc.fill_null(pc.is_in(pc.utf8_lower(text), _MISSING.cast(pa.large_string())), True)
    number = pc.and_(pc.fill_null(pc.match_substring_regex(text, _NUMBER), False), pc.invert(missing))
    bad = np.asarray(pc.invert(pc.or_(missing, pc.or_(number, pc.is_null(text)))))
    return _floats(pc.if_else(number, pc.utf8_ltrim(text, "+"), None)), bad


def _plain(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return texts as numbers are written: without signs of currencies and thousands, with a decimal point."""
    text = pc.replace_substring_regex(text, r"[$€£¥₩₹₿\s\x{a0}']", "")
    if pc.any(pc.match_substring(text, ",")).as_py():
        text = _without_commas(text)
    for letter, zeros in (("K", 3), ("M", 6), ("B", 9)):
        scaled = pc.fill_null(pc.match_substring_regex(text, rf"(?i)^[+-]?[0-9.]+{letter}$"), False)
        exponent, nothing = (pa.scalar(word, text.type) for word in (f"e{zeros}", ""))
        digits = pc.binary_join_element_wise(pc.utf8_slice_codeunits(text, 0, -1), exponent, nothing)
        text = pc.if_else(scaled, digits, text)
    return text


def _without_commas(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    point_last = pc.fill_null(pc.match_substring_regex(text, r",.*\."), False)
    comma_last = pc.fill_null(pc.match_substring_regex(text, r"\..*,"), False)
    alone = pc.and_(pc.fill_null(pc.match_substring(text, ","), False), pc.invert(pc.or_(point_last, comma_last)))
    values = text.filter(alone)
    is_decimal = pc.any(pc.match_substring_regex(values, r",(?:[0-9]{1,2}|[0-9]{4,})$")).as_py()
    if pc.any(pc.match_substring_regex(values, r",[0-9]{3},[0-9]{3}")).as_py() and not is_decimal:
        point_last = pc.or_(point_last, alone)
    elif is_decimal or pc.any(comma_last).as_py():
        comma_last = pc.or_(comma_last, alone)
    elif pc.any(point_last).as_py():
        point_last = pc.or_(point_last, alone)
    english = pc.replace_substring(text, ",", "")
    continental = pc.replace_substring(pc.replace_substring(text, ".", ""), ",", ".")
    return pc.if_else(point_last, english, pc.if_else(comma_last, continental, text))


def missing_as_null(column: pa.Array) -> pa.Array:
    """Return a column of text in which words for a missing value (empty text, nan, null) are null."""
    words = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    return pc.if_else(pc.fill_null(pc.is_in(words, _MISSING.cast(words.type)), True), None, column)


def _floats(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    chunks = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    numbers: NDArray[np.float64] = chunks.cast(pa.float64(), safe=False).to_numpy()
    return numbers
