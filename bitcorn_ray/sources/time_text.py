"""Times written as text, parsed by pandas: all rows of one shape at once.

The shape of a text is the text with every digit replaced by 9: `2024-01-31 15-PM` has the shape `9999-99-99 99-PM`. A
shape decides which fields a text has, and so the format that pandas parses it by. Names of months count as numbers, in
braces: `Dec 31, 2020` has the shape `{99} 99, 9999`.

Of a date that ends with the year, 31.12.2020 or 12/31/2020, the rows decide whether the day or the month is first:
dots have the day first, and so has any date with a first number above 12; with a second number above 12 the month is
first. If all rows fit both, none is a time.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

_ZONE = r"\ ?(?:Z|z|UTC|GMT)?(?P<offset>[+-]99(?::?99)?)?"
_FRACTION = r"(?:[.,](?P<fraction>9{1,9}))?"
_DAY = r"(?P<Y>9999)(?P<s>[-/.])(?P<M>99)(?P=s)(?P<D>99)"
_HALF = r"(?P<half>[AaPp][Mm])"
_CLOCK = rf"(?:,?[T ]+(?P<h>99?):(?P<m>99)(?::(?P<S>99){_FRACTION})?(?: ?{_HALF})?{_ZONE})?"
# The order of day and month in dates that end with the year, by the separator between them.
_DAY_FIRST = re.compile(rf"(?P<D>99?)(?P<s>[-/. ])(?P<M>99?)(?P=s)(?P<Y>9999){_CLOCK}")
_MONTH_FIRST = re.compile(rf"(?P<M>99?)(?P<s>[-/. ])(?P<D>99?)(?P=s)(?P<Y>9999){_CLOCK}")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_LETTERS = re.compile(r"(?i)\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b\.?")
_WEEKDAY = re.compile(r"(?i)^(mon|tue|wed|thu|fri|sat|sun)[a-z]*,? +")
_SHAPES = tuple(
    re.compile(shape)
    for shape in (
        rf"{_DAY}(?:[T ]+(?P<h>99?):(?P<m>99)(?::(?P<S>99){_FRACTION})?{_ZONE})?",
        rf"{_DAY} +(?P<h>99?)-?{_HALF}",
        rf"{_DAY} +(?P<h>99?):(?P<m>99)(?::(?P<S>99))? ?{_HALF}",
        r"(?P<Y>9999)(?P<M>99)(?P<D>99)(?:(?P<h>99)(?P<m>99)(?P<S>99)?)?",
        rf"(?P<Y>9999)(?P<M>99)(?P<D>99)[T ](?P<h>99):?(?P<m>99)(?::?(?P<S>99){_FRACTION})?{_ZONE}",
        rf"\{{(?P<M>99)\}} (?P<D>99?),? (?P<Y>9999){_CLOCK}",
        rf"(?P<D>99?)[- ]\{{(?P<M>99)\}}[-, ]+(?P<Y>9999){_CLOCK}",
        rf"(?P<Y>9999)[- ]\{{(?P<M>99)\}}[- ](?P<D>99?){_CLOCK}",
    )
)
# Fields of a shape: how people write one letter of each, and pandas' directive.
_FIELDS = {"Y": ("Y", "%Y"), "M": ("M", "%m"), "D": ("D", "%d"), "h": ("H", "%H"), "m": ("M", "%M"), "S": ("S", "%S")}
_FIELDS |= {"fraction": ("f", "%f"), "half": ("AM", "%p"), "offset": ("+HH:MM", "%z")}
_YEAR_LAST = re.compile(r"(?P<a>[0-9]{1,2})(?P<s>[-/. ])(?P<b>[0-9]{1,2})(?P=s)[0-9]{4}(?![0-9])")
_MOST_MONTHS = 12
_MOST_SHAPES = 200
_FIRST_YEAR, _LAST_YEAR = 1900, 2100


Parsed = tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], dict[str, int]]


def parse_text(array: pa.Array) -> Parsed:
    """Parse T texts without nulls as times.

    Returns (milliseconds UTC (T,), which texts are no times (T,), which have no offset (T,), rows by form such as
    `YYYY-MM-DD HH:MM:SS`).
    """
    text = pc.utf8_trim_whitespace(array.cast(pa.large_string())).to_numpy(zero_copy_only=False)
    if len(text) and _LETTERS.search(text[0]):
        text = np.array([_in_numbers(one) for one in text], object)
    year_last = _year_last(text)
    lengths = pc.utf8_length(pa.array(text)).to_numpy(zero_copy_only=False) if len(text) else np.zeros(0)
    ms, bad, units = np.zeros(len(text), np.int64), np.ones(len(text), bool), dict[str, int]()
    local = np.zeros(len(text), bool)
    left = np.arange(len(text))
    for _ in range(_MOST_SHAPES):
        if len(left) == 0:
            break
        shape = re.sub("[0-9]", "9", text[left[0]])
        shapes = (*_SHAPES, year_last) if year_last else _SHAPES
        match = next((found for known in shapes if (found := known.fullmatch(shape))), None)
        if match is None:
            left = left[text[left] != text[left[0]]]
            continue
        rows = left[lengths[left] == len(shape)]
        form, layout = _form(match)
        ms[rows], bad[rows] = _parsed(text[rows], layout, match)
        has_offset = match.groupdict().get("offset") or re.search(r"Z|z|UTC|GMT", shape)
        local[rows] = ~bad[rows] & (not has_offset)
        if count := int(np.count_nonzero(~bad[rows])):
            units[form] = units.get(form, 0) + count
        left = left[1:][bad[left[1:]]]
    return ms, bad, local, units


def parse_format(array: pa.Array, layout: str) -> Parsed:
    """Parse T texts by a format of `strptime`; returns what `parse_text` does."""
    import pandas as pd

    text = pd.Index(pc.utf8_trim_whitespace(array.cast(pa.large_string())).to_numpy(zero_copy_only=False))
    try:
        times = pd.DatetimeIndex(pd.to_datetime(text, format=layout, utc=True, errors="coerce"))
    except ValueError as error:
        raise BitcornError(f"the format of times {layout!r} is not valid: {error}") from error
    bad = np.asarray(times.isna())
    ms: NDArray[np.int64] = np.where(bad, 0, times.as_unit("us").asi8 // 1_000)
    local = ~bad & (not re.search("%[zZ]", layout))
    return ms, bad, local, {layout: int((~bad).sum())} if not bad.all() else {}


def _in_numbers(text: str) -> str:
    """Return a text with the name of a month as its number in braces, and without a weekday."""
    found = _LETTERS.search(_WEEKDAY.sub("", text))
    if found is None:
        return text
    number = _MONTHS.index(found[1].lower()) + 1
    return f"{found.string[: found.start()]}{{{number:02}}}{found.string[found.end() :]}"


def _year_last(text: NDArray[np.object_]) -> re.Pattern[str] | None:
    """Return the shape of dates that end with the year, None if the rows do not tell the day from the month."""
    match = _YEAR_LAST.match(text[0]) if len(text) else None
    if match is None:
        return None
    if match["s"] == ".":
        return _DAY_FIRST
    pairs = [found for one in text if (found := _YEAR_LAST.match(one))]
    if any(int(found["a"]) > _MOST_MONTHS for found in pairs):
        return _DAY_FIRST
    return _MONTH_FIRST if any(int(found["b"]) > _MOST_MONTHS for found in pairs) else None


def _parsed(
    text: NDArray[np.object_], layout: str, match: re.Match[str]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    import pandas as pd

    fields = match.groupdict()
    if layout.endswith("%z") and len(fields["offset"]) == len("+99"):  # pandas wants minutes too
        text = text + "00"
    times = pd.DatetimeIndex(pd.to_datetime(pd.Index(text), format=layout, utc=True, errors="coerce"))
    bad = np.asarray(times.isna())
    if fields.get("S"):  # pandas reads leap seconds, which no bar has, as those of the next minute
        tens = pc.utf8_slice_codeunits(pa.array(text, pa.string()), match.start("S"), match.start("S") + 1)
        bad |= np.asarray(pc.equal(tens, "6"))
    if set(match.string) == {"9"}:  # else it is a number
        bad |= (times.year < _FIRST_YEAR) | (times.year > _LAST_YEAR)
    ms: NDArray[np.int64] = np.where(bad, 0, times.as_unit("us").asi8 // 1_000)
    return ms, bad


def _form(match: re.Match[str]) -> tuple[str, str]:
    """Return the form of a shape as people write it (`YYYY-MM-DD HH:MM:SS`) and as pandas parses it."""
    form, layout, end = "", "", 0
    present = [name for name in _FIELDS if match.groupdict().get(name)]
    for name in sorted(present, key=match.start):
        letter, directive = _FIELDS[name]
        between, width = match.string[end : match.start(name)], len(match[name])
        form += between + (letter * width if len(letter) == 1 else letter)
        layout += between + ("%I" if name == "h" and "half" in present else directive)
        end = match.end(name)
    return form + match.string[end:], layout + match.string[end:]
