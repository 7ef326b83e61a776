import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import list_partitions, read_bars, stored_rows

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.sources.options import SourceOptions

HOUR = 3_600_000
START = 1_502_942_400_000
PRICES = ["open", "high", "low", "close", "volume"]
PLAIN = ("ts", *PRICES)
KEYED = ("symbol", "timeframe", *PLAIN)


def quote(name):
    return '"' + name.replace('"', '""') + '"'


def make(path, rows, columns=PLAIN, table="bars", types="", more=()):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {quote(table)} ({', '.join(f'{quote(name)} {types}' for name in columns)})")
        connection.executemany(f"INSERT INTO {quote(table)} VALUES ({', '.join('?' * len(columns))})", rows)
        for statement in more:
            connection.execute(statement)
        connection.commit()
    return path


def plain_rows(n=6, start=START, step=HOUR):
    return [(start + step * i, 1.0 + i, 3.0 + i, 0.5 + i, 2.0 + i, 10.0 * i) for i in range(n)]


def keyed_rows(symbol="BTCUSDT", timeframe="1h", n=6, **more):
    return [(symbol, timeframe, *row) for row in plain_rows(n, **more)]


def rows_of(bars):
    return list(zip(*(column.tolist() for column in bars.columns().values()), strict=True))


@pytest.fixture(scope="module")
def real_db(data_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "market.db"
    with closing(sqlite3.connect(path)) as connection:
        for symbol, timeframe in (("BTCUSDT", "1h"), ("BTCUSDT", "4h"), ("SOLUSDT", "1h")):
            frame = pd.read_parquet(data_dir / "bars" / f"{symbol}_{timeframe}.parquet")
            frame.insert(0, "timeframe", timeframe)
            frame.insert(0, "symbol", symbol)
            frame.to_sql("ohlcv", connection, if_exists="append", index=False)
    return path


@pytest.mark.parametrize("limit", [None, 1, 1_000, 10**9])
@pytest.mark.parametrize(("symbol", "timeframe"), [("BTCUSDT", "1h"), ("btc/usdt", "4H"), ("SOL-USDT", "60m")])
def test_real_bars_read_as_sql_orders_them(real_db, symbol, timeframe, limit):
    bars, partition = read_bars(real_db, symbol, timeframe, limit)
    with closing(sqlite3.connect(real_db)) as connection:
        query = "SELECT ts AS timestamp, open, high, low, close, volume FROM ohlcv WHERE symbol = ? AND timeframe = ?"
        keys = (partition.symbol, partition.timeframe)
        expected = pd.read_sql(f"{query} ORDER BY ts", connection, params=keys).tail(limit or 10**9)
        count, total = connection.execute(
            f"SELECT count(*), sum(timestamp) FROM ({query} ORDER BY ts DESC LIMIT ?)",
            (*keys, limit or -1),
        ).fetchone()
    assert (len(bars), int(bars.timestamp.sum())) == (count, total)
    for name, column in bars.columns().items():
        assert column.tobytes() == expected[name].to_numpy().tobytes()


def test_partitions_are_listed_as_sql_groups_them(real_db):
    with closing(sqlite3.connect(real_db)) as connection:
        groups = connection.execute("SELECT DISTINCT symbol, timeframe FROM ohlcv ORDER BY 1, 2").fetchall()
    assert list_partitions(real_db) == [Partition(*group) for group in groups]


@pytest.mark.parametrize("table", ["candles", "BTC 2024", "a\"b'c", "select", "x;--", "курс", "%s?"])
def test_a_table_may_be_called_anything(tmp_path, table):
    path = make(tmp_path / "btcusdt_1h.db", plain_rows(), table=table)
    assert rows_of(read_bars(path, "BTCUSDT", "1h")[0]) == plain_rows()


@pytest.mark.parametrize(
    "columns",
    [
        ("ts", "open", "high", "low", "close", "volume"),
        ("timestamp", "open", "high", "low", "close", "volume"),
        ("TIMESTAMP", "Open", "HIGH", "low", "Close", "Volume"),
        (" ts", "open ", "high", "low", "close", "volume"),
    ],
)
def test_columns_are_found_by_name(tmp_path, columns):
    path = make(tmp_path / "btcusdt_1h.db", plain_rows(), columns)
    assert rows_of(read_bars(path, "BTCUSDT", "1h")[0]) == plain_rows()


def test_other_columns_and_their_order_do_not_matter(tmp_path):
    columns = ("close", 'no"te', "volume", "low", "timestamp", "it's", "high", "ts", "open")
    rows = [(c, "x", v, low, "2017-08-17", b"y", h, t, o) for t, o, h, low, c, v in plain_rows()]
    path = make(tmp_path / "btcusdt_1h.db", rows, columns)
    assert rows_of(read_bars(path, "BTCUSDT", "1h")[0]) == plain_rows()


@pytest.mark.parametrize("unit", [1, 1000], ids=["ms", "s"])
@pytest.mark.parametrize("number", [int, float])
@pytest.mark.parametrize("types", ["", "REAL", "INTEGER", "NUMERIC"])
def test_times_are_milliseconds_however_they_are_stored(tmp_path, unit, number, types):
    rows = [(number(row[0] / unit), *row[1:]) for row in plain_rows()]
    bars, partition = read_bars(make(tmp_path / "market.db", rows, types=types), "BTCUSDT", "1h")
    assert rows_of(bars) == plain_rows()
    assert partition == Partition("BTCUSDT", "1h")


@pytest.mark.parametrize("columns", [PLAIN, ("symbol", *PLAIN), ("timeframe", *PLAIN), KEYED])
@pytest.mark.parametrize("name", ["market.db", "btcusdt_1h.db"])
def test_symbol_and_timeframe_may_be_columns_or_not(tmp_path, columns, name):
    first = {"symbol": "BTCUSDT", "timeframe": "1h"}
    rows = [(*(first[column] for column in columns if column in first), *row) for row in plain_rows()]
    path = make(tmp_path / name, rows, columns)
    bars, partition = read_bars(path, "btc/usdt", "1h")
    assert rows_of(bars) == plain_rows()
    said = "symbol" in columns or name.startswith("btc")
    # Where nothing says the symbol, the one that was asked for is taken at its word.
    assert partition == Partition("BTCUSDT" if said else "btc/usdt", "1h")


def test_a_file_that_says_its_symbol_has_no_other(tmp_path):
    path = make(tmp_path / "btcusdt_1h.db", plain_rows())
    with pytest.raises(BitcornError, match="has no symbol 'ETHUSDT': it has BTCUSDT"):
        read_bars(path, "ETHUSDT", "1h")


@pytest.mark.parametrize("stored", ["BTCUSDT", "BTC/USDT", "btc-usdt", "btc_usdt", "B'T\"C/USDT"])
@pytest.mark.parametrize("asked", [str, str.lower, lambda s: s.replace("/", "-"), lambda s: s.replace("USDT", "_USDT")])
def test_a_symbol_is_found_in_any_spelling_and_shown_as_stored(tmp_path, stored, asked):
    path = make(tmp_path / "market.db", keyed_rows(stored) + keyed_rows("ETHUSDT", n=3), KEYED)
    bars, partition = read_bars(path, asked(stored), "1h")
    assert partition == Partition(stored, "1h")
    assert rows_of(bars) == plain_rows()


def test_a_future_is_not_its_spot_pair(tmp_path):
    rows = keyed_rows("BTC/USDT") + keyed_rows("BTC/USDT:USDT", n=3)
    path = make(tmp_path / "market.db", rows, KEYED)
    assert len(read_bars(path, "BTCUSDT", "1h")[0]) == 6
    assert len(read_bars(path, "BTCUSDT:USDT", "1h")[0]) == 3


def test_symbols_that_are_numbers_can_be_read(tmp_path):
    path = make(tmp_path / "market.db", [(7203, *row) for row in plain_rows()], ("symbol", *PLAIN))
    assert list_partitions(path) == [Partition("7203", "1h")]
    assert rows_of(read_bars(path, "7203", "1h")[0]) == plain_rows()


INDEXES = {
    "none": [],
    "time": ["CREATE INDEX i ON bars (ts)"],
    "time, newest first": ["CREATE INDEX i ON bars (ts DESC)"],
    "key": ["CREATE INDEX i ON bars (symbol, timeframe, ts)"],
    "key, newest first": ["CREATE INDEX i ON bars (symbol, timeframe, ts DESC)"],
    "symbol": ["CREATE INDEX i ON bars (symbol)"],
    "another column": ["CREATE INDEX i ON bars (close)", "ANALYZE"],
    "a part": ["CREATE INDEX i ON bars (symbol) WHERE symbol = 'ETHUSDT'"],
    "an expression": ["CREATE INDEX i ON bars (lower(symbol))"],
}


@pytest.mark.parametrize("more", INDEXES.values(), ids=INDEXES)
def test_partitions_are_listed_whatever_is_indexed(tmp_path, more):
    held = [(symbol, timeframe) for symbol in ("", "A", "BTCUSDT", "ETHUSDT", "b") for timeframe in ("15m", "1h", "1M")]
    rows = [row for symbol, timeframe in held for row in keyed_rows(symbol, timeframe, n=3)]
    path = make(tmp_path / "market.db", [*rows, (None, "1h", *plain_rows(1)[0])], KEYED, more=more)
    assert list_partitions(path) == [Partition(*key) for key in sorted(held) if key[1] != "1M"]
    assert [each.partition for each in stored_rows(path)] == list_partitions(path)


@pytest.mark.parametrize("more", INDEXES.values(), ids=INDEXES)
@pytest.mark.parametrize("limit", [None, 1, 2, 5, 100])
def test_duplicates_stay_in_stored_order_and_the_limit_counts_times(tmp_path, more, limit):
    # Times rise, fall and repeat; the volume numbers the rows as stored.
    hours = [3, 1, 1, 5, 2, 5, 1, 5, 4, 0, 5]
    stored = [(START + HOUR * hour, 1.0, 1.0, 1.0, 1.0, float(i)) for i, hour in enumerate(hours)]
    both = [(symbol, "1h", *row) for row in stored for symbol in ("BTCUSDT", "ETHUSDT")]
    path = make(tmp_path / "market.db", both, KEYED, more=more)
    newest = sorted({row[0] for row in stored})[-(limit or 100) :]
    expected = [row for time in newest for row in stored if row[0] == time]
    assert rows_of(read_bars(path, "BTCUSDT", "1h", limit)[0]) == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=40, unique=True),
    st.integers(1, 50) | st.none(),
    st.sampled_from(["none", "time", "key", "key, newest first"]),
)
def test_rows_in_any_order_read_ascending(tmp_path_factory, hours, limit, index):
    rows = [("BTCUSDT", "1h", START + HOUR * hour, *[float(hour + i) for i in range(5)]) for hour in hours]
    path = make(tmp_path_factory.mktemp("order") / "market.db", rows, KEYED, more=INDEXES[index])
    expected = sorted(row[2:] for row in rows)[-(limit or len(rows)) :]
    assert rows_of(read_bars(path, "BTCUSDT", "1h", limit)[0]) == expected


