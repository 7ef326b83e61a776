"""Times of bars as int64 milliseconds UTC, out of any Arrow column.

1. Numbers are epochs. Each row's magnitude says its unit, since real files mix them: seconds from 1e8, milliseconds
   from 1e11, microseconds from 1e14, nanoseconds from 1e17, all of which are March 1973. Smaller numbers (times of the
   day, spreadsheet days, Julian days) are no times.
2. Numbers of 8 digits are YYYYMMDD. Those of 12 or 14 are YYYYMMDDHHMM[SS] if all numbers with so many digits are such
   dates; as epochs they would be of 1976 and after 2570.
   A number in text whose exponent has cut its digits (1.70407E+12) is none.
3. Text is parsed by its shape (see `time_text`), or by the format that the user gives. An offset (Z, +02:00) is
   applied; without one the time is of the zone that the user gives, by default UTC. Digits alone are a number written
   as text.
4. Arrow's timestamps and dates are used as they are, without a zone as those of the user's zone.
5. The hour that the end of summer time repeats belongs to summer time until the times go back, and then to winter time.

Fractions of a millisecond are cut off, except in milliseconds, where they mean that the column holds no times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.time_text import parse_format, parse_text

UNIT_BOUNDS = (("s", 0, 10**11), ("ms", 10**11, 10**14), ("us", 10**14, 10**17), ("ns", 10**17, 2**63))
"""Each unit of numbers with the range of its numbers, the end excluded."""

_LEAST_EPOCH = 10**8
_HOUR_MS = 3_600_000
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
# Dates as numbers: the form, and the factor of the year.
_COMPACT = (("YYYYMMDD", 10**4), ("YYYYMMDDHHMM", 10**8), ("YYYYMMDDHHMMSS", 10**10))
_FIRST_YEAR, _LAST_YEAR = 1900, 2100
# Numbers between dates of 12 and of 14 digits can only be milliseconds.
_PLAIN_MS = ((_LAST_YEAR + 1) * 10**8, _FIRST_YEAR * 10**10)


@dataclass(frozen=True)
class TimeForm:
    """How times are written. format: of text, as for `strptime`. zone: of times without an offset, by default UTC.

    Raises BitcornError for an unknown zone.
    """

    format: str | None = None
    zone: str | None = None

    def __post_init__(self) -> None:
        try:
            if self.zone is not None:
                ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise BitcornError(
                f"there is no time zone {self.zone!r}: give a name such as America/New_York, EST or UTC"
            ) from error

    def to_utc(self, local: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return times of the zone, written as if they were UTC, as UTC (T,), in ms; T in the order of the rows."""
        import pandas as pd

        if self.zone is None or len(local) == 0:
            return local
        naive = pd.DatetimeIndex(local.view("M8[ms]"))
        late, early = (
            naive.tz_localize(self.zone, ambiguous=np.full(len(local), is_summer), nonexistent="shift_forward")
            .tz_convert(None)
            .as_unit("ms")
            .asi8
            for is_summer in (False, True)
        )
        repeated = late != early
        if not repeated.any():
            return early
        times = local if local[0] <= local[-1] else local[::-1]
        again = repeated if local[0] <= local[-1] else repeated[::-1]
        back = np.diff(times, prepend=times[:1] - 1) <= 0
        run = np.cumsum(~again | (np.diff(times, prepend=times[:1]) < -_HOUR_MS))
        winter = pd.Series(back & again).groupby(run).cummax().to_numpy() & again
        return np.where(winter if local[0] <= local[-1] else winter[::-1], late, early)


PLAIN = TimeForm()


@dataclass(frozen=True)
class ParsedTimes:
    """T times as int64 milliseconds UTC, and how they were read.

    how: in words. units: rows by unit (s, ms, us, ns, or the form of a text or date).
    """

    ms: NDArray[np.int64]
    how: str
    units: dict[str, int]


def parse_times(column: pa.Array | pa.ChunkedArray, where: str) -> ParsedTimes:
    """Return every time of a column.

    where: names the column in errors. Raises BitcornError for missing times and for values that are no times.
    """
    if column.null_count:
        raise BitcornError(f"{column.null_count} rows of {where} have no time: remove them")
    parsed, bad = read_times(column)
    if bad.any():
        raise BitcornError(
            f"{where} holds {column[int(bad.argmax())].as_py()!r} in {int(bad.sum())} of {len(bad)} rows, which is not "
            "a time: give epochs (s, ms, us or ns), ISO text such as 2024-01-31 15:00:00, or dates such as 20240131"
        )
    return parsed


