"""Bars as arrays, the common input of all computations, and their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

if TYPE_CHECKING:
    import pandas as pd

PRICE_COLUMNS = ("open", "high", "low", "close")
BAR_COLUMNS = ("timestamp", *PRICE_COLUMNS, "volume")

_SAMPLE = 1_024
_GRID_BARS = 2_048


@dataclass(frozen=True, kw_only=True, eq=False)
class Bars:
    """T bars of one partition.

    timestamp: (T,) int64, milliseconds UTC of each bar's open.
    open, high, low, close, volume: (T,) float64; prices in the quote currency, volume in the base currency.
    extra: further columns (T,) float64 by name, such as `quote_volume`; only the requested ones.
    timed: False if the source has no times, and timestamp contains row numbers.
    """

    timestamp: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    extra: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    timed: bool = True

    def __post_init__(self) -> None:
        if taken := sorted(set(self.extra) & {*BAR_COLUMNS, "symbol", "timeframe"}):
            raise BitcornError(f"further columns {', '.join(taken)} have the names of bar columns: rename them")
        lengths = {name: len(column) for name, column in {**self._own(), **self.extra}.items()}
        if len(set(lengths.values())) > 1:
            raise BitcornError(f"columns of bars differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.close)

    def columns(self) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
        """Return the arrays by column name, without `extra`, and without `timestamp` if the bars have no times."""
        return {name: column for name, column in self._own().items() if self.timed or name != "timestamp"}

    def take(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Bars:
        """Return the chosen rows, as a view if `rows` is a slice."""
        columns: dict[str, Any] = {name: column[rows] for name, column in self._own().items()}
        return Bars(**columns, extra={name: column[rows] for name, column in self.extra.items()}, timed=self.timed)

    def with_extra(self, names: Sequence[str]) -> Bars:
        """Return the bars with these further columns only. Raises BitcornError for a column that they do not have."""
        if absent := [name for name in names if name not in self.extra]:
            known = ", ".join(self.extra) or "none"
            raise BitcornError(
                f"the bars have no further column {', '.join(absent)} (they have {known}): load them with it"
            )
        if set(names) == set(self.extra):
            return self
        return replace(self, extra={name: self.extra[name] for name in names})

    def read_only(self) -> Bars:
        """Return the same bars as contiguous, read-only arrays."""
        columns: dict[str, Any] = {}
        for name, column in {**self._own(), **self.extra}.items():
            columns[name] = np.ascontiguousarray(column).view()
            columns[name].flags.writeable = False
        extra = {name: columns.pop(name) for name in self.extra}
        return Bars(**columns, extra=extra, timed=self.timed)

    def require_usable(self) -> None:
        """Check that features can be computed from these bars.

        Raises BitcornError for times out of order or repeated, missing values, prices that are not positive, and
        negative volumes, with the first such bar.
        """
        if self.timed:
            require_chronology(self.timestamp)
        for name in (*PRICE_COLUMNS, "volume"):
            column = getattr(self, name)
            bad = ~(np.isfinite(column) & ((column >= 0) if name == "volume" else (column > 0)))
            if bad.any():
                row = int(bad.argmax())
                want = "a finite number of at least 0" if name == "volume" else "a finite number above 0"
                raise BitcornError(
                    f"{name} must be {want}, but is {column[row]} in {int(bad.sum())} of {len(self)} bars, first at "
                    f"{self.describe(row)}: remove or repair these bars"
                )

    def grid_step(self) -> int:
        """Return the most frequent distance of the first bars in milliseconds, 0 without times.

        Only the first bars count, so that appended bars do not change the grid.
        """
        return modal_step(self.timestamp[:_GRID_BARS]) if self.timed else 0

    def describe(self, row: int) -> str:
        """Return the time of a row, or its number if the bars have no times, for messages."""
        return show_time(int(self.timestamp[row])) if self.timed else f"row {row}"

    def frame_columns(self) -> dict[str, Any]:
        """Return the columns of a frame: `timestamp` is datetime64[ms, UTC]."""
        import pandas as pd

        columns: dict[str, Any] = {**self.columns(), **self.extra}
        if self.timed:
            columns["timestamp"] = pd.DatetimeIndex(self.timestamp.view("M8[ms]")).tz_localize("UTC")
        return columns

    def to_frame(self) -> pd.DataFrame:
        """Return a frame of the bar columns."""
        import pandas as pd

        return pd.DataFrame(self.frame_columns(), copy=False)

    def _own(self) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
        return {name: getattr(self, name) for name in BAR_COLUMNS}


def require_chronology(timestamp: NDArray[np.int64]) -> None:
    """Raise BitcornError if times do not rise from bar to bar, with the first such bar."""
    steps = np.diff(timestamp)
    if (steps > 0).all():
        return
    row = int((steps <= 0).argmax()) + 1
    fault = "is repeated" if steps[row - 1] == 0 else "follows a later one"
    raise BitcornError(
        f"timestamps must rise: {show_time(int(timestamp[row]))} {fault} (row {row}; {int((steps <= 0).sum())} such "
        "rows in all): sort the bars by timestamp and keep one bar for each"
    )


def joined(parts: Sequence[Bars]) -> Bars:
    """Return consecutive bars as one."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in BAR_COLUMNS}
    extra = {name: np.concatenate([part.extra[name] for part in parts]) for name in parts[0].extra}
    return Bars(**columns, extra=extra, timed=parts[0].timed)


