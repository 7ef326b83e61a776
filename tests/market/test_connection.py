import sqlite3
import subprocess
import sys
import threading

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.connection import connected, quoted

TABLE = quoted('odd "name')


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute('CREATE TABLE "odd ""name" (x INTEGER)')
        connection.executemany('INSERT INTO "odd ""name" VALUES (?)', [(i,) for i in range(10)])
    return path


def test_names_are_quoted(db):
    with connected(db) as connection:
        assert connection.rows(f"SELECT count(*) FROM {TABLE}") == [(10,)]


def test_parameters_are_bound_in_the_order_of_their_names(db):
    with connected(db) as connection:
        query = f"SELECT x FROM {TABLE} WHERE x > :low AND x < :high"
        assert connection.rows(query, {"low": 3, "high": 6}) == [(4,), (5,)]


def test_a_database_is_never_written_nor_created(db, tmp_path):
    with pytest.raises(BitcornError, match=r"readonly|read-only"), connected(db) as connection:
        connection.rows("CREATE TABLE y (z)")
    with pytest.raises(BitcornError, match="no database at"), connected(tmp_path / "none.db"):
        pass
    assert not (tmp_path / "none.db").exists()


def test_one_connection_sees_one_state(db):
    with sqlite3.connect(db) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
    with connected(db) as connection:
        assert connection.rows(f"SELECT count(*) FROM {TABLE}") == [(10,)]
        insert = f"INSERT INTO {TABLE} VALUES (99)"
        code = f"import sqlite3; c = sqlite3.connect({str(db)!r}); c.execute({insert!r}); c.commit()"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert connection.rows(f"SELECT count(*) FROM {TABLE}") == [(10,)]
    with connected(db) as connection:
        assert connection.rows(f"SELECT count(*) FROM {TABLE}") == [(11,)]


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_text("not a database at all, " * 100)
    with pytest.raises(BitcornError, match="cannot be read as a SQLite database"), connected(tmp_path / "x.db") as c:
        c.rows("SELECT * FROM sqlite_schema")


def test_threads_have_connections_of_their_own(db):
    counts = []

    def read():
        with connected(db) as connection:
            counts.append(connection.rows(f"SELECT count(*) FROM {TABLE}")[0][0])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [10] * 4
