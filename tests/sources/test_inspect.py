import sqlite3
from contextlib import closing

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.inspect import inspect_source
from bitcorn_ray.sources.options import SourceOptions

START, HOUR = 1_502_942_400_000, 3_600_000
BARS = ("ts", "open", "high", "low", "close", "volume")


def bars(n=6, step=HOUR, unit=1):
    return [((START + i * step) // unit, 1.0, 3.0, 0.5, 2.0, 7.0) for i in range(n)]


def make(path, *tables):
    """Write tables: (name, columns, rows)."""
    with closing(sqlite3.connect(path)) as connection:
        for name, columns, rows in tables:
            connection.execute(f'CREATE TABLE "{name}" ({", ".join(columns)})')
            connection.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(columns))})', rows)
        connection.commit()
    return path


def test_every_decision_is_told(tmp_path):
    keyed = [("BTC/USDT", 60, *row, 5) for row in bars(unit=1000)] + [("ETH-USDT", 60, *row, 5) for row in bars(4)]
    found = inspect_source(
        make(
            tmp_path / "m.db",
            ("klines", ("pair", "interval", "open_time", "o", "h", "l", "c", "v", "trades"), keyed),
            ("sol_usdt_4h", BARS, bars(3)),
            ("notes", ("ts", "text"), [(1, "x")]),
            ("empty", BARS, []),
        )
    )
    first, second, third = found.partitions
    assert (first.symbol, first.timeframe, first.rows, first.units) == ("BTC/USDT", "1h", 6, {"s": 6})
    assert (first.first, first.last) == ("2017-08-17T04:00:00Z", "2017-08-17T09:00:00Z")
    assert (first.symbol_from, first.timeframe_from) == ("column pair", "column interval, 60 minutes")
    assert (second.symbol, second.rows, second.time) == ("ETH-USDT", 4, "epoch milliseconds, by magnitude")
    assert (third.symbol, third.timeframe, third.table) == ("SOL_USDT", "4h", "sol_usdt_4h")
    assert third.symbol_from == third.timeframe_from == "the table's name"
    tables = {table.name: table for table in found.tables}
    assert tables["klines"].columns["close"] == "c"
    assert tables["klines"].further == ("trades",)
    assert tables["notes"].ignored == "it has no column for open, high, low, close, volume"
    assert tables["empty"].ignored == "it is empty"
    assert (found.kind, found.problems) == ("database", [])