def drop_duplicates(bars: Bars) -> Bars:
    """Keep the last stored row of each time; ``bars`` ascend in time, equal times in stored order."""
    if not bars.timed or len(bars) < 2:
        return bars
    last = np.append(np.diff(bars.timestamp) > 0, True)
    return bars if last.all() else bars.take(last)


def closed_bars(bars: Bars, step: int, now: int) -> Bars:
    """Return the bars that are closed at a time, both in ms; an open one still changes."""
    return bars.take(bars.timestamp + step <= now)


def modal_step(timestamp: NDArray[np.int64]) -> int:
    """Return the most frequent distance between neighbouring times, in milliseconds; 0 for fewer than two times."""
    steps = np.diff(timestamp)
    # Fast path: a distance of more than half of the steps is the most frequent one, and the first steps suggest it.
    first = steps[: _SAMPLE - 1]
    candidate = int(np.sort(first)[len(first) // 2]) if len(first) else 0
    if candidate > 0 and np.count_nonzero(steps == candidate) > len(timestamp) / 2:
        return candidate
    steps = steps[steps > 0]
    if len(steps) == 0:
        return 0
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])


def grid_phase(timestamp: NDArray[np.int64], step: int) -> int:
    """Return the most frequent remainder of times and a step: 0 for most, Monday for weeks, 8:00 for some days.

    >>> grid_phase(np.array([0, 3_600_000, 7_260_000]), 3_600_000)
    0
    """
    if len(timestamp) == 0 or step <= 0:
        return 0
    phases, counts = np.unique(timestamp % step, return_counts=True)
    return int(phases[counts.argmax()])


def missing_bars(timestamp: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Return how many bars are missing between neighbouring times: (T,) -> (T - 1,).

    In a gap that is no multiple of the step, these are the bars that would have fitted.
    """
    missing: NDArray[np.int64] = -(-np.diff(timestamp) // step) - 1
    return missing


def show_time(timestamp: int) -> str:
    """Return milliseconds UTC as text, for people and JSON.

    >>> show_time(1502942400000)
    '2017-08-17T04:00:00Z'
    """
    return str(np.datetime64(int(timestamp), "ms"))[:19] + "Z"


def show_times(timestamps: NDArray[np.int64]) -> list[str]:
    """Return many times as `show_time` writes them.

    >>> show_times(np.array([1502942400000, 0]))
    ['2017-08-17T04:00:00Z', '1970-01-01T00:00:00Z']
    """
    return [f"{text}Z" for text in timestamps.view("M8[ms]").astype("M8[s]").astype(str).tolist()]


def milliseconds_of(time: Any) -> int:
    """Return a time as milliseconds UTC. time: anything that pandas parses; without a zone it is UTC.

    >>> milliseconds_of("2026-01-01 02:00+01:00")
    1767229200000

    Raises BitcornError if it cannot be parsed.
    """
    import pandas as pd

    try:
        read = pd.Timestamp(time)
        if pd.isna(read):
            raise ValueError("no time")
        read = read.tz_localize("UTC") if read.tzinfo is None else read
        return int(read.value // 1_000_000)
    except (TypeError, ValueError, OverflowError) as error:
        raise BitcornError(f"{time!r} is not a time: write it as 2026-01-31 or 2026-01-31T12:00") from error