def read_times(column: pa.Array | pa.ChunkedArray, form: TimeForm = PLAIN) -> tuple[ParsedTimes, NDArray[np.bool_]]:
    """Return (the times of a column, which rows (T,) hold none); these rows have 0 in `ms` and count in no unit."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # the result of combining no chunks
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    missing = np.asarray(array.is_null())
    if pa.types.is_null(kind):
        return ParsedTimes(np.zeros(len(array), np.int64), "no times", {}), missing
    if missing.any():
        parsed, bad = read_times(array.filter(pc.is_valid(array)), form)
        ms, wrong = np.zeros(len(array), np.int64), missing.copy()
        ms[~missing], wrong[~missing] = parsed.ms, bad
        return ParsedTimes(ms, parsed.how, parsed.units), wrong
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _of_timestamps(array, form)
    if pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return _of_numbers(array.to_numpy(zero_copy_only=False))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _of_text(array, form)
    return ParsedTimes(np.zeros(len(array), np.int64), f"{kind} is no time", {}), np.ones(len(array), bool)


def milliseconds(times: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return epochs in any unit as int64 milliseconds UTC.

    where: names the column in errors. Raises BitcornError for values that are not numbers, for milliseconds with
    fractions, and for numbers too small for an epoch.
    """
    if times.dtype.kind not in "iuf":
        if len(times) == 0:
            return np.zeros(0, np.int64)
        raise BitcornError(f"{where} holds {times[0]!r}: times must be numbers, epoch seconds or milliseconds")
    parsed, bad = _of_numbers(times)
    if bad.any():
        first = times[bad][0]
        if not np.isfinite(first):
            raise BitcornError(f"{where} holds {first}, which is not finite: remove these rows")
        raise BitcornError(f"{where} holds {first}: times must be epochs, in whole milliseconds where that is the unit")
    return parsed.ms


def _of_numbers(times: NDArray[Any]) -> tuple[ParsedTimes, NDArray[np.bool_]]:
    wide: NDArray[Any] = times.astype(np.float64 if times.dtype.kind == "f" else np.int64, copy=False)
    if len(wide) == 0:
        return ParsedTimes(np.zeros(0, np.int64), "no times", {}), np.zeros(0, bool)
    low, high = wide.min(), wide.max()
    if wide.dtype == np.int64 and _PLAIN_MS[0] <= low and high < _PLAIN_MS[1]:
        return ParsedTimes(wide, _in_words({"ms": len(wide)}), {"ms": len(wide)}), np.zeros(len(wide), bool)
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(wide) & (wide >= 0) & (wide < UNIT_BOUNDS[-1][2]))
    usable = np.where(bad, 0, wide)
    ms, units = np.zeros(len(wide), np.int64), dict[str, int]()
    left = ~bad
    for form, rows, dates in _dates(usable):
        ms[rows], units[form] = dates, len(dates)
        left[rows] = False
    for (unit, first, end), factor in zip(UNIT_BOUNDS, (1000.0, 1.0, 1e-3, 1e-6), strict=True):
        rows = left & (usable >= max(first, _LEAST_EPOCH)) & (usable < end)
        if not rows.any():
            continue
        ms[rows], wrong = _scaled(usable[rows], unit, factor)
        if wrong.any():
            bad[np.flatnonzero(rows)[wrong]] = True
        if count := int(len(wrong) - wrong.sum()):
            units[unit] = count
    bad |= left & (usable < _LEAST_EPOCH)
    ms[bad] = 0
    return ParsedTimes(ms, _in_words(units), units), bad


