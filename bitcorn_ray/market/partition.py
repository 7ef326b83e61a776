"""A partition (one symbol x timeframe): how its symbol is compared, and how it is found in a file name.

Symbols compare without case and separators (``BTC/USDT``, ``btc-usdt``, ``BTCUSDT``) and are shown as stored; a
settlement suffix (``BTC/USDT:USDT``, a future) is another market and keeps its colon.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.names import ParsedName, parse_name, without_endings
from bitcorn_ray.market.timeframe import same_timeframe, stored_step


@dataclass(frozen=True, order=True)
class Partition:
    """One symbol x timeframe, both as stored in the source.

    base: the timeframe of the stored bars that this one is resampled from; None if it is stored itself.
    """

    symbol: str
    timeframe: str
    base: str | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe}"


def normalise_symbol(symbol: str) -> str:
    """Return the form in which two spellings of one symbol are equal.

    >>> normalise_symbol("btc-usdt") == normalise_symbol("BTC/USDT") == "BTCUSDT"
    True
    """
    return re.sub(r"[/\-_\s]", "", symbol).upper()


def identity_of(partition: Partition) -> tuple[str, object]:
    """Return what is equal for two spellings of one partition."""
    return normalise_symbol(partition.symbol), stored_step(partition.timeframe) or partition.timeframe


def is_requested(partition: Partition, symbols: Sequence[str] | None, timeframes: Sequence[str] | None) -> bool:
    """Return True if a partition is among the requested symbols and timeframes; None requests all."""
    symbol = normalise_symbol(partition.symbol)
    return (symbols is None or symbol in map(normalise_symbol, symbols)) and (
        timeframes is None or any(same_timeframe(partition.timeframe, requested) for requested in timeframes)
    )


def select_partitions(
    partitions: Sequence[Partition], symbols: Sequence[str] | None, timeframes: Sequence[str] | None
) -> list[Partition]:
    """Return the partitions of the requested symbols and timeframes; None requests all.

    Raises BitcornError for a symbol or timeframe that does not exist, with those that do.
    """
    kept = list(partitions)
    if symbols is not None:
        requested = {normalise_symbol(symbol) for symbol in symbols}
        if unknown := sorted(requested - {normalise_symbol(partition.symbol) for partition in partitions}):
            known = ", ".join(sorted({partition.symbol for partition in partitions}))
            raise BitcornError(f"unknown symbol {', '.join(unknown)}: there is {known}")
        kept = [partition for partition in kept if normalise_symbol(partition.symbol) in requested]
    for timeframe in timeframes or ():
        if not any(same_timeframe(partition.timeframe, timeframe) for partition in kept):
            known = ", ".join(sorted({partition.timeframe for partition in kept}))
            raise BitcornError(f"no bars of timeframe {timeframe}: there is {known}")
    return [partition for partition in kept if is_requested(partition, None, timeframes)]


def partition_of_file(path: str | Path) -> tuple[str | None, str | None]:
    """Return symbol and timeframe of a file name (``BTCUSDT_1h.parquet``), None for what it does not contain.

    >>> partition_of_file("bars/BTCUSDT_1h.parquet")
    ('BTCUSDT', '1h')
    >>> partition_of_file("market.db")
    (None, None)

    Raises BitcornError for a month (``BTCUSDT_1M.csv``) and for an option.
    """
    parsed = parse_file_name(path)
    return None if parsed.uncertain else parsed.symbol, parsed.timeframe


def parse_file_name(path: str | Path) -> ParsedName:
    """Return all that a file name says; raises as `partition_of_file` does."""
    name = Path(path).name
    parsed = parse_name(without_endings(name))
    if parsed.month and parsed.symbol:
        raise BitcornError(f"{name} holds bars of a month ({parsed.month}), which has no fixed length: leave it out")
    if parsed.option:
        raise BitcornError(f"{name} holds bars of an option, which ends before a model could learn it: leave it out")
    return parsed
