import sqlite3

import pytest

from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.sqlite.catalog import Catalog, RowSummary, summarise_rows
from bitcorn_ray.sources.sqlite.connection import connected
from bitcorn_ray.sources.sqlite.database import opened_database
from bitcorn_ray.sources.sqlite.tables import find_tables

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
    with connected(db) as connection:
        stored = Catalog(connection, find_tables(connection, SourceOptions())[0]).partitions
        summaries = summarise_rows(connection, stored)
        found = {entry.partition.symbol: summary for entry, summary in zip(stored, summaries, strict=True)}
    number = RowSummary(5, 1_502_942_400, 1_502_942_400 + 4 * 3_600)
    # Text has no ends: its order is not that of time.
    assert found == {"A": number, "B": RowSummary(5, None, None), "SOLUSDT": number}


@pytest.mark.parametrize("index", ["", "CREATE INDEX i ON klines (symbol, tf, ts)"])
def test_sizes_are_known_with_and_without_an_index(db, index):
    with sqlite3.connect(db) as connection:
        connection.execute(index)
    connection.close()
    with opened_database(db) as reader:
        assert {partition.symbol: size for partition, size in reader.sizes().items()} == {"A": 5, "B": 5, "SOLUSDT": 5}
