"""Forecasts of one partition as arrays, and as the rows that people and files get.

Shapes: N cutoffs, H horizons, K coverage levels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.market.partition import Partition, timeframe_ms

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Forecasts", "band_name"]

Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Forecasts:
    """What a model says at N cutoffs.

    cutoffs: (N,) int64 ms, opening of each last bar that is known. close: (N,) its price. returns, volatilities:
    (N, H), log return and its standard deviation. widths: (N, K, H), half-widths of the bands in units of the
    volatility, infinite where no band can be promised. sample: (N,), see `learning.bands.sample_of`.
    left_out: how many cutoffs that were asked for have no forecast, by the reason.
    """

    partition: Partition
    horizons: tuple[int, ...]
    coverages: tuple[float, ...]
    cutoffs: NDArray[np.int64]
    close: Floats
    returns: Floats
    volatilities: Floats
    widths: Floats
    sample: NDArray[np.str_]
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cutoffs)

    def to_table(self) -> pa.Table:
        """A row for each cutoff and horizon.

        symbol, timeframe, cutoff (opening of the last known bar), horizon (bars), time (opening of the bar forecast),
        return (log), volatility (of that return), price (last close x exp(return)), lo and hi of each band, and sample.
        """
        count, horizons = len(self.cutoffs), np.asarray(self.horizons, np.int32)
        step, every = timeframe_ms(self.partition.timeframe), len(horizons)
        returns = self.returns.astype(np.float64)
        volatilities = self.volatilities.astype(np.float64)
        close = self.close[:, None]
        columns: dict[str, pa.Array] = {
            "symbol": _repeated(self.partition.symbol, count * every),
            "timeframe": _repeated(self.partition.timeframe, count * every),
            "cutoff": _times(np.repeat(self.cutoffs, every)),
            "horizon": pa.array(np.tile(horizons, count)),
            "time": _times((self.cutoffs[:, None] + horizons * np.int64(step)).ravel()),
            "return": pa.array(returns.ravel()),
            "volatility": pa.array(volatilities.ravel()),
            "price": pa.array((close * np.exp(returns)).ravel()),
        }
        for place, coverage in enumerate(self.coverages):
            half = self.widths[:, place].astype(np.float64) * volatilities
            with np.errstate(over="ignore"):
                columns[band_name("lo", coverage)] = pa.array((close * np.exp(returns - half)).ravel())
                columns[band_name("hi", coverage)] = pa.array((close * np.exp(returns + half)).ravel())
        marks = pa.array(np.repeat(self.sample, every).tolist(), pa.string())
        columns["sample"] = marks.dictionary_encode()
        return pa.table(columns)

    def to_frame(self) -> pd.DataFrame:
        """The same as a frame; its attribute "left_out" holds the counts."""
        frame: pd.DataFrame = self.to_table().to_pandas(strings_to_categorical=False)
        for name in ("symbol", "timeframe", "sample"):
            frame[name] = frame[name].astype(object)
        frame.attrs["left_out"] = dict(self.left_out)
        return frame


def band_name(side: str, coverage: float) -> str:
    """Column of a band's bound.

    >>> band_name("lo", 0.95)
    'lo95'
    """
    return f"{side}{coverage * 100:g}"


def _repeated(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [text])


def _times(milliseconds: NDArray[np.int64]) -> pa.Array:
    return pa.array(milliseconds, pa.timestamp("ms", "UTC"))
