"""Rows without names: what each place means, in the layouts that exchanges write.

1. 11 or 12 values are a Binance kline: open time, open, high, low, close, volume, close time, quote volume, trades, ...
2. 6 values are time, four prices, volume. Most write open, high, low, close; Bitfinex and Jesse write open, close,
   high, low. The prices say which, as no price of a bar is above its high or below its low.
3. Anything else has its places 0, 1, 2, ... for names, for a mapping to say what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.numbers import parse_numbers

__all__ = ["BINANCE", "UNORDERED", "is_data", "named_places", "ordered_prices"]

BINANCE = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades"),
    *("taker_buy_base_volume", "taker_buy_quote_volume", "ignore"),
)
UNORDERED = ("timestamp", "price_1", "price_2", "price_3", "price_4", "volume")
"""Names of six places before it is known which price is which."""

_USUAL, _CLOSE_SECOND = ("open", "high", "low", "close"), ("open", "close", "high", "low")
_MAJORITY = 10  # so many times more rows speak for one order than for the other, as real files have wrong bars


def named_places(count: int) -> list[str]:
    """Names for the places of rows without names, by how many there are."""
    if count in (len(BINANCE) - 1, len(BINANCE)):
        return list(BINANCE[:count])
    return list(UNORDERED) if count == len(UNORDERED) else [str(place) for place in range(count)]


def ordered_prices(batches: Iterable[pa.RecordBatch], where: str) -> Iterator[pa.RecordBatch]:
    """Give the four prices of unordered rows their names.

    Rows that are flat say nothing and read the same in both orders. Raises BitcornError where rows speak for both.
    """
    usual = second = 0
    decided: tuple[str, ...] | None = None
    for batch in batches:
        opened, *rest = (parse_numbers(batch.column(name))[0] for name in UNORDERED[1:5])
        is_usual = _agrees(opened, rest[2], rest[0], rest[1])
        is_second = _agrees(opened, rest[0], rest[1], rest[2])
        usual, second = usual + int((is_usual & ~is_second).sum()), second + int((is_second & ~is_usual).sum())
        order = _CLOSE_SECOND if second > usual else _USUAL
        changed, decided = decided not in (None, order), order if usual != second else decided
        if changed or min(usual, second) * _MAJORITY > max(usual, second):
            raise BitcornError(
                f"{where} has no column names, and its prices are neither in the order {', '.join(_USUAL)} "
                f"({usual} rows) nor {', '.join(_CLOSE_SECOND)} ({second} rows): write a header line"
            )
        names = [UNORDERED[0], *order, UNORDERED[5]]
        yield pa.RecordBatch.from_arrays(batch.select(UNORDERED).columns, names=names)


def _reads_as_number(text: str) -> bool:
    """Tell whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_data(fields: Sequence[str]) -> bool:
    """Tell whether a line is one of values, not of names: at least five are numbers."""
    return sum(_reads_as_number(field) for field in fields) >= 5


def _agrees(*prices: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Rows in which high is the highest and low the lowest; prices: open, close, high, low."""
    opened, close, high, low = prices
    with np.errstate(invalid="ignore"):
        return (high >= np.maximum(opened, close)) & (low <= np.minimum(opened, close)) & (high >= low)
