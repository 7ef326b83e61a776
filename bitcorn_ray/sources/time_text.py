"""Times written as text, parsed by pandas: all rows of one shape at once.

The shape of a text is the text with every digit replaced by 9: `2024-01-31 15-PM` has the shape `9999-99-99 99-PM`. A
shape decides which fields a text has, and so the format that pandas parses it by.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_ZONE = r"\ ?(?:(?:Z|z|UTC|GMT)|(?P<offset>[+-]99(?::?99)?))?"
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
# Fields of a shape: how people write one letter of each, and pandas' directive.
_FIELDS = {"Y": ("Y", "%Y"), "M": ("M", "%m"), "D": ("D", "%d"), "h": ("H", "%H"), "m": ("M", "%M"), "S": ("S", "%S")}
_FIELDS |= {"fraction": ("f", "%f"), "half": ("AM", "%p"), "offset": ("+HH:MM", "%z")}
_MOST_SHAPES = 200
_FIRST_YEAR, _LAST_YEAR = 1900, 2100


def parse_text(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_], dict[str, int]]:
    """Parse T texts without nulls as times.

    Returns (milliseconds UTC (T,), which texts are no times (T,), rows by form such as `YYYY-MM-DD HH:MM:SS`).
    """
    text = pc.utf8_trim_whitespace(array.cast(pa.large_string())).to_numpy(zero_copy_only=False)
    lengths = pc.utf8_length(pa.array(text)).to_numpy(zero_copy_only=False) if len(text) else np.zeros(0)
    ms, bad, units = np.zeros(len(text), np.int64), np.ones(len(text), bool), dict[str, int]()
    left = np.arange(len(text))
    for _ in range(_MOST_SHAPES):
        if len(left) == 0:
            break
        shape = re.sub("[0-9]", "9", text[left[0]])
        match = next((found for known in _SHAPES if (found := known.fullmatch(shape))), None)
        if match is None:
            left = left[text[left] != text[left[0]]]
            continue
        rows = left[lengths[left] == len(shape)]
        form, layout = _form(match)
        ms[rows], bad[rows] = _parsed(text[rows], layout, match)
        if count := int(np.count_nonzero(~bad[rows])):
            units[form] = units.get(form, 0) + count
        left = left[1:][bad[left[1:]]]
    return ms, bad, units


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
