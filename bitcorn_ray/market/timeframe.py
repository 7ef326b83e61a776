"""Timeframes: ``<n>m|h|d|w``, lower case, and the other spellings of databases.

``1M`` is a month on every exchange. It has no fixed length and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bitcorn_ray.errors import BitcornError

UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
"""Milliseconds."""

_MONDAY_MS = 4 * UNIT_MS["d"]  # the epoch was a Thursday
_TIMEFRAME = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_SPELLING = re.compile(
    r"([1-9][0-9]{0,4}) ?(m|min|mins|minute|minutes|t|h|hr|hrs|hour|hours|d|day|days|w|wk|week|weeks)", re.IGNORECASE
)
_METATRADER = re.compile(r"(?:PERIOD_)?([MHDW])([1-9][0-9]{0,2})")  # its month is MN1
_NAMES = {
    **{"minute": "1m", "minutely": "1m", "h": "1h", "hour": "1h", "hourly": "1h"},
    **{"d": "1d", "day": "1d", "daily": "1d", "w": "1w", "week": "1w", "weekly": "1w"},
    # Coinbase
    **{"one_minute": "1m", "five_minute": "5m", "fifteen_minute": "15m", "thirty_minute": "30m"},
    **{"one_hour": "1h", "two_hour": "2h", "four_hour": "4h", "six_hour": "6h", "one_day": "1d"},
}
_USUAL_MINUTES = {1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 1_440, 4_320, 10_080}


def timeframe_ms(timeframe: str) -> int:
    """Return the length of a timeframe in milliseconds.

    >>> timeframe_ms("4h")
    14400000

    Raises BitcornError for anything but ``<n>m|h|d|w``, also for a month (``1M``).
    """
    text = timeframe.strip()
    if text.endswith("M"):
        raise BitcornError(f"timeframe {timeframe!r} is a month, which has no fixed length: use minutes ('1m') to '1w'")
    match = _TIMEFRAME.fullmatch(text.lower())
    if match is None:
        raise BitcornError(f"unknown timeframe {timeframe!r}: write a number and m, h, d or w, such as 15m, 1h or 1d")
    return int(match[1]) * UNIT_MS[match[2]]


def timeframe_of_ms(step: int) -> str:
    """Return the usual name of a step in milliseconds.

    >>> timeframe_of_ms(3_600_000)
    '1h'

    Raises BitcornError if it is no whole number of minutes.
    """
    for unit in ("w", "d", "h", "m"):
        if step >= UNIT_MS[unit] and step % UNIT_MS[unit] == 0:
            return f"{step // UNIT_MS[unit]}{unit}"
    raise BitcornError(f"bars are {step} ms apart, which is no timeframe: pass the timeframe")


def period_offset(length: int) -> int:
    """Return a time, in ms, at which a period of a length in ms begins: weeks on Monday, others at midnight UTC."""
    return 0 if length % UNIT_MS["w"] else _MONDAY_MS


def timeframe_word(text: str) -> str | None:
    """Return the timeframe that a stored text such as `15min`, `1Hour`, `H4` or `D` stands for, or None.

    >>> timeframe_word("60min"), timeframe_word("D"), timeframe_word("1M")
    ('60m', '1d', None)
    """
    text = text.strip()
    if name := _NAMES.get(text.lower()):
        return name
    if metatrader := _METATRADER.fullmatch(text):
        return f"{metatrader[2]}{metatrader[1].lower()}"
    match = _SPELLING.fullmatch(text)
    if match is None or text.endswith("M"):
        return None
    unit = match[2][0].lower()
    return f"{match[1]}{'m' if unit == 't' else unit}"


def stored_step(text: str) -> int | None:
    """Return the length of a stored timeframe (`1Hour`, `15min`, `D`) in milliseconds; None for no timeframe.

    >>> stored_step("15min"), stored_step("1M")
    (900000, None)
    """
    word = timeframe_word(text)
    return None if word is None else timeframe_ms(word)


def same_timeframe(stored: str, requested: str) -> bool:
    """Return True if a stored timeframe, in any spelling, is the requested one.

    Raises BitcornError if the requested one is no timeframe.
    """
    return stored_step(stored) == timeframe_ms(requested)


def numeric_steps(value: object) -> list[int]:
    """Return the milliseconds that a number may mean as a timeframe (ms, seconds or minutes); none for other values.

    >>> numeric_steps("60"), numeric_steps(3600)
    ([60000, 3600000], [3600000])
    """
    try:
        number = int(str(value))
    except ValueError:
        return []
    steps = [number * factor for factor in (1, 1_000, UNIT_MS["m"])]
    return [step for step in steps if step % UNIT_MS["m"] == 0 and step // UNIT_MS["m"] in _USUAL_MINUTES]


def choose_step(steps: Sequence[int], distance: int) -> int:
    """Return the step of `numeric_steps` that equals the distance of the bars, else the one in minutes.

    >>> choose_step(numeric_steps(60), 60_000)
    60000
    """
    return distance if distance in steps else steps[-1]