@pytest.mark.parametrize("limit", [None, 1, 4, 10])
def test_seconds_and_milliseconds_in_one_column_read_ascending(tmp_path, limit):
    rows = [(row[0] // 1000 if i % 3 else row[0], *row[1:]) for i, row in enumerate(plain_rows(10))]
    path = make(tmp_path / "btcusdt_1h.db", rows)
    assert rows_of(read_bars(path, "BTCUSDT", "1h", limit)[0]) == plain_rows(10)[-(limit or 10) :]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(tmp_path, limit):
    with pytest.raises(BitcornError, match=f"limit is {limit}: it must be at least 1"):
        read_bars(make(tmp_path / "btcusdt_1h.db", plain_rows()), "BTCUSDT", "1h", limit)


def test_a_table_with_a_primary_key_and_no_rowid_reads_alike(tmp_path):
    path = tmp_path / "market.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE candles (symbol TEXT, timeframe TEXT, ts INTEGER, open REAL, high REAL, low REAL, close "
            "REAL, volume REAL, PRIMARY KEY (symbol, timeframe, ts)) WITHOUT ROWID"
        )
        connection.executemany(
            "INSERT INTO candles VALUES (?, ?, ?, ?, ?, ?, ?, ?)", keyed_rows() + keyed_rows("ETHUSDT", n=3)
        )
        connection.commit()
    assert list_partitions(path) == [Partition("BTCUSDT", "1h"), Partition("ETHUSDT", "1h")]
    assert rows_of(read_bars(path, "BTCUSDT", "1h", 4)[0]) == plain_rows()[-4:]


@pytest.mark.parametrize("limit", [None, 3])
def test_a_view_reads_as_a_table(tmp_path, limit):
    view = "CREATE VIEW candles AS SELECT t AS ts, o AS open, h AS high, l AS low, c AS close, v AS volume FROM raw"
    path = make(tmp_path / "btcusdt_1h.db", plain_rows()[::-1], tuple("tohlcv"), "raw", more=[view])
    assert list_partitions(path) == [Partition("BTCUSDT", "1h")]
    assert rows_of(read_bars(path, "BTCUSDT", "1h", limit)[0]) == plain_rows()[-(limit or 6) :]


def test_a_view_that_is_broken_does_not_matter(tmp_path):
    path = make(tmp_path / "btcusdt_1h.db", plain_rows(), more=["CREATE VIEW old AS SELECT * FROM dropped"])
    assert rows_of(read_bars(path, "BTCUSDT", "1h")[0]) == plain_rows()


def test_a_symbol_with_too_few_bars_for_a_timeframe_does_not_hide_the_others(tmp_path):
    rows = [("BTCUSDT", *row) for row in plain_rows()] + [("NEWUSDT", *row) for row in plain_rows(1)]
    path = make(tmp_path / "market.db", rows, ("symbol", *PLAIN))
    assert rows_of(read_bars(path, "BTCUSDT", "1h")[0]) == plain_rows()


@pytest.mark.parametrize("columns", [PLAIN, KEYED])
def test_a_single_bar_is_read_where_its_timeframe_is_said(tmp_path, columns):
    rows = plain_rows(1) if columns == PLAIN else keyed_rows(n=1)
    path = make(tmp_path / "btcusdt_1h.db", rows, columns)
    assert list_partitions(path) == [Partition("BTCUSDT", "1h")]
    assert rows_of(read_bars(path, "BTCUSDT", "1h")[0]) == plain_rows(1)


def test_a_table_without_symbols_does_not_hide_those_of_another(tmp_path):
    path = make(tmp_path / "market.db", keyed_rows(), KEYED)
    make(path, plain_rows(3), table="scratch")
    assert rows_of(read_bars(path, "BTCUSDT", "1h")[0]) == plain_rows()


def test_tables_of_several_partitions_lie_side_by_side(tmp_path):
    path = make(tmp_path / "market.db", keyed_rows(), KEYED, "spot")
    make(path, keyed_rows("ETHUSDT", "4h", step=4 * HOUR), KEYED, "more")
    make(path, [("x", 1)], ("note", "ts"), "notes")
    assert list_partitions(path) == [Partition("BTCUSDT", "1h"), Partition("ETHUSDT", "4h")]
    assert len(read_bars(path, "ETHUSDT", "4h")[0]) == 6


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (keyed_rows(), keyed_rows()),
        (keyed_rows("BTC/USDT"), keyed_rows("btcusdt")),
        (keyed_rows(timeframe="1h"), keyed_rows(timeframe="60m")),
    ],
)
def test_two_tables_of_one_partition_are_refused_by_name(tmp_path, first, second):
    path = make(tmp_path / "market.db", first + keyed_rows("ETHUSDT", n=2), KEYED, "spot")
    make(path, second, KEYED, "backup")
    with pytest.raises(BitcornError, match=r"BTCUSDT 1h more than once .*in table spot, .*in table backup"):
        read_bars(path, "BTCUSDT", "1h")
    assert len(read_bars(path, "ETHUSDT", "1h")[0]) == 2


