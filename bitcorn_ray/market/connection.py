"""One read-only connection to a SQLite database, through ADBC straight into Arrow.

Everything about one read happens in one connection and transaction: reading never creates, blocks or changes a
database, and sees one state of it. (Beside a database in WAL mode SQLite may leave its two small side files.) ADBC
brings its own copy of SQLite, and two copies in one process do not know of each other's locks: do not read a database
here that a thread of this same process is writing through another copy, such as Python's sqlite3. Other processes may
write as they like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitcorn_ray.errors import BitcornError

__all__ = ["Connection", "connected", "quoted"]

_BUSY_MS = 30_000


def quoted(identifier: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


class Connection:
    """One connection to a database, read-only, inside one transaction."""

    def __init__(self, path: Path, connection: Any) -> None:
        self.path, self._connection = path, connection

    def table(self, sql: str, keys: Mapping[str, Any] | None = None, batch_rows: int = 4_096) -> pa.Table:
        """Return the result of a query.

        keys: its named parameters, in the order in which they first occur. batch_rows: ADBC decides a column's type in
        its first batch and refuses another in a later one, so let there be one; but it reserves the memory for so many.
        """
        options = {"adbc.sqlite.query.batch_rows": max(batch_rows, 1)}
        with self._connection.cursor(adbc_stmt_kwargs=options) as cursor:
            cursor.execute(sql, list((keys or {}).values()) or None)
            return cursor.fetch_arrow_table()

    def rows(self, sql: str, keys: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Return the result of a small query as Python values."""
        columns = [column.to_pylist() for column in self.table(sql, keys).columns]
        return list(zip(*columns, strict=True))


@contextmanager
def connected(db_path: str | Path) -> Iterator[Connection]:
    """Open a database for reading. Raises BitcornError where it is missing or cannot be read."""
    from adbc_driver_manager import Error as AdbcError
    from adbc_driver_sqlite import dbapi

    path = Path(db_path).expanduser()
    if not path.is_file():
        raise BitcornError(f"no database at {path}: check the path")
    try:
        with dbapi.connect(f"{path.absolute().as_uri()}?mode=ro") as connection:
            database = Connection(path, connection)
            database.rows(f"PRAGMA busy_timeout = {_BUSY_MS}")
            yield database
    except (AdbcError, OSError) as error:
        what = str(error).partition("\n")[0].rpartition(": ")[2]
        raise BitcornError(f"{path} cannot be read as a SQLite database: {what}") from error
