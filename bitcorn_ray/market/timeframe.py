"""Timeframes: ``<n>m|h|d|w``, lower case, and the other ways in which databases write them.

``1M`` is a month on every exchange and has no fixed length: refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bitcorn_ray.errors import BitcornError

# Milliseconds.
UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_WEEK_MS, _MONDAY_MS = UNIT_MS["w"], 4 * UNIT_MS["d"]  # the epoch was a Thursday
_TIMEFRAME = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_TIMEFRAME_WORD = re.compile(
    r"([1-9][0-9]{0,4}) ?(m|min|mins|minute|minutes|t|h|hr|hrs|hour|hours|d|day|days|w|wk|week|weeks)", re.IGNORECASE
)
_LETTER_FIRST = re.compile(r"(?:PERIOD_)?([MHDW])([1-9][0-9]{0,2})")  # MetaTrader; its month is MN1
_LONE = {
    **{"minute": "1m", "minutely": "1m", "h": "1h", "hour": "1h", "hourly": "1h"},
    **{"d": "1d", "day": "1d", "daily": "1d", "w": "1w", "week": "1w", "weekly": "1w"},
    # Coinbase
    **{"one_minute": "1m", "five_minute": "5m", "fifteen_minute": "15m", "thirty_minute": "30m"},
    **{"one_hour": "1h", "two_hour": "2h", "four_hour": "4h", "six_hour": "6h", "one_day": "1d"},
}
_UNIT = {"t": "m"}
# What a bare number may mean: so many minutes, seconds or milliseconds.
_MINUTES = {1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1_440, 4_320, 10_080}


def timeframe_ms(timeframe: str) -> int:
    """Length of a timeframe in milliseconds.

    >>> timeframe_ms("4h")
    14400000

    Raises BitcornError for anything that is not ``<n>m|h|d|w``, a month (``1M``) included.
    """
    text = timeframe.strip()
    if text.endswith("M"):
        raise BitcornError(f"timeframe {timeframe!r} is a month, which has no fixed length: use minutes ('1m') to '1w'")
    match = _TIMEFRAME.fullmatch(text.lower())
    if match is None:
        raise BitcornError(f"unknown timeframe {timeframe!r}: write a number and m, h, d or w, such as 15m, 1h or 1d")
    return int(match[1]) * UNIT_MS[match[2]]


def period_offset(length: int) -> int:
    """Return a time, in ms, at which a period of a length in ms begins: weeks on Monday, others at midnight UTC."""
    return 0 if length % _WEEK_MS else _MONDAY_MS


def timeframe_of_ms(step: int) -> str:
    """Return the usual name of a step in milliseconds.

    >>> timeframe_of_ms(3_600_000)
    '1h'

    Raises BitcornError where no whole number of minutes is given.
    """
    for unit in ("w", "d", "h", "m"):
        if step >= UNIT_MS[unit] and step % UNIT_MS[unit] == 0:
            return f"{step // UNIT_MS[unit]}{unit}"
    raise BitcornError(f"bars are {step} ms apart, which is no timeframe: pass the timeframe")


def timeframe_word(text: str) -> str | None:
    """Return the timeframe that a stored text means, such as `15min`, `1Hour`, `H4` or `D`, as we write it; else None.

    >>> timeframe_word("60min"), timeframe_word("D"), timeframe_word("1M")
    ('60m', '1d', None)
    """
    text = text.strip()
    if lone := _LONE.get(text.lower()):
        return lone
    if letter_first := _LETTER_FIRST.fullmatch(text):
        return f"{letter_first[2]}{letter_first[1].lower()}"
    match = _TIMEFRAME_WORD.fullmatch(text)
    if match is None or text.endswith("M"):
        return None
    unit = match[2][0].lower()
    return f"{match[1]}{_UNIT.get(unit, unit)}"


def same_timeframe(stored: str, asked: str) -> bool:
    """Tell whether a stored timeframe, in any spelling, is the asked one; one that is none (a month) is no match.

    Raises BitcornError where the asked one is none.
    """
    return stored_step(stored) == timeframe_ms(asked)


def stored_step(text: str) -> int | None:
    """Length of a timeframe as a database may write it (`1Hour`, `15min`, `D`), in milliseconds; None for no timeframe.

    >>> stored_step("15min"), stored_step("1M")
    (900000, None)
    """
    word = timeframe_word(text)
    return None if word is None else timeframe_ms(word)


def numeric_steps(value: object) -> list[int]:
    """Milliseconds that a bare number may mean as a timeframe: minutes, seconds or milliseconds; none for others.

    >>> numeric_steps("60"), numeric_steps(3600)
    ([60000, 3600000], [3600000])
    """
    try:
        number = int(str(value))
    except ValueError:
        return []
    steps = [number * factor for factor in (1, 1_000, 60_000)]
    return [step for step in steps if step % 60_000 == 0 and step // 60_000 in _MINUTES]


def meant_step(steps: Sequence[int], distance: int) -> int:
    """Return which of several steps a bare number means: that of the bars' distance, else minutes.

    >>> meant_step(numeric_steps(60), 60_000)
    60000
    """
    return distance if distance in steps else steps[-1]