@pytest.mark.parametrize("key", ["symbol", "timeframe"])
def test_rows_that_an_unknown_column_tells_apart_are_never_one_partition(tmp_path, key):
    columns = [f"the {name}" if name == key else name for name in KEYED]
    second = {"symbol": keyed_rows("ETHUSDT"), "timeframe": keyed_rows(timeframe="4h", step=4 * HOUR)}[key]
    path = make(tmp_path / "BTCUSDT.db", keyed_rows() + second, columns, "bars; --")
    with pytest.raises(BitcornError, match=rf"column the {key} \('.*, \.\.\.\) tells them apart") as no:
        read_bars(path, "BTCUSDT", "1h")
    assert f"--map symbol=the {key} or timeframe=the {key}" in str(no.value)
    named = SourceOptions.of(mapping={key: f"the {key}"})
    assert rows_of(read_bars(path, "BTCUSDT", "1h", options=named)[0]) == plain_rows()
    with pytest.raises(BitcornError, match=r"apart: .* --clean duplicates=last"):  # a policy on other things
        read_bars(path, "BTCUSDT", "1h", options=SourceOptions.of(policy=CleaningPolicy(fill="forward")))
    known = SourceOptions.of(policy=CleaningPolicy(duplicates="first"))  # who says what they are is not asked
    assert len(read_bars(path, "BTCUSDT", "1h", options=known)[0]) == 12


