"""Columns that hold numbers in some rows and text in others, as SQLite allows.

Read as one column, the numbers would become text with six digits. So the numbers of a column and its text are selected
as two columns, each of one type, parsed apart, and put together again.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.sources.numbers import parse_numbers
from bitcorn_ray.sources.times import ParsedTimes, read_times


def split_column(column: str, place: int) -> str:
    """Return SQL that selects the numbers of a column as `n<place>` and its text as `s<place>`."""
    return (
        f"CASE WHEN typeof({column}) NOT IN ('text', 'blob') THEN {column} END AS n{place}, "
        f"CASE typeof({column}) WHEN 'text' THEN {column} WHEN 'blob' THEN quote({column}) END AS s{place}"
    )


def merged_times(split: pa.Table, place: int = 0) -> tuple[ParsedTimes, NDArray[np.bool_]]:
    """Times of a split column; see `read_times`."""
    numbers, text = split[f"n{place}"], split[f"s{place}"]
    if text.null_count == len(text):
        return read_times(numbers)
    if numbers.null_count == len(numbers):
        return read_times(text)
    (first, not_first), (second, not_second) = read_times(numbers), read_times(text)
    units = {**first.units, **second.units}
    for unit in set(first.units) & set(second.units):
        units[unit] = first.units[unit] + second.units[unit]
    how = f"{first.how}; {second.how}"
    return ParsedTimes(np.where(not_first, second.ms, first.ms), how, units), not_first & not_second


def merged_numbers(split: pa.Table, place: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers of a split column; see `parse_numbers`."""
    numbers, _ = parse_numbers(split[f"n{place}"])
    if split[f"s{place}"].null_count == len(split):
        return numbers, np.zeros(len(split), bool)
    of_text, wrong = parse_numbers(split[f"s{place}"])
    return np.where(np.isnan(numbers), of_text, numbers), wrong
