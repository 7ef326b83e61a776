"""What a column of bars may be called, and in which unit its times are: the one place to teach the reader a new name.

Databases and files go through the same two functions, so that a name understood in one is understood in the other.
Columns are matched by name, without case, never by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

__all__ = ["BAR_COLUMNS", "PRICE_COLUMNS", "match_columns", "milliseconds"]

PRICE_COLUMNS = ("open", "high", "low", "close")
BAR_COLUMNS = ("timestamp", *PRICE_COLUMNS, "volume")

# First match wins. `ts` stands before `timestamp`: where a table has both, `ts` is the number.
_NAMES: dict[str, tuple[str, ...]] = {
    "timestamp": ("ts", "timestamp"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
    "symbol": ("symbol",),
    "timeframe": ("timeframe",),
}

# 1e11 is March 1973 in milliseconds and the year 5138 in seconds: no bar of a traded market lies on the wrong side.
_FIRST_MILLISECONDS = 100_000_000_000
_FIRST_MICROSECONDS = 100_000_000_000_000


def match_columns(names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Find the columns of bars among ``names``.

    Returns what was found (our name to the stored name; ``symbol`` and ``timeframe`` only where present) and the
    bar columns that are missing.

    >>> match_columns(["TS", "Open", "high", "low", "close", "vol"])[1]
    ['volume']
    """
    stored = {name.strip().lower(): name for name in reversed(names)}
    found: dict[str, str] = {}
    for ours, spellings in _NAMES.items():
        for spelling in spellings:
            if spelling in stored:
                found[ours] = stored[spelling]
                break
    return found, [name for name in BAR_COLUMNS if name not in found]


def milliseconds(times: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Epoch seconds or milliseconds, told apart by their size row by row, as int64 milliseconds UTC.

    ``where`` names the column in errors. Raises BitcornError for text, fractions of a millisecond's unit and times
    beyond the year 5138 (microseconds).
    """
    if times.dtype.kind not in "iuf":
        example = times[0] if len(times) else ""
        raise BitcornError(f"{where} holds {example!r}: times must be integers, epoch seconds or milliseconds")
    if len(times) == 0:
        return times.astype(np.int64)
    if times.dtype.kind == "f" and not np.isfinite(times).all():
        raise BitcornError(f"{where} holds a time that is not finite: remove these rows")
    if times.min() < 0 or times.max() >= _FIRST_MICROSECONDS:
        wrong = times[(times < 0) | (times >= _FIRST_MICROSECONDS)][0]
        raise BitcornError(f"{where} holds {wrong}: times must be epoch seconds or milliseconds")
    if times.min() >= _FIRST_MILLISECONDS:
        return times.astype(np.int64)
    in_seconds = times < _FIRST_MILLISECONDS
    return np.where(in_seconds, np.round(times * 1000), times).astype(np.int64)
