"""What baselines forecast from: the bars of one partition, and the rows that they may be fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

__all__ = ["History", "fitting_rows", "realised_returns", "realised_variances"]

Float = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """Bars of one partition, T rows in time order.

    timestamps: int64 ms at which each bar opens. high, low, close: prices above 0. timeframe_ms: length of a bar.
    Raises BitcornError where lengths differ, times don't ascend or prices are not above 0.
    """

    timestamps: Rows
    high: Float
    low: Float
    close: Float
    timeframe_ms: int

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.timestamps, self.high, self.low, self.close)}
        if len(lengths) != 1 or lengths == {0}:
            raise BitcornError(f"timestamps, high, low and close have {sorted(lengths)} rows: one each, of every bar")
        if self.timeframe_ms <= 0 or (np.diff(self.timestamps) <= 0).any():
            raise BitcornError(f"bars of {self.timeframe_ms} ms must have a length, and times that ascend")
        if not (np.isfinite(self.low) & (self.low > 0) & (self.high >= self.low) & (self.close > 0)).all():
            raise BitcornError("some prices are missing, not above 0, or lows above highs: clean the bars first")

    @property
    def returns(self) -> Float:
        """One-bar log returns (T,), the first 0; a missing bar's return is in that of the bar after."""
        log_close = np.log(self.close)
        return np.diff(log_close, prepend=log_close[0])

    @property
    def parkinson(self) -> Float:
        """Variance (T,) of each bar by its range, ln(high / low)^2 / (4 ln 2) (Parkinson 1980)."""
        result: Float = np.log(self.high / self.low) ** 2 / (4 * np.log(2))
        return result


def realised_returns(close: Float, horizons: Sequence[int]) -> Float:
    """Log return (T, H) of the h bars after each row, NaN in the last h rows; bars are taken as they follow."""
    log_close = np.log(np.asarray(close, np.float64))
    ahead = np.full((len(log_close), len(horizons)), np.nan)
    for j, horizon in enumerate(horizons):
        ahead[: max(0, len(log_close) - horizon), j] = log_close[horizon:] - log_close[:-horizon]
    return ahead


def realised_variances(close: Float, horizons: Sequence[int]) -> Float:
    """Sum (T, H) of the h squared one-bar log returns after each row, NaN in the last h rows."""
    one_bar = np.diff(np.log(np.asarray(close, np.float64)))
    total = np.concatenate([[0.0], np.cumsum(one_bar**2)])
    ahead = np.full((len(total), len(horizons)), np.nan)
    for j, horizon in enumerate(horizons):
        ahead[: max(0, len(total) - horizon), j] = total[horizon:] - total[:-horizon]
    return ahead


def fitting_rows(fit: Rows, horizon: int, *known: NDArray[np.floating]) -> Rows:
    """Of the rows `fit`, ascending, those to fit on for a horizon: labels end within them, and all that is known is.

    known: arrays (T,) or (T, K) that must be finite at a row. A label ends h rows after its row, and counts if that is
    no later than the last row of `fit`. Raises BitcornError where fewer than two rows are left.
    """
    rows = fit[fit + horizon <= fit[-1]] if len(fit) else fit
    for column in known:
        finite = np.isfinite(column[rows])
        rows = rows[finite if finite.ndim == 1 else finite.all(1)]
    if len(rows) < 2:
        raise BitcornError(
            f"{len(fit)} rows to fit on leave {len(rows)} whose horizon of {horizon} bars ends within them and whose "
            "inputs and outcome are known: give more bars"
        )
    return rows