def test_exchanges_of_a_table_without_symbols_are_never_one_partition(tmp_path):
    rows = [(*row, exchange) for exchange in ("binance", "okx") for row in plain_rows()]
    path = make(tmp_path / "BTCUSDT.db", rows, [*PLAIN, "exchange"])
    with pytest.raises(BitcornError, match="column exchange "):
        read_bars(path, "BTCUSDT", "1h")


def test_markets_that_are_numbered_are_never_one_partition(tmp_path):
    rows = [(*row, market) for market in (256_265, 408_065) for row in plain_rows()]
    path = make(tmp_path / "BTCUSDT.db", rows, [*PLAIN, "token"])
    with pytest.raises(BitcornError, match=r"column token .* tells them apart: .* --map symbol=token"):
        read_bars(path, "BTCUSDT", "1h")
    assert (
        rows_of(read_bars(path, "408065", "1h", options=SourceOptions.of(mapping={"symbol": "token"}))[0])
        == plain_rows()
    )


@pytest.mark.parametrize("first", [1, 1.5, None], ids=["int", "real", "null"])
@pytest.mark.parametrize("later", [1, 2.5, None], ids=["int", "real", "null"])
def test_a_column_may_change_its_type_late(tmp_path, first, later):
    n = 65_536 + 8
    rows = [(START + HOUR * i, 1.0, 1.0, 1.0, first if i < 65_536 else later, 1) for i in range(n)]
    bars = read_bars(make(tmp_path / "btcusdt_1h.db", rows), "BTCUSDT", "1h")[0]
    expected = np.array([np.nan if row[4] is None else row[4] for row in rows], dtype=np.float64)
    np.testing.assert_array_equal(bars.close, expected)
    assert bars.timestamp.tolist() == [row[0] for row in rows]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(-(10**15), 10**15) | st.floats(-1e15, 1e15) | st.just(float("inf")) | st.none()] * 5),
        min_size=2,
        max_size=12,
    ),
    st.sampled_from(["", "REAL", "NUMERIC", "INTEGER"]),
)
def test_mixed_numbers_and_nulls_read_as_sqlite_holds_them(tmp_path_factory, values, types):
    rows = [(START + HOUR * i, *row) for i, row in enumerate(values)]
    path = make(tmp_path_factory.mktemp("mixed") / "btcusdt_1h.db", rows, types=types)
    with closing(sqlite3.connect(path)) as connection:
        held = connection.execute(f"SELECT {', '.join(PRICES)} FROM bars ORDER BY ts").fetchall()
    bars = read_bars(path, "BTCUSDT", "1h")[0]
    expected = np.array([[np.nan if value is None else value for value in row] for row in held], dtype=np.float64)
    np.testing.assert_array_equal(np.column_stack([getattr(bars, name) for name in PRICES]), expected)


