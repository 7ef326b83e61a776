"""Rows as a file holds them, before the meaning of its columns is known: what every format returns.

A format is a function that opens a file as `RawRows`; `formats` finds the one that fits. Rows without column names get
names by the layouts that exchanges write:

1. 11 or 12 values are a Binance kline if they fit: open time, open, high, low, close, volume, close time, ...
2. 6 values are time, four prices, volume. Most write open, high, low, close; Bitfinex and Jesse write open, close,
   high, low; Coinbase low, high, open, close. The prices decide: no price of a bar is above its high or below its low.
3. 7 values that start with a date and a time of day are those, four prices and a volume, as MetaTrader exports.
4. Columns of anything else are named 0, 1, 2, ..., for a mapping to say what they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.columns import TOGETHER
from bitcorn_ray.sources.numbers import parse_numbers

BINANCE = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades"),
    *("taker_buy_base_volume", "taker_buy_quote_volume", "ignore"),
)
UNORDERED = ("timestamp", "price_1", "price_2", "price_3", "price_4", "volume")
"""Names of six columns before it is known which price is which."""

METATRADER = ("date", "time", "open", "high", "low", "close", "volume")
_DATE = re.compile(r"[0-9]{4}[-./]?[0-9]{2}[-./]?[0-9]{2}|[0-9]{1,2}[-./][0-9]{1,2}[-./][0-9]{4}")
_TIME_OF_DAY = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?|[0-9]{6}")
_SAMPLE_ROWS = 100
# Orders of four prices. No two have both high and low at the same positions: nothing tells an open from a close.
_ORDERS = (("open", "high", "low", "close"), ("open", "close", "high", "low"), ("low", "high", "open", "close"))
_MAJORITY = 10  # real files have wrong bars

Read = Callable[[Sequence[str], Sequence[str]], Iterator[pa.RecordBatch]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RawRows:
    """Rows of a file. names: of its columns.

    read: yields batches with at least the given columns; call it once. Its first argument names the columns of numbers,
    its second those that are wanted as they are stored, as text if the format is text. is_columnar: reading few columns
    costs less than reading all, and numbers are stored as numbers. symbol: that the file itself says of all its rows.
    """

    names: list[str]
    read: Read
    is_columnar: bool = False
    symbol: str | None = None


def with_columns_together(rows: RawRows) -> RawRows:
    """Return rows that can be asked for two columns together, as text, by a name such as Date+Time."""

    def read(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        parts = {name: name.split(TOGETHER) for name in texts if name not in rows.names and TOGETHER in name}
        plain = [name for name in texts if name not in parts]
        stored = [part for names in parts.values() for part in names if part not in plain]
        for batch in rows.read(numbers, [*plain, *stored]):
            for name, (first, second) in parts.items():
                words = [pc.utf8_trim_whitespace(batch.column(part).cast(pa.string())) for part in (first, second)]
                batch = batch.append_column(name, pc.binary_join_element_wise(*words, " "))
            yield batch

    return replace(rows, read=read)


def default_names(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return names for rows without names. rows: the first ones, of equal length."""
    count, sample = len(rows[0]), rows[:_SAMPLE_ROWS]
    if count == len(UNORDERED):
        return list(UNORDERED)
    if count in (len(BINANCE) - 1, len(BINANCE)) and all(map(_is_kline, sample)):
        return list(BINANCE[:count])
    if count == len(METATRADER) and all(_starts_with_day(row) for row in sample):
        return list(METATRADER)
    return list(map(str, range(count)))


def _is_kline(row: Sequence[Any]) -> bool:
    """Return True if a row can be a Binance kline: it closes after it opens, and its prices are in order."""
    if not all(_is_number(value) for value in row[:9]):
        return False
    opened, open, high, low, close, volume, closed, quote, _ = map(float, row[:9])
    between = low * volume <= quote * 1.01 and quote <= high * volume * 1.01  # the exchange rounds
    return opened < closed and low <= min(open, close) and max(open, close) <= high and between


def _starts_with_day(row: Sequence[Any]) -> bool:
    return bool(_DATE.fullmatch(str(row[0])) and _TIME_OF_DAY.fullmatch(str(row[1])))


def is_data(fields: Sequence[str]) -> bool:
    """Return True if a line holds values rather than names: at least five are numbers."""
    return sum(_is_number(field) for field in fields) >= 5


def named_rows(names: list[str], read: Read, where: str) -> RawRows:
    """Return rows whose names may come from `default_names`; prices of `UNORDERED` rows get the order that they show.

    names, read: as in `RawRows`. where: name of the file for messages.
    """
    if names != list(UNORDERED):
        return RawRows(names, read)

    def ordered(numbers: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return ordered_prices(read(UNORDERED[1:], UNORDERED[:1]), where)

    return RawRows(["timestamp", "open", "high", "low", "close", "volume"], ordered)


def ordered_prices(batches: Iterable[pa.RecordBatch], where: str) -> Iterator[pa.RecordBatch]:
    """Name the four prices of unordered rows.

    A row votes for an order if it fits no other; flat rows do not vote. Raises BitcornError if rows vote for several
    orders, and if most fit none.
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
            counts = ", ".join(
                f"{'-'.join(order)} ({rows})" for order, rows in zip(_ORDERS, votes.tolist(), strict=True)
            )
            raise BitcornError(
                f"{where} has no column names, and too few of its rows fit one order of prices: {counts}, none of "
                f"these ({against}): write a header line"
            )
        names = [UNORDERED[0], *order, UNORDERED[5]]
        yield pa.RecordBatch.from_arrays(batch.select(UNORDERED).columns, names=names)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _agrees(*, open: Floats, high: Floats, low: Floats, close: Floats) -> NDArray[np.bool_]:
    """Return the rows in which high is the highest and low the lowest price."""
    with np.errstate(invalid="ignore"):
        return (high >= np.maximum(open, close)) & (low <= np.minimum(open, close)) & (high >= low)
