"""Columns of a SQLite table whose values may be of several types: numbers as numbers and text as text.

SQLite gives each value a type of its own, and Arrow each column. A column of several types is selected twice, so that
no digit is lost: its numbers as `n<index>`, its text as `s<index>`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.sources.numbers import parse_numbers
from bitcorn_ray.sources.times import PLAIN, UNIT_BOUNDS, ParsedTimes, TimeForm, read_times


def split_column(column: str, index: int) -> str:
    """Return SQL that selects the numbers of a column as `n<index>` and its text as `s<index>`."""
    return (
        f"CASE WHEN typeof({column}) NOT IN ('text', 'blob') THEN {column} END AS n{index}, "
        f"CASE typeof({column}) WHEN 'text' THEN {column} WHEN 'blob' THEN quote({column}) END AS s{index}"
    )


def merged_times(split: pa.Table, index: int = 0, form: TimeForm = PLAIN) -> tuple[ParsedTimes, NDArray[np.bool_]]:
    """Return the times of a split column, and which rows have none; see `read_times`."""
    numbers, text = split[f"n{index}"], split[f"s{index}"]
    if text.null_count == len(text):
        return read_times(numbers, form)
    if numbers.null_count == len(numbers):
        return read_times(text, form)
    (first, not_first), (second, not_second) = read_times(numbers, form), read_times(text, form)
    units = dict(first.units)
    for unit, rows in second.units.items():
        units[unit] = units.get(unit, 0) + rows
    how = f"{first.how}; {second.how}"
    return ParsedTimes(np.where(not_first, second.ms, first.ms), how, units), not_first & not_second


def merged_numbers(split: pa.Table, index: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the numbers of a split column, and which rows hold something else; see `parse_numbers`."""
    numbers, _ = parse_numbers(split[f"n{index}"])
    if split[f"s{index}"].null_count == len(split):
        return numbers, np.zeros(len(split), bool)
    from_text, wrong = parse_numbers(split[f"s{index}"])
    return np.where(np.isnan(numbers), from_text, numbers), wrong


def one_unit(first: object, last: object) -> bool:
    """Return True if all times between the smallest and the largest of a column are numbers of one unit.

    >>> one_unit(1_502_942_400, 1_502_942_400_000)
    False
    """
    if not (isinstance(first, int | float) and isinstance(last, int | float)):
        return False
    return any(low <= first and last < high for _, low, high in UNIT_BOUNDS)