def test_an_integer_that_a_float_cannot_hold_is_rounded(tmp_path):
    rows = [(*row[:5], 2**60 + i) for i, row in enumerate(plain_rows())]
    bars = read_bars(make(tmp_path / "shibusdt_1h.db", rows), "SHIBUSDT", "1h")[0]
    assert bars.volume.tolist() == [float(2**60 + i) for i in range(6)]


def test_a_column_of_nulls_is_nan(tmp_path):
    rows = [(*row[:5], None) for row in plain_rows()]
    assert np.isnan(read_bars(make(tmp_path / "btcusdt_1h.db", rows), "BTCUSDT", "1h")[0].volume).all()


@pytest.mark.parametrize("value", ["1,234", "soon", b"\x00"])
@pytest.mark.parametrize("at", [0, 4, 65_600])
def test_text_for_a_price_is_refused_with_column_and_value(tmp_path, value, at):
    rows = [[START + HOUR * i, 1, 1, 1, 1, 1] for i in range(max(at, 8) + 1)]
    rows[at][3] = value
    with pytest.raises(BitcornError) as error:
        read_bars(make(tmp_path / "btcusdt_1h.db", rows), "BTCUSDT", "1h")
    assert f'column "low" of table bars in {tmp_path / "btcusdt_1h.db"} holds {value!r}' in str(error.value)
    assert str(rows[at][0]) in str(error.value)


