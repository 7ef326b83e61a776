"""What a column of bars may be called, and in which unit its times are: the one place to teach the reader a new name.

Databases and files go through the same two functions, so that a name understood in one is understood in the other.
Columns are matched by name, without case, never by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

__all__ = ["BAR_COLUMNS", "PRICE_COLUMNS", "is_number", "match_columns", "milliseconds", "mixes_units"]

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

    ``where`` names the column in errors. Raises BitcornError for what is not a number, for fractions of a millisecond
    and for times beyond the year 5138 (microseconds).
    """
    if times.dtype.kind not in "iuf":
        if len(times) == 0:
            return np.zeros(0, np.int64)
        raise BitcornError(f"{where} holds {times[0]!r}: times must be integers, epoch seconds or milliseconds")
    wide = times.astype(np.float64 if times.dtype.kind == "f" else np.int64, copy=False)
    if not (finite := np.isfinite(wide)).all():
        raise BitcornError(f"{where} holds {times[~finite][0]}, which is not finite: remove these rows")
    usable = (wide >= 0) & (wide < _FIRST_MICROSECONDS)
    if not usable.all():
        raise BitcornError(f"{where} holds {times[~usable][0]}: times must be epoch seconds or milliseconds")
    if len(wide) and wide.min() < _FIRST_MILLISECONDS:
        wide = np.where(wide < _FIRST_MILLISECONDS, wide * 1000, wide)
    whole = np.round(wide)
    # Seconds with decimals are not exact in binary: a hundredth of a millisecond is their rounding.
    if (fractions := np.abs(wide - whole) > 0.01).any():
        raise BitcornError(f"{where} holds {times[fractions][0]}: times must be whole milliseconds")
    return whole.astype(np.int64)


def mixes_units(first: float | None, last: float | None) -> bool:
    """Tell whether the smallest and the largest time of a column are seconds and milliseconds.

    >>> mixes_units(1_502_942_400, 1_502_942_400_000)
    True
    """
    numbers = isinstance(first, int | float) and isinstance(last, int | float)
    return numbers and first < _FIRST_MILLISECONDS <= last  # type: ignore[operator]


def is_number(kind: pa.DataType) -> bool:
    """Tell whether an Arrow column holds numbers, or nothing but nulls."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))
