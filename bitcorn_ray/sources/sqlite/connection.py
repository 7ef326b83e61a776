"""One read-only connection to a SQLite database, through ADBC straight into Arrow.

1. Everything read between two calls of `release` is one state of the database, whatever other processes write. Reading
   never creates or changes a database, and holds its lock only that long. (SQLite may leave the two small side files of
   a database in WAL mode.)
2. A locked database is tried again for `BUSY_SECONDS`.
3. The rollback journal of a killed writer is rolled back, as by any SQLite program that opens the database; this needs
   write access. A database in WAL mode in a read-only folder is read as immutable if it has no -wal file, and checked
   to be unchanged afterwards.

ADBC has its own copy of SQLite, and two copies in one process do not see each other's locks: do not read a database
here while a thread of this process writes it through another copy, such as Python's sqlite3. Other processes may write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.location import local_file, remedy_for_missing

BUSY_SECONDS = 30.0
OWN_TABLES = "bitcorn_"
"""Start of the names of tables that this package keeps beside the bars, see `sources.journal`."""
"""Seconds for which a locked database is tried again."""


def quoted(identifier: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


class Connection:
    """One connection to a database, read-only, inside one transaction until it is released."""

    def __init__(self, path: Path, connection: Any) -> None:
        self.path, self._connection = path, connection

    def table(self, sql: str, keys: Mapping[str, Any] | None = None, batch_rows: int = 4_096) -> pa.Table:
        """Return the result of a query.

        keys: its named parameters, in the order of their first occurrence. batch_rows: ADBC decides a column's type by
        its first batch of rows and refuses another type later; it reserves memory for one batch.
        """
        options = {"adbc.sqlite.query.batch_rows": max(batch_rows, 1)}
        with self._connection.cursor(adbc_stmt_kwargs=options) as cursor:
            cursor.execute(sql, list((keys or {}).values()) or None)
            return cursor.fetch_arrow_table()

    def rows(self, sql: str, keys: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Return the result of a small query as Python values."""
        columns = [column.to_pylist() for column in self.table(sql, keys).columns]
        return list(zip(*columns, strict=True))

    def release(self) -> None:
        """End the transaction and release the lock; the next read sees a new state."""
        self._connection.commit()


def local_database(path: str | Path) -> Path:
    """Return the path of a database. Raises BitcornError for a URI: SQLite knows files only."""
    return local_file(path, "database", "bars go to an object store by `bitcorn export`")


@contextmanager
def connected(db_path: str | Path) -> Iterator[Connection]:
    """Open a database for reading.

    Raises BitcornError if it is missing, cannot be read, stays locked, or needs a recovery that only a writer can do.
    """
    from adbc_driver_manager import Error as AdbcError

    path = local_database(db_path)
    if not path.is_file():
        raise BitcornError(f"no database at {path}{remedy_for_missing(path)}")
    try:
        with ExitStack() as stack:
            try:
                connection = _opened(stack, path, "mode=ro")
            except AdbcError as error:
                if "readonly database" not in str(error) and "unable to open" not in str(error):
                    raise
                stack.close()
                connection = _opened_with_care(stack, path)
            yield connection
    except (AdbcError, OSError) as error:
        what = str(error).partition("\n")[0].rpartition(": ")[2]
        if what == "database is locked":
            raise BitcornError(
                f"{path} is locked by another process and stayed so for {BUSY_SECONDS:g} s: wait until it is done, or "
                "let the writer use WAL mode (PRAGMA journal_mode = WAL), in which readers need not wait"
            ) from error
        raise BitcornError(f"{path} cannot be read as a SQLite database: {what}") from error


def _opened(stack: ExitStack, path: Path, mode: str) -> Connection:
    """Open a database and read from it, which is when SQLite reports failures."""
    from adbc_driver_sqlite import dbapi

    uri = f"{path.absolute().as_uri()}?{mode}"
    database = Connection(path, stack.enter_context(dbapi.connect(uri)))
    database.rows(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    database.rows("SELECT count(*) FROM sqlite_schema")
    return database


def _opened_with_care(stack: ExitStack, path: Path) -> Connection:
    """Open a database that SQLite cannot open without write access."""
    from adbc_driver_manager import Error as AdbcError

    real = path.resolve()  # SQLite's files are beside the database, not beside a link to it
    journal, log = (real.with_name(real.name + ending) for ending in ("-journal", "-wal"))
    if journal.exists() and journal.stat().st_size:
        try:
            with ExitStack() as recovery:
                _opened(recovery, path, "mode=rw")
        except AdbcError as error:
            raise BitcornError(
                f"{path} was left in the middle of a write, which {journal.name} can undo, but this process "
                "may not write it: open the database once with write access, or copy both files and read the copy"
            ) from error
        return _opened(stack, path, "mode=ro")
    if log.exists():
        raise BitcornError(
            f"{path} has changes in {log.name} that can only be read where its folder can be written: copy both files "
            "to such a folder, or let a process that may write it open and close it once"
        )
    before = _state(real)
    stack.callback(_require_unchanged, path, real, log, before)
    return _opened(stack, path, "mode=ro&immutable=1")


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _require_unchanged(path: Path, real: Path, log: Path, before: tuple[int, int]) -> None:
    if log.exists() or _state(real) != before:
        raise BitcornError(f"{path} was changed while it was read, without locks as its folder is read-only: try again")