@pytest.mark.parametrize("at", [0, 4, 65_600])
@pytest.mark.parametrize(("value", "number"), [("12.25", 12.25), (" 1e3 ", 1000.0), ("", np.nan), ("NaN", np.nan)])
def test_text_that_is_a_number_is_that_number_and_the_others_keep_every_digit(tmp_path, value, number, at):
    expected = [0.1 + i / 7 for i in range(max(at, 8) + 1)]
    rows = [[START + HOUR * i, 1, 1, low, 1, 1] for i, low in enumerate(expected)]
    rows[at][3], expected[at] = value, number
    bars = read_bars(make(tmp_path / "btcusdt_1h.db", rows), "BTCUSDT", "1h")[0]
    np.testing.assert_array_equal(bars.low, expected)


def test_text_of_another_symbol_does_not_matter(tmp_path):
    rows = [("ETHUSDT", "1h", *row[:3], "n.a.", *row[4:]) for row in plain_rows()] + keyed_rows()
    assert rows_of(read_bars(make(tmp_path / "market.db", rows, KEYED), "BTCUSDT", "1h")[0]) == plain_rows()


def test_text_of_the_asked_symbol_is_named_and_not_that_of_another(tmp_path):
    rows = [
        (symbol, "1h", *row[:3], value, *row[4:])
        for symbol, value in (("ETHUSDT", "other"), ("BTCUSDT", "n.a."))
        for row in plain_rows()
    ]
    with pytest.raises(BitcornError, match=r"'n\.a\.'"):
        read_bars(make(tmp_path / "market.db", rows, KEYED), "BTCUSDT", "1h")


@pytest.mark.parametrize("name", ["btcusdt_1h.db", "btcusdt.db"])
@pytest.mark.parametrize("at", [None, 5])
def test_text_that_is_no_time_is_refused_with_column_and_value(tmp_path, name, at):
    rows = [("noon" if at in (None, i) else row[0], *row[1:]) for i, row in enumerate(plain_rows())]
    with pytest.raises(BitcornError, match=r"column \"ts\" of table bars.*'noon'.*no"):
        read_bars(make(tmp_path / name, rows), "BTCUSDT", "1h")


@pytest.mark.parametrize("factor", [10**3, 10**6], ids=["us", "ns"])
def test_microseconds_and_nanoseconds_are_understood(tmp_path, factor):
    rows = [(row[0] * factor, *row[1:]) for row in plain_rows()]
    assert rows_of(read_bars(make(tmp_path / "btcusdt_1h.db", rows), "BTCUSDT", "1h")[0]) == plain_rows()


@pytest.mark.parametrize("key", [(), ("BTCUSDT", "1h")], ids=["plain", "keyed"])
def test_rows_without_a_time_are_refused(tmp_path, key):
    rows = [(*key, *row) for row in [*plain_rows(), (None, 1, 1, 1, 1, 1)]]
    path = make(tmp_path / "btcusdt_1h.db", rows, KEYED if key else PLAIN)
    with pytest.raises(BitcornError, match=r"table bars .*no time"):
        read_bars(path, "BTCUSDT", "1h")


