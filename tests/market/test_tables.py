import sqlite3

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.connection import connected
from bitcorn_ray.market.tables import bar_tables


def tables(path, *statements):
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    with connected(path) as connection:
        return bar_tables(connection)


def test_tables_and_views_are_known_by_their_columns(tmp_path):
    found = tables(
        tmp_path / "a.db",
        "CREATE TABLE Bars (TS INTEGER, Open REAL, High REAL, Low REAL, Close REAL, Volume REAL, Symbol TEXT)",
        "CREATE INDEX i ON Bars (Symbol, TS)",
        "CREATE TABLE notes (ts INTEGER, note TEXT)",
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
    with pytest.raises(BitcornError, match=r"has no table with ts or timestamp.*notes \(ts, note\)"):
        tables(tmp_path / "a.db", "CREATE TABLE notes (ts INTEGER, note TEXT)")
