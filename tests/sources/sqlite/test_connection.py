import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.sqlite.connection import connected, quoted

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


# Databases that other processes hold, left behind, or that may only be read


def process(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, capture_output=True)


LOCKER = """
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
c.execute("COMMIT")
"""


@pytest.mark.parametrize("seconds", [0.5, 60])
def test_a_lock_is_waited_for_and_then_reported(db, monkeypatch, seconds):
    monkeypatch.setattr("bitcorn_ray.sources.sqlite.connection.BUSY_SECONDS", 20 if seconds < 1 else 0.2)
    locker = subprocess.Popen([sys.executable, "-c", LOCKER, str(db), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert locker.stdout.readline() == "locked\n"
    try:
        if seconds < 1:
            with connected(db) as connection:
                assert connection.rows(f"SELECT count(*) FROM {TABLE}") == [(10,)]
        else:
            with pytest.raises(BitcornError, match=r"is locked by another process and stayed so for 0\.2 s"):
                connected(db).__enter__()
    finally:
        locker.kill()
        locker.communicate()


def test_a_reader_that_has_released_its_lock_does_not_stop_a_writer(db):
    write = f"import sqlite3; c = sqlite3.connect({str(db)!r}, timeout=0); c.execute('INSERT INTO {TABLE} VALUES (1)')"
    with connected(db) as connection:
        assert connection.rows(f"SELECT count(*) FROM {TABLE}") == [(10,)]
        with pytest.raises(subprocess.CalledProcessError):
            process(f"{write}; c.commit()")
        connection.release()
        process(f"{write}; c.commit()")
        assert connection.rows(f"SELECT count(*) FROM {TABLE}") == [(11,)]


KILLED = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA cache_size = 1")
c.execute("BEGIN")
c.execute('UPDATE "odd ""name" SET x = x + 1')
c.executemany('INSERT INTO "odd ""name" VALUES (?)', [("x" * 500,) for _ in range(5_000)])
os._exit(0)
"""


def test_what_a_killed_writer_left_is_rolled_back(db):
    process(KILLED, db)
    assert db.with_name("a.db-journal").stat().st_size > 0
    with connected(db) as connection:
        assert connection.rows(f"SELECT count(*), sum(x) FROM {TABLE}") == [(10, 45)]
    assert not db.with_name("a.db-journal").exists()


@pytest.fixture
def read_only():
    """A folder that becomes one that this process may only read, while `closed` is entered."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)

    @contextmanager
    def closed():
        folder.chmod(0o555)
        for file in folder.iterdir():
            file.chmod(0o444)
        as_root = os.geteuid() == 0
        if as_root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if as_root:
                os.seteuid(0)
            folder.chmod(0o755)

    yield folder, closed
    shutil.rmtree(folder)


def made(path, mode, keep=False):
    with sqlite3.connect(path):
        pass
    end = "os._exit(0)" if keep else "c.close()"
    process(
        f"import os, sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('PRAGMA journal_mode = {mode}');"
        f"c.execute('CREATE TABLE t (x)'); c.execute('INSERT INTO t VALUES (1)'); c.commit(); {end}"
    )
    return path


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_in_a_folder_that_may_only_be_read_is_read(read_only, mode):
    folder, closed = read_only
    path = made(folder / "a.db", mode)
    with connected(path) as connection:  # what is imported on first use is imported with all rights
        connection.rows("SELECT 1")
    for side in folder.glob("a.db-*"):
        side.unlink()
    with closed(), connected(path) as connection:
        assert connection.rows("SELECT x FROM t") == [(1,)]
    assert [file.name for file in folder.iterdir()] == ["a.db"]


def test_a_log_that_cannot_be_read_is_never_left_out(read_only):
    folder, closed = read_only
    path = made(folder / "a.db", "WAL", keep=True)
    (folder / "a.db-shm").unlink()
    with closed(), pytest.raises(BitcornError, match=r"has changes in a\.db-wal that can only be read where"):
        connected(path).__enter__()


def test_a_journal_that_cannot_be_rolled_back_is_told(read_only):
    folder, closed = read_only
    path = folder / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute('CREATE TABLE "odd ""name" (x INTEGER)')
    connection.close()
    process(KILLED, path)
    with closed(), pytest.raises(BitcornError, match=r"left in the middle of a write, which a\.db-journal can undo"):
        connected(path).__enter__()
    assert (folder / "a.db-journal").exists()


def test_a_database_that_changed_while_it_was_read_without_locks_is_not_trusted(read_only):
    folder, closed = read_only
    path = made(folder / "a.db", "WAL")

    def read_while_it_is_written():
        with closed(), connected(path):
            if os.geteuid() == 65534:
                os.seteuid(0)
            folder.chmod(0o755)
            path.chmod(0o644)
            write = "c.execute('INSERT INTO t VALUES (2)'); c.commit()"
            process(f"import sqlite3; c = sqlite3.connect({str(path)!r}); {write}")

    with pytest.raises(BitcornError, match="was changed while it was read"):
        read_while_it_is_written()


@pytest.mark.parametrize("content", [b"x" * 600, pickle.dumps({"a": 1}), b"SQLite format 3\x00" + b"\x00" * 4_000])
def test_no_file_is_changed_by_an_attempt_to_read_it(tmp_path, content):
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(BitcornError, match=r"x\.db cannot be read as a SQLite database"):
        connected(path).__enter__()
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
