"""Rows without names: what each place means, in the layouts that exchanges write.

1. 11 or 12 values are a Binance kline: open time, open, high, low, close, volume, close time, quote volume, trades, ...
2. 6 values are time, four prices, volume. Most write open, high, low, close; Bitfinex and Jesse write open, close,
   high, low; Coinbase low, high, open, close. The prices say which, as no price of a bar is above its high or below its
   low.
3. Anything else has its places 0, 1, 2, ... for names, for a mapping to say what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.numbers import parse_numbers

BINANCE = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades"),
    *("taker_buy_base_volume", "taker_buy_quote_volume", "ignore"),
)
UNORDERED = ("timestamp", "price_1", "price_2", "price_3", "price_4", "volume")
"""Names of six places before it is known which price is which."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# How many values make which places known.
_PLACES = {len(UNORDERED): UNORDERED, len(BINANCE) - 1: BINANCE[:-1], len(BINANCE): BINANCE}
# Orders of four prices. No two have both the high and the low at the same places: nothing tells an open from a close.
_ORDERS = (("open", "high", "low", "close"), ("open", "close", "high", "low"), ("low", "high", "open", "close"))
_MAJORITY = 10  # so many times more rows speak for one order than for another, as real files have wrong bars


def named_places(count: int) -> list[str]:
    """Names for the places of rows without names, by how many there are."""
    return list(_PLACES.get(count) or map(str, range(count)))


def ordered_prices(batches: Iterable[pa.RecordBatch], where: str) -> Iterator[pa.RecordBatch]:
    """Give the four prices of unordered rows their names.

    A row speaks for an order if it can have no other; flat rows speak for none. Raises BitcornError where rows speak
    for several, and where most can have none.
    """
    votes, against = np.zeros(len(_ORDERS), np.int64), 0
    decided: tuple[str, ...] | None = None
    for batch in batches:
        prices = [parse_numbers(batch.column(name))[0] for name in UNORDERED[1:5]]
        agrees = np.array([_agrees(**dict(zip(order, prices, strict=True))) for order in _ORDERS])
        votes += (agrees & (agrees.sum(0) == 1)).sum(1)
        against += int((np.isfinite(prices).all(0) & ~agrees.any(0)).sum())
        best, second = np.sort(votes)[:-3:-1].tolist()
        order = _ORDERS[int(votes.argmax())]
        changed, decided = decided not in (None, order), order if best else decided
        if changed or second * _MAJORITY > best or against > best:
            told = ", ".join(f"{'-'.join(order)} ({rows})" for order, rows in zip(_ORDERS, votes.tolist(), strict=True))
            raise BitcornError(
                f"{where} has no column names, and too few of its rows speak for one order of prices: {told}, none of "
                f"these ({against}): write a header line"
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


def _agrees(*, open: Floats, high: Floats, low: Floats, close: Floats) -> Mask:
    """Rows in which high is the highest and low the lowest."""
    with np.errstate(invalid="ignore"):
        return (high >= np.maximum(open, close)) & (low <= np.minimum(open, close)) & (high >= low)
