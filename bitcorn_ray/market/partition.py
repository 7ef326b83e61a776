"""A partition (one symbol x timeframe): how its name is written, compared and found in a file name.

Timeframes are ``<n>m|h|d|w``, lower case. ``1M`` is a month on every exchange and has no fixed length: refused.
Symbols compare without case and separators (``BTC/USDT``, ``btc-usdt``, ``BTCUSDT``) and are shown as stored; a
settlement suffix (``BTC/USDT:USDT``, a future) is another market and keeps its colon.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.names import said_by_name, timeframe_word

__all__ = [
    "Partition",
    "normalise_symbol",
    "partition_of_file",
    "same_timeframe",
    "select_partitions",
    "stored_step",
    "timeframe_ms",
    "timeframe_of_ms",
]

_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_TIMEFRAME = re.compile(r"([1-9][0-9]{0,4})([mhdw])")


@dataclass(frozen=True, order=True)
class Partition:
    """One symbol x timeframe, both as stored at the source.

    base: the timeframe of the stored bars that this one is put together from; None for one that is stored itself.
    """

    symbol: str
    timeframe: str
    base: str | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe}"


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
    return int(match[1]) * _UNIT_MS[match[2]]


def timeframe_of_ms(step: int) -> str:
    """Return the usual name of a step in milliseconds.

    >>> timeframe_of_ms(3_600_000)
    '1h'

    Raises BitcornError where no whole number of minutes is given.
    """
    for unit in ("w", "d", "h", "m"):
        if step >= _UNIT_MS[unit] and step % _UNIT_MS[unit] == 0:
            return f"{step // _UNIT_MS[unit]}{unit}"
    raise BitcornError(f"bars are {step} ms apart, which is no timeframe: pass the timeframe")


def normalise_symbol(symbol: str) -> str:
    """Return the form in which two spellings of one symbol are equal.

    >>> normalise_symbol("btc-usdt") == normalise_symbol("BTC/USDT") == "BTCUSDT"
    True
    """
    return re.sub(r"[/\-_\s]", "", symbol).upper()


def select_partitions(
    partitions: Sequence[Partition], symbols: Sequence[str] | None, timeframes: Sequence[str] | None
) -> list[Partition]:
    """Keep the partitions of the given symbols and timeframes; None keeps all.

    Raises BitcornError for a symbol or timeframe that none has, naming those that exist.
    """
    kept = list(partitions)
    if symbols is not None:
        exist = {normalise_symbol(p.symbol) for p in partitions}
        wanted = {normalise_symbol(symbol) for symbol in symbols}
        if unknown := sorted(wanted - exist):
            there = ", ".join(sorted({p.symbol for p in partitions}))
            raise BitcornError(f"unknown symbol {', '.join(unknown)}: there is {there}")
        kept = [p for p in kept if normalise_symbol(p.symbol) in wanted]
    if timeframes is not None:
        for timeframe in timeframes:
            if not any(same_timeframe(p.timeframe, timeframe) for p in kept):
                there = ", ".join(sorted({p.timeframe for p in kept}))
                raise BitcornError(f"no bars of timeframe {timeframe}: there is {there}")
        kept = [p for p in kept if any(same_timeframe(p.timeframe, timeframe) for timeframe in timeframes)]
    return kept


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


def partition_of_file(path: str | Path) -> tuple[str | None, str | None]:
    """Symbol and timeframe where a file name says them (``BTCUSDT_1h.parquet``), else None for each.

    >>> partition_of_file("bars/BTCUSDT_1h.parquet")
    ('BTCUSDT', '1h')
    >>> partition_of_file("market.db")
    (None, None)

    Raises BitcornError for a month (``BTCUSDT_1M.csv``).
    """
    named = said_by_name(Path(path).name.split(".")[0])
    if named.month and named.symbol:
        timeframe_ms(named.month)
    return None if named.perhaps else named.symbol, named.timeframe
