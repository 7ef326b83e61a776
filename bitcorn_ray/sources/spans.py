"""How many rows of which partitions files hold, from when to when, with as little read as each file allows.

1. A Parquet file that its name says all about has its rows and the ends of its times in its footer. 2. Of other Parquet
and Feather files the columns of times, symbols and timeframes are read. 3. Text is read whole, as it has to be split
into values anyway, and its numbers are checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.files import BarFile, opened_file, read_file
from bitcorn_ray.sources.formats.formats import opened_rows
from bitcorn_ray.sources.held import one_unit
from bitcorn_ray.sources.lake import names_in_path
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.times import ParsedTimes, read_times
from bitcorn_ray.storage.location import Location


@dataclass(frozen=True)
class Span:
    """Rows of a partition. first, last: the smallest and the largest time, in milliseconds UTC."""

    rows: int
    first: int
    last: int

    def joined(self, other: Span | None) -> Span:
        """Return the span of both."""
        if other is None:
            return self
        return Span(self.rows + other.rows, min(self.first, other.first), max(self.last, other.last))


def spans_of(files: Sequence[Location], reading: Reading) -> tuple[dict[Partition, Span], str, dict[str, int]]:
    """Return (the span of each partition, how times are read, rows by unit or form of their times) of some files.

    Raises BitcornError as `read_file` does; of Parquet and Feather prices and volumes are not looked at.
    """
    spans, units, hows = dict[Partition, Span](), Counter[str](), list[str]()
    for place in files:
        with opened_rows(place) as rows:
            columnar = rows.is_columnar
        found = _of_columns(place, reading, units, hows) if columnar else _of_text(place, reading, units, hows)
        for partition, span in found.items():
            spans[partition] = span.joined(spans.get(partition))
    how = hows[0] if len(set(hows)) == 1 else f"several forms: {', '.join(units)}"
    return spans, how, dict(units)


def _of_columns(place: Location, reading: Reading, units: Counter[str], hows: list[str]) -> dict[Partition, Span]:
    with opened_file(place, *names_in_path(place), reading) as file:
        if (span := _of_footer(file, units, hows)) is not None:
            return span
        codes, times = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
        for own, ms, stored in file.key_batches():
            codes.append(own)
            times.append(ms)
            _count(read_times(stored)[0], units, hows)
        for (_, reason), count in file.rejected.items():
            raise BitcornError(f"{count} rows of {file.place} {reason}: remove or complete them")
        of_row, ms = np.concatenate(codes), np.concatenate(times)
        spans = dict[Partition, Span]()
        for code in range(len(file.keys)):
            inside = ms[of_row == code]
            spans[file.partition(code)] = Span(len(inside), int(inside.min()), int(inside.max()))
        return spans


def _of_footer(file: BarFile, units: Counter[str], hows: list[str]) -> dict[Partition, Span] | None:
    if (told := file.ends()) is None:
        return None
    partition, rows, ends = told
    first, last = ends.to_pylist()
    if isinstance(first, int) and not one_unit(first, last):
        return None
    times, bad = read_times(ends)
    if bad.any():
        return None
    _count(ParsedTimes(times.ms, times.how, dict.fromkeys(times.units, rows)), units, hows)
    return {partition: Span(rows, int(times.ms[0]), int(times.ms[1]))}


def _of_text(place: Location, reading: Reading, units: Counter[str], hows: list[str]) -> dict[Partition, Span]:
    with opened_file(place, *names_in_path(place), reading) as file:
        for _, _, stored in file.key_batches():
            _count(read_times(stored)[0], units, hows)
    spans = dict[Partition, Span]()
    for partition, bars in read_file(place, *names_in_path(place), reading):
        assert bars.timestamp is not None
        spans[partition] = Span(len(bars), int(bars.timestamp.min()), int(bars.timestamp.max()))
    return spans


def _count(times: ParsedTimes, units: Counter[str], hows: list[str]) -> None:
    units.update(times.units)
    hows.append(times.how)
