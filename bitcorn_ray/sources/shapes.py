"""Times written as text, parsed column by column: rows of one shape at once.

A text's shape is the text with every digit replaced by 9: `2024-01-31 15-PM` has the shape `9999-99-99 99-PM`. Where
the fields stand follows from the shape, so that their numbers are sums of columns of a (rows, letters) matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_ZONE = r"(?P<zone>\ ?(?:Z|z|UTC|GMT)|\ ?(?P<sign>[+-])(?P<zh>99):?(?P<zm>99)?)?"
_FRACTION = r"(?:[.,](?P<fraction>9{1,9}))?"
_DAY = r"(?P<Y>9999)(?P<s>[-/.])(?P<M>99)(?P=s)(?P<D>99)"
_HALF = r"(?P<half>[AaPp][Mm])"
_SHAPES = tuple(
    re.compile(shape)
    for shape in (
        rf"{_DAY}(?:[T ]+(?P<h>99?):(?P<m>99)(?::(?P<S>99){_FRACTION})?{_ZONE})?",
        rf"{_DAY} +(?P<h>99?)-?{_HALF}",
        rf"{_DAY} +(?P<h>99?):(?P<m>99)(?::(?P<S>99))? ?{_HALF}",
        r"(?P<Y>9999)(?P<M>99)(?P<D>99)(?:(?P<h>99)(?P<m>99)(?P<S>99)?)?",
        rf"(?P<Y>9999)(?P<M>99)(?P<D>99)[T ](?P<h>99):?(?P<m>99)(?::?(?P<S>99){_FRACTION})?{_ZONE}",
    )
)
_LONGEST, _MOST_SHAPES = 64, 200
_FIRST_YEAR, _LAST_YEAR = 1900, 2100
_MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_NAMES = {"Y": "Y", "M": "M", "D": "D", "h": "H", "m": "M", "S": "S", "fraction": "f"}


def parse_text(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_], dict[str, int]]:
    """Read T texts without nulls as times.

    Returns (milliseconds UTC (T,), which texts are no times (T,), rows by form such as `YYYY-MM-DD HH:MM:SS`).
    """
    array = pc.utf8_trim_whitespace(array.cast(pa.large_string()))
    ms, bad, units = np.zeros(len(array), np.int64), np.ones(len(array), bool), dict[str, int]()
    for rows, shape, letters in _by_shape(array):
        match = next((found for each in _SHAPES if (found := each.fullmatch(shape))), None)
        if match is None:
            continue
        ms[rows], wrong = _read(letters, match)
        bad[rows] = wrong
        if count := int(len(wrong) - wrong.sum()):
            form = _form(match)
            units[form] = units.get(form, 0) + count
    ms[bad] = 0
    return ms, bad, units


def _by_shape(array: pa.Array) -> Iterator[tuple[NDArray[np.int64], str, NDArray[np.uint8]]]:
    """Yield (rows (n,), their shape, their letters (n, L)) for each shape of ASCII text, up to so many shapes."""
    lengths = pc.binary_length(array).to_numpy(zero_copy_only=False)
    shapes = 0
    for length in np.unique(lengths):
        if not 0 < length <= _LONGEST:
            continue
        rows = np.flatnonzero(lengths == length)
        same = array if len(rows) == len(array) else array.take(pa.array(rows))
        offsets = np.frombuffer(same.buffers()[1], np.int64, len(same) + 1, same.offset * 8)
        letters = np.frombuffer(same.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(len(same), int(length))
        is_digit = (letters >= 48) & (letters <= 57)
        shaped = np.where(is_digit, np.uint8(57), letters)
        left = np.arange(len(rows))
        while len(left) and shapes < _MOST_SHAPES:
            first = shaped[left[0]]
            alike = (shaped[left] == first).all(axis=1)
            chosen = left[alike]
            yield rows[chosen], first.tobytes().decode("ascii", "replace"), letters[chosen]
            left, shapes = left[~alike], shapes + 1


def _read(letters: NDArray[np.uint8], match: re.Match[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    def number(name: str) -> NDArray[np.int64]:
        if name not in match.re.groupindex or match[name] is None:
            return np.zeros(len(letters), np.int64)
        total = np.zeros(len(letters), np.int64)
        for place in range(*match.span(name)):
            total = total * 10 + (letters[:, place].astype(np.int64) - 48)
        return total

    def text(name: str) -> str:
        return (match[name] or "") if name in match.re.groupindex else ""

    year, month, day = number("Y"), number("M"), number("D")
    hour, minute, second = number("h"), number("m"), number("S")
    wrong = (month < 1) | (month > 12) | (minute > 59) | (second > 59)
    leap = ((year % 4 == 0) & (year % 100 != 0)) | (year % 400 == 0)
    days = _MONTH_DAYS[np.clip(month, 1, 12) - 1] + (leap & (month == 2))
    wrong |= (day < 1) | (day > days) | (year < 1)
    if set(match.string) == {"9"}:  # else it is a number
        wrong |= (year < _FIRST_YEAR) | (year > _LAST_YEAR)
    if half := text("half").lower():
        wrong |= (hour < 1) | (hour > 12)
        hour = hour % 12 + (12 if half == "pm" else 0)
    wrong |= hour > 23
    fraction = number("fraction")
    digits = len(text("fraction"))
    fraction = fraction * 10 ** (3 - digits) if digits <= 3 else fraction // 10 ** (digits - 3)
    months = (year - 1970) * 12 + month - 1
    midnight = months.view("M8[M]").astype("M8[D]").astype(np.int64) + day - 1
    ms = (((midnight * 24 + hour) * 60 + minute) * 60 + second) * 1000 + fraction
    if sign := text("sign"):
        offset = (number("zh") * 60 + number("zm")) * 60_000
        wrong |= (number("zh") > 15) | (number("zm") > 59)
        ms = ms - offset if sign == "+" else ms + offset
    return ms, wrong


def _form(match: re.Match[str]) -> str:
    """Name of a shape as people write it, such as YYYY-MM-DD HH:MM:SS."""
    letters = list(match.string)
    for name, letter in _NAMES.items():
        if name in match.re.groupindex and match[name]:
            start, end = match.span(name)
            letters[start:end] = letter * (end - start)
    text = "".join(letters)
    if match.re.groupindex.get("half") and match["half"]:
        text = text.replace(match["half"], "AM")
    if match.re.groupindex.get("sign") and match["sign"]:
        text = text[: match.start("zone")] + "+HH:MM"
    return text
