"""What a column of bars may be called, and in which unit its times are: the one place to teach the reader a new name.

Databases and files go through the same two functions, so that a name understood in one is understood in the other.
Columns are matched by name, without case, never by position.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from bitcorn_ray.market.times import UNIT_BOUNDS, milliseconds

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


def mixes_units(first: float | None, last: float | None) -> bool:
    """Tell whether the smallest and the largest time of a column are seconds and milliseconds.

    >>> mixes_units(1_502_942_400, 1_502_942_400_000)
    True
    """
    numbers = isinstance(first, int | float) and isinstance(last, int | float)
    return numbers and first < UNIT_BOUNDS[1][1] <= last  # type: ignore[operator]


def is_number(kind: pa.DataType) -> bool:
    """Tell whether an Arrow column holds numbers, or nothing but nulls."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))
