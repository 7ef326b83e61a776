import sqlite3

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.sqlite.connection import connected
from bitcorn_ray.sources.sqlite.tables import find_tables


def tables(path, *statements):
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    with connected(path) as connection:
        return find_tables(connection, SourceOptions())[0]


def test_tables_and_views_are_known_by_their_columns(tmp_path):
    found = tables(
        tmp_path / "a.db",
        "CREATE TABLE Bars (TS INTEGER, Open REAL, High REAL, Low REAL, Close REAL, Volume REAL, Symbol TEXT)",
        "CREATE INDEX i ON Bars (Symbol, TS)",
        "CREATE TABLE notes (ts INTEGER, note TEXT)",
        "INSERT INTO Bars VALUES (1502942400, 1, 2, 0.5, 1, 1, 'X')",
        "CREATE VIEW seen AS SELECT * FROM Bars",
    )
    assert [(table.name, table.is_view, sorted(table.leading)) for table in found] == [
        ("Bars", False, ["Symbol"]),
        ("seen", True, []),
    ]
    assert found[0].has("symbol", "volume")
    assert not found[0].has("symbol", "timeframe")
    assert (found[0].column("close"), found[0].order) == ('"Close"', '"TS", rowid')


def test_a_database_without_bars_says_what_it_has(tmp_path):
    with pytest.raises(BitcornError, match=r"has no table with a time, open.*notes \(ts, note\)"):
        tables(tmp_path / "a.db", "CREATE TABLE notes (ts INTEGER, note TEXT)")


BARS = "ts, open, high, low, close, volume"
ROW = "VALUES (1502942400, 1, 2, 0.5, 1, 1)"


def found(path, *statements, **options):
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    with connected(path) as connection:
        bars, ignored = find_tables(connection, SourceOptions.of(**options))
        return [table.name for table in bars], {each.name: each.reason for each in ignored}


def test_what_only_looks_like_bars_is_ignored_with_the_reason(tmp_path):
    bars, ignored = found(
        tmp_path / "a.db",
        f"CREATE TABLE bars ({BARS})",
        f"INSERT INTO bars {ROW}",
        "CREATE TABLE orders (ts, open, high, price, close -- low, volume\n)",
        f"CREATE TABLE later ({BARS})",
        f"CREATE TABLE shops ({BARS})",
        "INSERT INTO shops VALUES (1502942400, 'at nine', 2, 0.5, 1, 1)",
        f"CREATE TABLE names ({BARS})",
        "INSERT INTO names VALUES ('monday', 1, 2, 0.5, 1, 1)",
        f"CREATE TABLE twice ({BARS}, o)",
        "CREATE VIEW gone AS SELECT * FROM nobody",
        "CREATE VIRTUAL TABLE words USING fts5(open, high, low, close, volume, ts)",
        'CREATE INDEX "open high low close volume ts" ON bars (ts)',
    )
    assert bars == ["bars"]
    assert "no column for low, volume" in ignored["orders"]
    assert ignored["later"] == "it is empty"
    assert ignored["shops"] == "column \"open\" of table shops holds 'at nine', which is not a number"
    assert ignored["names"] == "column \"ts\" of table names holds 'monday', which is not a time"
    assert "columns open, o could each be the open: choose one by --map open=open" in ignored["twice"]
    assert "cannot be read" in ignored["gone"]
    assert not any(name.startswith("words_") for name in ignored)


def test_a_table_that_is_asked_for_is_the_only_one(tmp_path):
    statements = [
        f"CREATE TABLE a ({BARS})",
        f"CREATE TABLE B ({BARS})",
        f"INSERT INTO a {ROW}",
        f"INSERT INTO B {ROW}",
    ]
    assert found(tmp_path / "a.db", *statements, table="b")[0] == ["B"]
    with connected(tmp_path / "a.db") as connection, pytest.raises(BitcornError, match="has no table 'c': it has a, B"):
        find_tables(connection, SourceOptions.of("c"))


def test_a_mapping_decides_and_where_none_of_the_tables_has_it_that_is_told(tmp_path):
    statements = ["CREATE TABLE a (ts, p1, high, low, close, volume)", f"INSERT INTO a {ROW}"]
    assert found(tmp_path / "a.db", *statements, mapping=["open=p1"])[0] == ["a"]
    with (
        connected(tmp_path / "a.db") as connection,
        pytest.raises(BitcornError, match="--map open=p2: there is no such"),
    ):
        find_tables(connection, SourceOptions.of(mapping=["open=p2"]))


def test_a_column_that_is_only_called_like_a_timeframe_is_none(tmp_path):
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE a ({BARS}, bar)")
        connection.execute(f"CREATE TABLE b ({BARS}, bar)")
        for i in (11, 17, 23):
            connection.execute("INSERT INTO a VALUES (?, 1, 2, 0.5, 1, 1, ?)", (1502942400 + i, i))
            connection.execute("INSERT INTO b VALUES (?, 1, 2, 0.5, 1, 1, '1H')", (1502942400 + i,))
    connection.close()
    with connected(path) as connection:
        assert [table.has("timeframe") for table in find_tables(connection, SourceOptions())[0]] == [False, True]


@pytest.mark.parametrize("name", ["period", "bar"])
def test_a_column_that_counts_bars_is_no_timeframe_though_some_counts_are(tmp_path, name):
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE a ({BARS}, {name})")
        for i in range(40):
            connection.execute("INSERT INTO a VALUES (?, 1, 2, 0.5, 1, 1, ?)", (1502942400 + i * 3600, i))
    connection.close()
    with connected(path) as connection:
        assert [table.has("timeframe") for table in find_tables(connection, SourceOptions())[0]] == [False]


def test_generated_columns_are_columns_too(tmp_path):
    statements = [
        "CREATE TABLE a (o, h, l, c, v, day, ts AS (day * 86400))",
        "INSERT INTO a VALUES (1, 2, 0, 1, 1, 9000)",
    ]
    assert found(tmp_path / "a.db", *statements)[0] == ["a"]