@pytest.mark.parametrize("read", [list_partitions, lambda path: read_bars(path, "BTCUSDT", "1h")])
def test_a_file_that_is_not_there_is_refused_and_not_created(tmp_path, read):
    with pytest.raises(BitcornError, match=r"no database.* at .*market\.db"):
        read(tmp_path / "market.db")
    with pytest.raises(BitcornError, match="holds no file of bars"):
        read(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [list_partitions, lambda path: read_bars(path, "BTCUSDT", "1h")])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"ts,open,high,low,close,volume\n" * 99, "cannot be read as a SQLite database"),
        (b"x", ""),
    ],
)
def test_what_is_no_database_is_refused(tmp_path, read, content, message):
    path = tmp_path / "btcusdt_1h.db"
    path.write_bytes(content)
    with pytest.raises(BitcornError, match=rf"btcusdt_1h\.db .*{message}"):
        read(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("read", [list_partitions, lambda path: read_bars(path, "BTCUSDT", "1h")])
def test_a_database_without_bars_is_refused_with_what_it_has(tmp_path, read):
    path = make(tmp_path / "market.db", [(1, 2)], ("ts", "price"), "ticks")
    with pytest.raises(
        BitcornError,
        match=r"no table with a time, open.*: its tables are ticks \(ts, price\): it has no column for open, high",
    ):
        read(path)


@pytest.mark.parametrize("columns", [PLAIN, KEYED, ("symbol", *PLAIN), ("timeframe", *PLAIN)])
def test_an_empty_table_is_refused(tmp_path, columns):
    path = make(tmp_path / "btcusdt_1h.db", [], columns)
    for read in (list_partitions, lambda path: read_bars(path, "BTCUSDT", "1h")):
        with pytest.raises(BitcornError, match="holds no bars: table bars is empty"):
            read(path)


def test_an_unknown_symbol_is_refused_with_those_that_exist(tmp_path):
    path = make(tmp_path / "market.db", keyed_rows("BTC/USDT") + keyed_rows("ETHUSDT"), KEYED)
    with pytest.raises(BitcornError, match=r"has no symbol 'XRPUSDT': it has BTC/USDT, ETHUSDT$"):
        read_bars(path, "XRPUSDT", "1h")


def test_of_many_symbols_only_some_are_named(tmp_path):
    rows = [row for i in range(50) for row in keyed_rows(f"COIN{i:02}", n=1)]
    with pytest.raises(BitcornError, match=r"COIN00, .*COIN19 and 30 more$"):
        read_bars(make(tmp_path / "market.db", rows, KEYED), "XRPUSDT", "1h")


def test_an_unknown_timeframe_is_refused_with_those_that_exist(tmp_path):
    rows = keyed_rows() + keyed_rows(timeframe="4h") + keyed_rows("ETHUSDT", "1d")
    with pytest.raises(BitcornError, match=r"has no 1d bars of BTCUSDT: it has 1h, 4h$"):
        read_bars(make(tmp_path / "market.db", rows, KEYED), "BTCUSDT", "1d")


@pytest.mark.parametrize(("timeframe", "message"), [("1M", "'1M' is a month"), ("by the hour", "unknown timeframe")])
def test_what_is_no_timeframe_is_refused_even_where_it_is_stored(tmp_path, timeframe, message):
    path = make(tmp_path / "market.db", keyed_rows() + keyed_rows(timeframe=timeframe), KEYED)
    with pytest.raises(BitcornError, match=message):
        read_bars(path, "BTCUSDT", timeframe)
    assert len(read_bars(path, "BTCUSDT", "1h")[0]) == 6


def test_partitions_without_a_symbol_anywhere_cannot_be_listed(tmp_path):
    with pytest.raises(BitcornError, match="no symbol column and its name says no symbol: rename it"):
        list_partitions(make(tmp_path / "market.db", plain_rows()))


@pytest.mark.parametrize("name", ["a#b", "who?", "100%", "%20", "two  words", "it's", 'say "hi"', "a&mode=rw", "коса"])
def test_any_file_name_will_do(tmp_path, name):
    path = make(tmp_path / f"{name}.db", keyed_rows(), KEYED)
    before = sorted(tmp_path.iterdir())
    assert list_partitions(path) == [Partition("BTCUSDT", "1h")]
    assert rows_of(read_bars(path, "BTCUSDT", "1h")[0]) == plain_rows()
    assert sorted(tmp_path.iterdir()) == before


def test_a_path_may_be_relative_or_begin_at_home(tmp_path, monkeypatch):
    make(tmp_path / "market.db", keyed_rows(), KEYED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read_bars("market.db", "BTCUSDT", "1h")[0]) == 6
    assert len(read_bars("~/market.db", "BTCUSDT", "1h")[0]) == 6


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_reading_does_not_change_the_file(tmp_path, mode):
    path = make(tmp_path / "market.db", keyed_rows(), KEYED)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    content, changed = path.read_bytes(), path.stat().st_mtime_ns
    list_partitions(path)
    read_bars(path, "BTCUSDT", "1h")
    read_bars(path, "BTCUSDT", "1h", 2)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, changed)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_reading_leaves_no_other_file_behind(tmp_path, mode):
    path = make(tmp_path / "market.db", keyed_rows(), KEYED)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    read_bars(path, "BTCUSDT", "1h")
    # Beside a database in WAL mode SQLite keeps its two side files; the log is empty, as nothing was written.
    side = {"market.db-shm", "market.db-wal"} if mode == "WAL" else set()
    assert {file.name for file in tmp_path.iterdir()} <= {"market.db", *side}
    assert not side or not (tmp_path / "market.db-wal").exists() or (tmp_path / "market.db-wal").stat().st_size == 0


