import sqlite3
from contextlib import closing

import pytest
from reading import list_partitions, read_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.sqlite.catalog import Catalog
from bitcorn_ray.sources.sqlite.columns import one_unit
from bitcorn_ray.sources.sqlite.connection import connected
from bitcorn_ray.sources.sqlite.tables import find_tables

START = 1_502_942_400_000
BARS = "ts, open, high, low, close, volume"


def rows(step=3_600_000, n=6, start=START):
    return [(start + i * step, 1, 3, 0.5, 2, 7) for i in range(n)]


def held(path, tables, asked=None):
    """What is found in a database of tables: name -> (columns before the bars', rows)."""
    with closing(sqlite3.connect(path)) as connection:
        for name, (keys, of_table) in tables.items():
            quoted = '"' + name.replace('"', '""') + '"'
            columns = ", ".join([*keys, BARS])
            connection.execute(f"CREATE TABLE {quoted} ({columns})")
            connection.executemany(f"INSERT INTO {quoted} VALUES ({', '.join('?' * (len(keys) + 6))})", of_table)
        connection.commit()
    with connected(path) as connection:
        return Catalog(connection, find_tables(connection, SourceOptions())[0], asked).partitions


def keyed(values, of_bars):
    return [(*values, *row) for row in of_bars]


@pytest.mark.parametrize(
    ("table", "expected", "how"),
    [
        ("btcusdt", Partition("BTCUSDT", "1h"), "the table's name"),
        ("btcusdt_4h", Partition("BTCUSDT", "4h"), "the table's name"),
        ("candles_USDT_BTC", Partition("BTC_USDT", "1h"), "the table's name"),
        ("klines_5m", Partition("ETHUSDT", "5m"), "the file's name"),
        ("candles", Partition("ETHUSDT", "1d"), "the file's name"),
    ],
)
def test_the_table_goes_before_the_file_and_the_file_before_the_bars(tmp_path, table, expected, how):
    name = "ethusdt_1d.db" if table == "candles" else "ethusdt.db"
    (only,) = held(tmp_path / name, {table: ([], rows())})
    assert (only.partition, only.symbol_from) == (expected, how)


def test_tables_of_one_symbol_each_are_known_by_their_names(tmp_path):
    found = held(tmp_path / "stocks.db", {"AAPL": ([], rows(86_400_000)), "msft": ([], rows(86_400_000))})
    assert [each.partition for each in found] == [Partition("AAPL", "1d"), Partition("MSFT", "1d")]
    assert found[0].timeframe_from == "the bars' most frequent distance"


def test_what_is_asked_for_names_a_single_table_that_nothing_names(tmp_path):
    (only,) = held(tmp_path / "market.db", {"prices": ([], rows())}, "BTC/USDT")
    assert only.partition == Partition("BTC/USDT", "1h")
    with pytest.raises(BitcornError, match="its name says no symbol"):
        held(tmp_path / "other.db", {"prices": ([], rows())})


@pytest.mark.parametrize(
    ("column", "stored", "step", "timeframe", "how"),
    [
        ("interval", 60, 3_600_000, "1h", "column interval, 60 minutes"),
        ("interval", "60", 60_000, "1m", "column interval, 60 seconds"),
        ("granularity", 3600, 3_600_000, "1h", "column granularity, 3600 seconds"),
        ("tf", 900_000, 900_000, "15m", "column tf, 900000 milliseconds"),
        ("bar", "1H", 3_600_000, "1H", "column bar"),
        ("period", "15min", 900_000, "15m", "column period, 15min"),
        ("resolution", "D", 86_400_000, "1d", "column resolution, D"),
        ("timeframe", "1M", 3_600_000, "1M", "column timeframe"),
    ],
)
def test_a_timeframe_is_read_in_any_form(tmp_path, column, stored, step, timeframe, how):
    (only,) = held(tmp_path / "m.db", {"klines": (["symbol", column], keyed(("X", stored), rows(step)))})
    assert (only.partition, only.timeframe_from) == (Partition("X", timeframe), how)
    assert only.keys == {"symbol": "X", "timeframe": stored}


