import numpy as np
import pyarrow as pa
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.formats.rows import BINANCE, UNORDERED, default_names, is_data, ordered_prices

USUAL = ["timestamp", "open", "high", "low", "close", "volume"]
LOW_FIRST = ["timestamp", "low", "high", "open", "close", "volume"]
SECOND = ["timestamp", "open", "close", "high", "low", "volume"]


def batch(bars, names):
    columns = {"timestamp": bars.timestamp, **bars.columns()}
    return pa.RecordBatch.from_arrays([pa.array(columns[name]) for name in names], names=list(UNORDERED))


@pytest.mark.parametrize("names", [USUAL, SECOND, LOW_FIRST])
def test_the_prices_say_their_order(random_bars, names):
    bars = random_bars(50)
    [read] = ordered_prices([batch(bars, names)], "x")
    assert {name: read.column(name).to_numpy().tolist() for name in USUAL} == {
        name: column.tolist() for name, column in bars.columns().items()
    }


def test_flat_rows_say_nothing_and_a_wrong_bar_decides_nothing(random_bars):
    bars = random_bars(60)
    bars.high[7] = bars.low[7] / 2
    flat = pa.RecordBatch.from_arrays([pa.array(np.ones(3))] * 6, names=list(UNORDERED))
    read = list(ordered_prices([flat, batch(bars, SECOND)], "x"))
    assert read[1].schema.names == SECOND
    assert read[1].column("close").to_numpy().tolist() == bars.close.tolist()


def test_rows_that_speak_for_both_orders_are_refused(random_bars):
    bars = random_bars(40)
    half = [batch(bars.take(slice(20)), USUAL), batch(bars.take(slice(20, None)), SECOND)]
    with pytest.raises(BitcornError, match=r"x has no column names.*write a header line"):
        list(ordered_prices(half, "x"))
    mixed = pa.Table.from_batches(half).combine_chunks().to_batches()
    with pytest.raises(BitcornError, match=r"x has no column names.*write a header line"):
        list(ordered_prices(mixed, "x"))


@pytest.mark.parametrize("names", [["open", "low", "high", "close"], ["high", "low", "close", "open"]])
def test_prices_in_an_order_that_nobody_writes_are_refused(random_bars, names):
    with pytest.raises(BitcornError, match=r"none of these \([1-9]\d*\): write a header line"):
        list(ordered_prices([batch(random_bars(40), ["timestamp", *names, "volume"])], "x"))


def test_places_are_named_by_their_number():
    kline = ["1700000000000", "1.0", "3.0", "0.5", "2.0", "7.0", "1700003599999", "14.0", "9", "1", "2", "0"]
    assert default_names([kline] * 2) == list(BINANCE)
    assert default_names([kline[:11]]) == list(BINANCE[:11])
    assert default_names([["0"] * 6]) == list(UNORDERED)
    assert default_names([["1", "2", "3"]]) == ["0", "1", "2"]
    assert default_names([["2024.01.31", "23:00", "1", "1", "1", "1", "5"]])[:3] == ["date", "time", "open"]


@pytest.mark.parametrize("change", [{6: "1699999999999"}, {2: "0.1"}, {7: "14000.0"}, {8: "BTC"}])
def test_other_rows_of_so_many_values_are_no_klines(change):
    kline = ["1700000000000", "1.0", "3.0", "0.5", "2.0", "7.0", "1700003599999", "14.0", "9", "1", "2"]
    rows = [kline, [change.get(index, value) for index, value in enumerate(kline)]]
    assert default_names(rows) == [str(index) for index in range(11)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [("1,2,3,4,5,6", True), ("2024-01-01 00:00,1,2,3,4,5", True), ("ts,o,h,l,c,v", False), ("a,1,2,3,4", False)],
)
def test_a_line_of_numbers_is_data(line, expected):
    assert is_data(line.split(",")) is expected
