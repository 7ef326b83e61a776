"""The journal of a watched source: what was forecast at each bar and what then happened, one JSON object a line.

    {"kind": "forecast", "symbol", "timeframe", "cutoff", "made", "close", "sample", "horizons", "return", "volatility",
     "ewma", "widths": {"0.5": [...], ...}}
    {"kind": "skipped", "symbol", "timeframe", "cutoff", "why"}
    {"kind": "outcome", "symbol", "timeframe", "cutoff", "horizon", "return", "variance"}

Lines are only ever added, all of one look at the source at once and on the disk before the next look. A line that was
cut short by a crash is the last one, and is cut off when the journal is opened again. Numbers that are not finite are
null: a band that could not be promised, an outcome that no one can know as bars are missing.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError

__all__ = ["Journal"]


class Journal:
    """A journal that this process alone adds to, until it is closed.

    Raises BitcornError where it cannot be written, where it is another process's, and where it is no journal.
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
        self._cut_off_torn_line()

    def read(self) -> Iterator[dict[str, Any]]:
        """Everything that has been added, in its order. Raises BitcornError for lines that are not a journal's."""
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    entry = json.loads(line)
                    known = entry["kind"] in ("forecast", "skipped", "outcome")
                except (ValueError, TypeError, KeyError):
                    known = False
                if not known:
                    raise BitcornError(f"line {number} of {self.path} is no journal's: give another --out")
                yield entry

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add entries, all or none; they are on the disk when this returns.

        Raises BitcornError where that cannot be done.
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
        """Let others add to it."""
        os.close(self._file)

    def _cut_off_torn_line(self) -> None:
        size = os.lseek(self._file, 0, os.SEEK_END)
        content = self.path.read_bytes() if size else b""
        whole = content.rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(self._file, whole)
