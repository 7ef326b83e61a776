"""What the audit does to bars: stretches of them, gaps, crashes and missing values put in, and other futures.

Shapes: T bars.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.bars import PRICE_COLUMNS, Bars, modal_step

__all__ = ["FUTURES", "SCENES", "Rows", "Scene", "UncheckedBars", "places_of"]

Rows = NDArray[np.int64]

_HOUR = 3_600_000  # milliseconds
_COLUMNS = {"prices": PRICE_COLUMNS, **{name: (name,) for name in (*PRICE_COLUMNS, "volume", "timestamp")}}
_FACTORS = {"prices": (17, 0.05, np.nan), "volume": (0, 1e3, np.nan), "low": (1e-4,), "high": (1.7,), "close": (0.97,)}
# What is done to some bars: the columns, and a function of each column.
_EDITS: dict[str, tuple[str, Any]] = {
    **{f"{name} x {k:g}": (name, partial(np.multiply, k)) for name, factors in _FACTORS.items() for k in factors},
    "other opens": ("open", lambda x: 1.01 * x),
    "prices of 1": ("prices", np.ones_like),
    "swinging prices": ("prices", lambda x: x * (1.0 + 0.3 * np.sin(np.arange(1.0, len(x) + 1)))),
    "prices reversed": ("prices", lambda x: x[::-1].copy()),
    "later times": ("timestamp", lambda x: x + 1009 * _HOUR),
}
FUTURES = [name for name in _EDITS if "nan" not in name]
SCENES = ("", "a gap", "prices of 1", "volume x 0", "", "prices x nan", "low x 0.0001", "prices x 17", "volume x nan")


@dataclass(frozen=True)
class Scene:
    """Bars to compute.

    rows: which of the audited bars each of them is, (T,). put_in: what was done to them, in words.
    """

    bars: Bars
    rows: Rows
    put_in: str = ""

    def take(self, rows: slice | Rows) -> Scene:
        """Return some rows of it."""
        return replace(self, bars=self.bars.take(rows), rows=self.rows[rows])

    def edited(self, edit: str, *parts: slice) -> Scene:
        """Return it with some rows changed, as one of `FUTURES` or `SCENES` says."""
        if edit == "a gap":
            return self.take(np.delete(np.arange(len(self.rows)), parts[0]))
        (name, function), extra = _EDITS[edit], self.bars.extra
        columns: dict[str, Any] = {each: column.copy() for each, column in {**self.bars.columns(), **extra}.items()}
        for each in columns.keys() & {*_COLUMNS[name], *(extra if name == "volume" else ())}:
            for part in parts:
                columns[each][part] = function(columns[each][part])
        return replace(self, bars=replace(self.bars, extra={each: columns.pop(each) for each in extra}, **columns))


class UncheckedBars(Bars):
    """Bars that may have missing values."""

    def require_usable(self) -> None:
        """Let missing values pass."""


def places_of(bars: Bars, memory: int, rng: np.random.Generator) -> list[Rows]:
    """Rows by kind, best first: extremes, changes of volatility, gaps, hours to months begun, ends, and any."""
    number, log_p = np.arange(len(bars)), np.log(bars.close)
    moved = np.abs(np.diff(log_p, prepend=log_p[0]))
    calm = np.log(np.convolve(moved, np.ones(50), "same") + 1e-9)
    turns = np.abs(np.roll(calm, -25) - np.roll(calm, 25))
    scores = [bars.high, -bars.low, bars.volume, moved, turns, bars.high / bars.low, -bars.volume]
    parts = [part for part in np.array_split(number, 256) if len(part)]
    highest = [(score, np.array([part[np.argmax(score[part])] for part in parts])) for score in scores]
    places = [rows[np.argsort(-score[rows], kind="stable")] for score, rows in highest]
    if bars.timestamp is not None:
        late = np.diff(bars.timestamp, prepend=bars.timestamp[0])
        gaps = number[late > modal_step(bars.timestamp)]
        months = bars.timestamp.view("M8[ms]").astype("M8[M]").astype(np.int64)
        periods = [(bars.timestamp - 96 * _HOUR) // (hours * _HOUR) for hours in (1, 4, 24, 168)]
        begun = [number[np.diff(period, prepend=period[0]) != 0] for period in (*periods, months)]
        places += [gaps[np.argsort(-late[gaps], kind="stable")], *(rng.permutation(rows) for rows in begun)]
    ends = np.array([memory, len(bars) - 2, memory + 1, max(memory - 1, 0), len(bars) - 3, memory + memory // 2])
    return [*places, ends, rng.permutation(number)[:10_000]]