def test_rows_that_are_not_committed_are_not_read(tmp_path):
    path = make(tmp_path / "market.db", keyed_rows(), KEYED)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.executemany(f"INSERT INTO bars VALUES ({', '.join('?' * 8)})", keyed_rows(start=START + 6 * HOUR))
        assert len(read_bars(path, "BTCUSDT", "1h")[0]) == 6
        writer.commit()
        assert len(read_bars(path, "BTCUSDT", "1h")[0]) == 12


def run(script, *arguments):
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


WRITER = """
import sqlite3, sys, time

path, mode, start, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
connection = sqlite3.connect(path, isolation_level=None, timeout=30)
connection.execute("PRAGMA wal_autocheckpoint = 5")
print("writing", flush=True)
for first in range(10, 1510, 10):
    connection.execute("BEGIN IMMEDIATE")
    for i in range(first, first + 10):
        connection.execute("INSERT INTO bars VALUES ('BTCUSDT', '1h', ?, ?, ?, ?, ?, ?)", (start + step * i, *[i] * 5))
        time.sleep(0.001)
    connection.execute("COMMIT")
    time.sleep(0.002 if mode == "WAL" else 0.01)
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_every_read_beside_a_live_writer_is_a_complete_prefix(tmp_path, mode):
    rows = [("BTCUSDT", "1h", START + HOUR * i, *[float(i)] * 5) for i in range(10)]
    path = make(tmp_path / "market.db", rows, KEYED, more=INDEXES["key"])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    lengths = []
    with run(WRITER, path, mode, START, HOUR) as writer:
        assert writer.stdout.readline() == "writing\n"
        while writer.poll() is None:
            bars, _ = read_bars(path, "BTCUSDT", "1h")
            n = len(bars)
            assert n % 10 == 0
            np.testing.assert_array_equal(bars.timestamp, START + HOUR * np.arange(n))
            for name in PRICES:
                np.testing.assert_array_equal(getattr(bars, name), np.arange(n))
            lengths.append(n)
    assert writer.returncode == 0
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 5
    assert len(read_bars(path, "BTCUSDT", "1h")[0]) == 1_510


def reserved_megabytes():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmSize"].split()[0]) / 1000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_bars_reserve_no_more_memory_than_they_need(tmp_path):
    # What a process has reserved, used or not, decides whether it can start another one, as Ray does.
    path = make(tmp_path / "market.db", keyed_rows(n=1_000), KEYED)
    read_bars(path, "BTCUSDT", "1h")
    before = reserved_megabytes()
    kept = [read_bars(path, "BTCUSDT", "1h") for _ in range(10)]
    assert reserved_megabytes() - before < 100
    assert len(kept) == 10