def _scaled(numbers: NDArray[Any], unit: str, factor: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return milliseconds, and which numbers are invalid because of a fraction."""
    if numbers.dtype == np.int64:
        ms = numbers * int(factor) if factor >= 1 else numbers // round(1 / factor)
        return ms, np.zeros(len(ms), bool)
    scaled = numbers * factor
    whole = np.round(scaled) if unit in ("s", "ms") else np.floor(scaled)
    # Decimal seconds are not exact in binary: up to a hundredth of a millisecond is rounding.
    wrong = np.abs(scaled - whole) > 0.01 if unit in ("s", "ms") else np.zeros(len(numbers), bool)
    return whole.astype(np.int64), wrong


def _dates(numbers: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (form, rows, times) of each form of dates written as numbers."""
    for form, after_year in _COMPACT:
        rows = np.flatnonzero((numbers >= _FIRST_YEAR * after_year) & (numbers < (_LAST_YEAR + 1) * after_year))
        if len(rows) == 0 or (numbers[rows] != np.floor(numbers[rows])).any():
            continue
        times, wrong, _, _ = parse_text(pa.array(numbers[rows].astype(np.int64)).cast(pa.string()))
        may_differ = form == "YYYYMMDD"  # other numbers of 8 digits are no epochs either
        if not wrong.any() or (may_differ and not wrong.all()):
            yield form, rows[~wrong], times[~wrong]


def _of_text(array: pa.Array, form: TimeForm) -> tuple[ParsedTimes, NDArray[np.bool_]]:
    array = array.cast(pa.string())
    ms, bad, local, units = parse_text(array) if form.format is None else parse_format(array, form.format)
    if form.zone is not None:
        ms[local] = form.to_utc(ms[local])
    # Digits that are no date, and numbers with a point or exponent, are epochs.
    if bad.any():
        rows = np.flatnonzero(bad)
        numbers, is_number = _numbers_of(array.take(pa.array(rows)))
        if is_number.any():
            parsed, wrong = _of_numbers(numbers[is_number])
            of = rows[is_number]
            ms[of], bad[of] = parsed.ms, wrong
            units |= parsed.units
    zone = form.zone or "UTC"
    how = f"text, {_listed(units)}, as {zone} where it has no offset" if units else "text that is no time"
    return ParsedTimes(ms, how, units), bad


def _numbers_of(array: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the numbers of texts, and which texts are numbers; integers stay exact."""
    trimmed = pc.utf8_trim_whitespace(array)
    if pc.all(pc.match_substring_regex(trimmed, r"^[0-9]{1,18}$")).as_py():
        return trimmed.cast(pa.int64()).to_numpy(), np.ones(len(array), bool)
    is_number = np.asarray(pc.match_substring_regex(trimmed, r"^[0-9]+(\.[0-9]*)?([eE][+]?[0-9]+)?$"))
    # A spreadsheet shows six digits of an epoch.
    is_number &= ~np.asarray(pc.match_substring_regex(trimmed, r"^[0-9]\.[0-9]{0,5}[eE][+]?(9|1[0-9])$"))
    numbers = np.zeros(len(array))
    numbers[is_number] = trimmed.filter(pa.array(is_number)).cast(pa.float64()).to_numpy()
    return numbers, is_number


def _of_timestamps(array: pa.Array, form: TimeForm) -> tuple[ParsedTimes, NDArray[np.bool_]]:
    kind = array.type
    zone = getattr(kind, "tz", None)
    local = zone is None and not pa.types.is_date(kind)
    if pa.types.is_date(kind):
        array = array.cast(pa.timestamp("ms"))
    ticks = array.cast(pa.int64()).to_numpy()
    unit = array.type.unit
    ms = ticks * 1000 if unit == "s" else ticks // {"ms": 1, "us": 1000, "ns": 1_000_000}[unit]
    if local:
        ms = form.to_utc(ms)
    assumed = f"no zone, as {form.zone or 'UTC'}"
    how = "dates, as UTC midnight" if pa.types.is_date(kind) else f"timestamps in {zone or assumed}"
    return ParsedTimes(ms, how, {str(kind): len(array)} if len(array) else {}), np.zeros(len(array), bool)


def _in_words(units: dict[str, int]) -> str:
    """Describe the units and forms of numbers."""
    named = {_UNIT_NAMES.get(unit, unit): rows for unit, rows in units.items()}
    if len(units) == 1:
        (unit,) = units
        return f"epoch {named.popitem()[0]}, by magnitude" if unit in _UNIT_NAMES else f"numbers, {unit}, as UTC"
    return f"epochs, {_listed(named)}, by each row's magnitude" if units else "no times"


def _listed(units: dict[str, int]) -> str:
    if len(units) == 1:
        return next(iter(units))
    return " and ".join(f"{rows:,} {unit}" for unit, rows in units.items())