def test_mixed_units_text_and_missing_times_are_counted(tmp_path):
    rows = bars(9)
    mixed = [(time // 1000 if i < 3 else time, *row) for i, (time, *row) in enumerate(rows)]
    mixed[8] = ("2017-08-17 12:00:00", *rows[8][1:])
    mixed[7] = (None, *rows[7][1:])
    (only,) = inspect_source(make(tmp_path / "btcusdt_1h.db", ("candles", BARS, mixed))).partitions
    assert only.units == {"s": 3, "ms": 4, "YYYY-MM-DD HH:MM:SS": 1}
    assert only.problem == "1 rows have no time"
    assert (only.rows, only.last) == (9, "2017-08-17T12:00:00Z")


def test_numbers_that_are_no_epochs_are_a_problem(tmp_path):
    julian = [(2_457_982.0 + i / 24, *row) for i, (_, *row) in enumerate(bars())]
    (only,) = inspect_source(make(tmp_path / "btcusdt_1h.db", ("candles", BARS, julian))).partitions
    assert (only.rows, only.first, only.problem) == (6, None, "6 rows have no time")


def test_numbers_that_have_no_time_are_counted_beside_those_of_one_unit(tmp_path):
    rows = bars()
    rows[3] = (None, *rows[3][1:])
    keyed = [("BTCUSDT", "1h", *row) for row in rows]
    path = make(tmp_path / "m.db", ("ethusdt_1h", BARS, rows), ("bars", ("symbol", "tf", *BARS), keyed))
    for only in inspect_source(path).partitions:
        assert (only.rows, only.units, only.problem) == (6, {"ms": 5}, "1 rows have no time")


def test_prices_that_the_first_rows_show_to_be_none_are_a_problem(tmp_path):
    rows = [(at, "one", *rest) for at, _, *rest in bars()]
    (only,) = inspect_source(make(tmp_path / "btcusdt_1h.db", ("candles", BARS, rows))).partitions
    assert only.problem == "column \"open\" of table candles holds 'one', which is not a number"


def test_timeframes_in_unknown_words_are_a_problem_until_the_user_says_what_they_are(tmp_path):
    rows = [("X", f"every {n} h", *row) for n in (1, 2) for row in bars(step=n * HOUR)]
    path = make(tmp_path / "m.db", ("bars", ("symbol", "tf", *BARS), rows))
    (only,) = inspect_source(path).partitions
    assert "column tf ('every 1 h', 'every 2 h', ...) tells them apart" in only.problem
    found = inspect_source(path, SourceOptions.of(mapping={"timeframe": "tf"})).partitions
    assert {each.problem for each in found} == {f"'every {n} h' is no timeframe of a fixed length" for n in (1, 2)}


def test_a_column_that_tells_rows_of_one_time_apart_is_a_problem(tmp_path):
    rows = [(isin, *row) for isin in ("US1", "US2") for row in bars()]
    path = make(tmp_path / "btcusdt_1h.db", ("candles", ("isin", *BARS), rows))
    (only,) = inspect_source(path).partitions
    assert "column isin ('US1', 'US2', ...) tells them apart" in only.problem
    found = inspect_source(path, SourceOptions.of(mapping={"symbol": "isin"})).partitions
    assert [(each.symbol, each.problem) for each in found] == [("US1", None), ("US2", None)]


def test_a_column_that_tells_rows_of_a_file_apart_is_a_problem_though_its_footer_says_all(tmp_path):
    rows = [(token, *row) for token in (7, 9) for row in bars()]
    path = tmp_path / "BTCUSDT_1h.parquet"
    pd.DataFrame(rows, columns=["token", "ts", "open", "high", "low", "close", "volume"]).to_parquet(path)
    (only,) = inspect_source(path).partitions
    assert "6 of 12 rows of" in only.problem
    assert "column token (7, 9, ...) tells them apart" in only.problem
    found = inspect_source(path, SourceOptions.of(mapping={"symbol": "token"})).partitions
    assert [(each.symbol, each.rows, each.problem) for each in found] == [("7", 6, None), ("9", 6, None)]


def test_a_partition_in_two_tables_is_a_problem_and_a_view_of_one_is_none(tmp_path):
    path = make(tmp_path / "m.db", ("btcusdt_1h", BARS, bars()), ("BTC_USDT_60m", BARS, bars()))
    found = inspect_source(path)
    assert {each.table: each.problem for each in found.partitions} == {
        "btcusdt_1h": "also in BTC_USDT_60m: choose one by --table btcusdt_1h",
        "BTC_USDT_60m": "also in btcusdt_1h: choose one by --table BTC_USDT_60m",
    }
    (only,) = inspect_source(path, SourceOptions.of("btcusdt_1h")).partitions
    assert only.problem is None
    path = make(tmp_path / "v.db", ("btcusdt_1h", BARS, bars()))
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE VIEW btcusdt_60m AS SELECT * FROM btcusdt_1h")
    connection.close()
    (only,) = inspect_source(path).partitions
    assert (only.table, only.problem) == ("btcusdt_1h", None)


def test_bars_that_nobody_names_are_told_with_their_tables(tmp_path):
    found = inspect_source(make(tmp_path / "market.db", ("prices", BARS, bars())))
    assert found.partitions == []
    assert "says no symbol" in found.problems[0]
    assert found.tables[0].columns["timestamp"] == "ts"


def test_a_month_is_told(tmp_path):
    rows = [("X", timeframe, *row) for timeframe in ("1M", "1h") for row in bars()]
    found = inspect_source(make(tmp_path / "m.db", ("bars", ("symbol", "tf", *BARS), rows)))
    assert [(each.timeframe, each.problem) for each in found.partitions] == [
        ("1M", "'1M' is no timeframe of a fixed length"),
        ("1h", None),
    ]


@pytest.mark.parametrize("symbols", [1, 30])
def test_partitions_without_timeframes_are_found_with_and_without_an_index(tmp_path, symbols):
    rows = [(f"S{i}", *row) for i in range(symbols) for row in bars(5, step=HOUR * (1 + i % 3))]
    path = make(tmp_path / "m.db", ("bars", ("symbol", *BARS), rows))
    without = inspect_source(path).partitions
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE INDEX i ON bars (symbol, ts)")
    connection.close()
    assert inspect_source(path).partitions == without
    assert sorted((each.symbol, each.timeframe, each.rows) for each in without) == sorted(
        (f"S{i}", f"{1 + i % 3}h", 5) for i in range(symbols)
    )


def test_files_and_folders_are_told_alike(tmp_path):
    folder = tmp_path / "bars"
    folder.mkdir()
    columns = dict(zip(BARS, map(list, zip(*bars(), strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "BTCUSDT_1h.parquet")
    (folder / "ETHUSDT.csv").write_text("Open,High,Low,Close,Vol,Date\n1,2,1,1,5,2024-01-01\n1,2,1,1,5,2024-01-02\n")
    (folder / "bad.csv").write_text("a,b\n1,2\n")
    found = inspect_source(folder)
    assert [(each.symbol, each.timeframe, each.rows) for each in found.partitions] == [
        ("BTCUSDT", "1h", 6),
        ("ETHUSDT", "1d", 2),
    ]
    assert found.partitions[1].timeframe_from == "the bars' most frequent distance"
    assert found.partitions[0].units == {"ms": 6}
    assert {table.name: table.ignored is None for table in found.tables} == {
        "BTCUSDT_1h.parquet": True,
        "ETHUSDT.csv": True,
        "bad.csv": False,
    }
    assert len(found.problems) == 1
    (folder / "symbol=ETH%2FUSDT" / "timeframe=4h").mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "symbol=ETH%2FUSDT" / "timeframe=4h" / "bars.parquet")
    (hive,) = [each for each in inspect_source(folder).partitions if each.symbol == "ETH/USDT"]
    assert (hive.symbol_from, hive.timeframe_from) == ("the folders' names", "the folders' names")
    assert hive.table == "symbol=ETH%2FUSDT/timeframe=4h/bars.parquet"
    one = inspect_source(folder / "BTCUSDT_1h.parquet")
    assert (one.kind, one.partitions[0].rows) == ("file", 6)
    with pytest.raises(BitcornError, match="no column"):
        inspect_source(folder / "bad.csv")


def test_a_thousand_partitions_are_told_by_few_queries(tmp_path, monkeypatch):
    from bitcorn_ray.sources.sqlite.connection import Connection

    asked, table = [], Connection.table
    monkeypatch.setattr(Connection, "table", lambda self, *a, **k: asked.append(1) or table(self, *a, **k))
    path = make(tmp_path / "m.db", *((f"s{i}usdt_1h", BARS, bars(2)) for i in range(1_000)))
    assert len(inspect_source(path).partitions) == 1_000
    assert len(asked) < 40
