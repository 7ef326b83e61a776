"""Perturbations of bars, scenarios built by them, and the rows at which leaks are likely to show, for the audit.

Shapes: F features, T bars.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.bars import PRICE_COLUMNS, Bars, modal_step
from bitcorn_ray.market.timeframe import UNIT_MS, period_offset

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]

_HOUR = UNIT_MS["h"]
_COLUMNS = {"prices": PRICE_COLUMNS, **{name: (name,) for name in (*PRICE_COLUMNS, "volume", "timestamp")}}
_FACTORS = {"prices": (17, 0.05, np.nan), "volume": (0, 1e3, np.nan), "low": (1e-4,), "high": (1.7,), "close": (0.97,)}
PERTURBATIONS: dict[str, tuple[str, Any]] = {
    **{f"{name} x {k:g}": (name, partial(np.multiply, k)) for name, factors in _FACTORS.items() for k in factors},
    "other opens": ("open", lambda x: 1.01 * x),
    "prices of 1": ("prices", np.ones_like),
    "swinging prices": ("prices", lambda x: x * (1.0 + 0.3 * np.sin(np.arange(1.0, len(x) + 1)))),
    "prices reversed": ("prices", lambda x: x[::-1].copy()),
    "later times": ("timestamp", lambda x: x + 1009 * _HOUR),
}
"""By name: the columns that a perturbation changes, and the function that it applies to each of them."""
FUTURES = [name for name in PERTURBATIONS if "nan" not in name]
"""Perturbations of the bars after a cut."""
INJECTED = ("", "a gap", "prices of 1", "volume x 0", "", "prices x nan", "low x 0.0001", "prices x 17", "volume x nan")
"""Perturbations to inject before a cut, in turn; "" leaves the bars as they are."""


@dataclass(frozen=True)
class Scenario:
    """Bars to compute features of.

    rows: for each bar its row among the audited bars, (T,). injected: the perturbation of their past, for messages.
    values: the features, (F, T), once they are computed.
    """

    bars: Bars
    rows: Rows
    injected: str = ""
    values: Matrix = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: slice | Rows) -> Scenario:
        """Return some rows of the scenario."""
        return Scenario(self.bars.take(rows), self.rows[rows], self.injected)

    def perturbed(self, perturbation: str, *parts: slice) -> Scenario:
        """Return the scenario with some rows changed by a perturbation, or the first part left out by "a gap"."""
        if perturbation == "a gap":
            return self.take(np.delete(np.arange(len(self)), parts[0]))
        (group, function), extra = PERTURBATIONS[perturbation], self.bars.extra
        columns: dict[str, Any] = {name: column.copy() for name, column in {**self.bars.columns(), **extra}.items()}
        changed = {*_COLUMNS[group], *(extra if group == "volume" else ())}
        for name in columns.keys() & changed:
            for part in parts:
                columns[name][part] = function(columns[name][part])
        bars = replace(self.bars, extra={name: columns.pop(name) for name in extra}, **columns)
        return Scenario(bars, self.rows, self.injected)


class UncheckedBars(Bars):
    """Bars that may have missing values."""

    def require_usable(self) -> None:
        """Accept missing values."""


def suspicious_rows(bars: Bars, lookback: int, rng: np.random.Generator) -> list[Rows]:
    """Return rows at which leaks are likely to show, by kind, most likely first.

    Kinds: extremes of price, volume and returns, changes of volatility, gaps, starts of periods from an hour to a
    month, the ends of the warm-up and of the series, and random rows.
    """
    number, log_close = np.arange(len(bars)), np.log(bars.close)
    moves = np.abs(np.diff(log_close, prepend=log_close[0]))
    log_volatility = np.log(np.convolve(moves, np.ones(50), "same") + 1e-9)
    volatility_change = np.abs(np.roll(log_volatility, -25) - np.roll(log_volatility, 25))
    scores = [bars.high, -bars.low, bars.volume, moves, volatility_change, bars.high / bars.low, -bars.volume]
    parts = [part for part in np.array_split(number, 256) if len(part)]
    best = [(score, np.array([part[np.argmax(score[part])] for part in parts])) for score in scores]
    kinds = [rows[np.argsort(-score[rows], kind="stable")] for score, rows in best]
    if bars.timed:
        distance = np.diff(bars.timestamp, prepend=bars.timestamp[0])
        gaps = number[distance > modal_step(bars.timestamp)]
        months = bars.timestamp.view("M8[ms]").astype("M8[M]").astype(np.int64)
        lengths = [_HOUR, 4 * _HOUR, UNIT_MS["d"], UNIT_MS["w"]]
        periods = [(bars.timestamp - period_offset(length)) // length for length in lengths]
        starts = [number[np.diff(period, prepend=period[0]) != 0] for period in (*periods, months)]
        kinds += [gaps[np.argsort(-distance[gaps], kind="stable")], *(rng.permutation(rows) for rows in starts)]
    edges = [lookback, len(bars) - 2, lookback + 1, max(lookback - 1, 0), len(bars) - 3, lookback + lookback // 2]
    return [*kinds, np.array(edges), rng.permutation(number)[:10_000]]
