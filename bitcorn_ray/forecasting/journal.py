"""The journal of a watched source: the forecasts at each bar and their outcomes, one JSON object a line.

    {"kind": "forecast", "symbol", "timeframe", "cutoff", "made", "close", "sample", "horizons", "return", "volatility",
     "ewma", "widths": {"0.5": [...], ...}}
    {"kind": "skipped", "symbol", "timeframe", "cutoff", "why"}
    {"kind": "outcome", "symbol", "timeframe", "cutoff", "horizon", "return", "variance"}

The journal is append-only. All lines of one poll are written together, and are on disk before the next poll. Only the
last line can be cut short by a crash; it is removed when the journal is opened again. Numbers that are not finite are
null: a band with too few scores, an outcome that is unknown because bars are missing.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError


class Journal:
    """A journal that this process holds exclusively until it is closed.

    Raises BitcornError if it cannot be written, if another process holds it, and if the file is not a journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise BitcornError(f"the journal {self.path} cannot be written: {error.strerror or error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise BitcornError(f"{self.path} is being written by another watch: give another --out") from error
        self._remove_torn_line()

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield all entries in order. Raises BitcornError for lines that are not entries."""
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    entry = json.loads(line)
                    known = entry["kind"] in ("forecast", "skipped", "outcome")
                except (ValueError, TypeError, KeyError):
                    known = False
                if not known:
                    raise BitcornError(f"line {number} of {self.path} is not an entry of a journal: give another --out")
                yield entry

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Append entries, all or none; they are on disk when this returns.

        Raises BitcornError if they cannot be written.
        """
        if not entries:
            return
        text = "".join(f"{json.dumps(entry, allow_nan=False)}\n" for entry in entries).encode()
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = 0
            while written < len(text):
                written += os.write(self._file, text[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, end)
            raise BitcornError(f"the journal {self.path} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Release the journal."""
        os.close(self._file)

    def _remove_torn_line(self) -> None:
        size = os.lseek(self._file, 0, os.SEEK_END)
        content = self.path.read_bytes() if size else b""
        whole = content.rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(self._file, whole)
