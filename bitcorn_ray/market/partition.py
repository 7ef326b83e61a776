"""A partition (one symbol x timeframe): how its name is written, compared and found in a file name.

Symbols compare without case and separators (``BTC/USDT``, ``btc-usdt``, ``BTCUSDT``) and are shown as stored; a
settlement suffix (``BTC/USDT:USDT``, a future) is another market and keeps its colon.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.names import said_by_name
from bitcorn_ray.market.timeframe import same_timeframe


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


def normalise_symbol(symbol: str) -> str:
    """Return the form in which two spellings of one symbol are equal.

    >>> normalise_symbol("btc-usdt") == normalise_symbol("BTC/USDT") == "BTCUSDT"
    True
    """
    return re.sub(r"[/\-_\s]", "", symbol).upper()


def is_requested(partition: Partition, symbols: Sequence[str] | None, timeframes: Sequence[str] | None) -> bool:
    """Return True if a partition is among the requested symbols and timeframes."""
    symbol = normalise_symbol(partition.symbol)
    return (symbols is None or symbol in map(normalise_symbol, symbols)) and (
        timeframes is None or any(same_timeframe(partition.timeframe, requested) for requested in timeframes)
    )


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
        what = f"bars of a month ({named.month}), which has no fixed length"
        raise BitcornError(f"{Path(path).name} holds {what}: leave it out")
    return None if named.perhaps else named.symbol, named.timeframe
