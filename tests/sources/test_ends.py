import sqlite3

import pytest

from bitcorn_ray.sources.connection import connected
from bitcorn_ray.sources.database import opened_bars
from bitcorn_ray.sources.ends import Ends, ends_of

BARS = "ts, open, high, low, close, volume"


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "m.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE klines (symbol, tf, {BARS})")
        connection.execute(f"CREATE TABLE solusdt_1h ({BARS})")
        for i in range(5):
            bar = (1_502_942_400 + 3_600 * i, 1, 1, 1, 1, 1)
            connection.execute("INSERT INTO klines VALUES ('A', '1h', ?, ?, ?, ?, ?, ?)", bar)
            connection.execute("INSERT INTO klines VALUES ('B', 60, ?, ?, ?, ?, ?, ?)", (f"{bar[0]}", *bar[1:]))
            connection.execute("INSERT INTO solusdt_1h VALUES (?, ?, ?, ?, ?, ?)", bar)
    connection.close()
    return path


def test_rows_and_ends_are_those_that_sql_counts(db):
    with opened_bars(db) as reader, connected(db) as connection:
        ends = dict(zip((held.partition.symbol for held in reader.held), ends_of(connection, reader.held), strict=True))
    number = Ends(5, 1_502_942_400, 1_502_942_400 + 4 * 3_600)
    # Text has no ends: its order is not that of time.
    assert ends == {"A": number, "B": Ends(5, None, None), "SOLUSDT": number}


@pytest.mark.parametrize("index", ["", "CREATE INDEX i ON klines (symbol, tf, ts)"])
def test_sizes_are_known_with_and_without_an_index(db, index):
    with sqlite3.connect(db) as connection:
        connection.execute(index)
    connection.close()
    with opened_bars(db) as reader:
        assert {partition.symbol: size for partition, size in reader.sizes().items()} == {"A": 5, "B": 5, "SOLUSDT": 5}