def test_the_step_is_that_of_all_rows_where_units_are_mixed(tmp_path):
    mixed = [(time // (1000 if i % 3 else 1), *row) for i, (time, *row) in enumerate(rows(n=30))]
    (only,) = held(tmp_path / "btcusdt.db", {"candles": ([], mixed)})
    assert only.partition.timeframe == "1h"


@pytest.mark.parametrize(("file", "table"), [("m", "BTCUSDT_1M"), ("BTCUSDT", "klines_1M"), ("BTCUSDT_1M", "bars")])
def test_a_name_that_says_a_month_does_not_hide_others(tmp_path, file, table):
    (only,) = held(tmp_path / f"{file}.db", {table: ([], rows())})
    assert only.partition == Partition("BTCUSDT", "1M")
    with pytest.raises(BitcornError, match="holds no bars of a fixed length, but BTCUSDT 1M"):
        list_partitions(tmp_path / f"{file}.db")
    path = tmp_path / f"{file}_and_more.db"
    held(path, {table: ([], rows()), "ETHUSDT_1h": ([], rows())})
    assert list_partitions(path) == [Partition("ETHUSDT", "1h")]
    assert len(read_bars(path, "ETH/USDT", "1h")[0]) == len(rows())
    with pytest.raises(BitcornError, match="'1M' is a month"):
        read_bars(path, "BTCUSDT", "1M")


def test_a_timeframe_column_goes_before_a_name_that_says_a_month(tmp_path):
    found = held(tmp_path / "btcusdt_1M.db", {"bars": (["symbol", "tf"], keyed(("X", "1h"), rows()))})
    assert [each.partition for each in found] == [Partition("X", "1h")]


def test_one_symbol_is_found_without_listing_the_timeframes_of_others(tmp_path):
    path = tmp_path / "m.db"
    held(path, {"a": (["symbol", "tf"], keyed(("X", "1h"), rows()) + keyed(("Y/Z", "4h"), rows()))})
    with connected(path) as connection:
        found = Catalog(connection, find_tables(connection, SourceOptions())[0])
        assert [each.partition for each in found.of_symbol("yz")] == [Partition("Y/Z", "4h")]
        assert found.symbols == ["X", "Y/Z"]


@pytest.mark.parametrize(
    ("first", "last", "one"),
    [
        (1, 2, True),
        (START, START + 1, True),
        (START // 1000, START, False),
        (START, "2024", False),
        (None, None, False),
    ],
)
def test_times_are_of_one_unit_where_their_ends_are(first, last, one):
    assert one_unit(first, last) is one


def test_a_symbol_of_several_exchanges_is_several_partitions(tmp_path):
    table = [("X", "BYBIT", "1h", *row) for row in rows()] + [("X", "BINANCE", "1h", *row) for row in rows(n=4)]
    table += [("Y", "BINANCE", "4h", *row) for row in rows()]
    path = tmp_path / "m.db"
    found = held(path, {"dbbardata": (["symbol", "exchange", "interval"], table)})
    assert sorted(each.partition for each in found) == [
        Partition("X.BINANCE", "1h"),
        Partition("X.BYBIT", "1h"),
        Partition("Y", "4h"),
    ]
    assert len(read_bars(path, "x.binance", "1h")[0]) == 4
    assert len(read_bars(path, "Y", "4h")[0]) == 6
    with pytest.raises(BitcornError, match=r"has no symbol 'X': it has X\.BINANCE, X\.BYBIT, Y"):
        read_bars(path, "X", "1h")
    one = held(tmp_path / "one.db", {"dbbardata": (["symbol", "exchange", "interval"], table[:6])})
    assert [each.partition for each in one] == [Partition("X", "1h")]


@pytest.mark.parametrize("keys", [[], ["symbol"]])
def test_the_step_of_times_that_are_numbers_and_text_keeps_every_digit(tmp_path, keys):
    mixed = [
        ("BTCUSDT",) * len(keys) + (f"{time // 1000}.0" if i % 2 else time / 1000, *row)
        for i, (time, *row) in enumerate(rows(n=30))
    ]
    (only,) = held(tmp_path / "btcusdt.db", {"candles": (keys, mixed)})
    assert only.partition == Partition("BTCUSDT", "1h")
