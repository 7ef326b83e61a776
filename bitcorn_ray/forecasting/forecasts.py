"""The forecasts of one partition as arrays, and as rows of a table.

Shapes: N cutoffs, H horizons, K coverage levels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.timeframe import timeframe_ms

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Forecasts:
    """Forecasts at N cutoffs.

    cutoffs: (N,) int64 ms, open time of the last known bar. close: (N,) its price. returns, volatilities: (N, H), log
    return and its standard deviation. widths: (N, K, H), half-widths of the bands in units of the volatility, infinite
    if there are too few scores for a band. sample: (N,), see `bands.data_split_of`. left_out: number of requested
    cutoffs without a forecast, by reason.
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

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return a row for each cutoff and horizon, by column.

        cutoff (open time of the last known bar), horizon (bars), time (open time of the forecast bar), return (log),
        volatility (of that return), price (last close x exp(return)), lo and hi of each band, and sample.
        """
        horizons = np.asarray(self.horizons, np.int32)
        step, count = timeframe_ms(self.partition.timeframe), len(horizons)
        returns, volatilities = (values.astype(np.float64) for values in (self.returns, self.volatilities))
        close = self.close[:, None]
        columns: dict[str, NDArray[Any]] = {
            "cutoff": np.repeat(self.cutoffs, count).view("M8[ms]"),
            "horizon": np.tile(horizons, len(self)),
            "time": (self.cutoffs[:, None] + horizons * np.int64(step)).ravel().view("M8[ms]"),
            "return": returns.ravel(),
            "volatility": volatilities.ravel(),
            "price": (close * np.exp(returns)).ravel(),
        }
        for level, coverage in enumerate(self.coverages):
            half = self.widths[:, level].astype(np.float64) * volatilities
            with np.errstate(over="ignore"):
                columns[band_name("lo", coverage)] = (close * np.exp(returns - half)).ravel()
                columns[band_name("hi", coverage)] = (close * np.exp(returns + half)).ravel()
        columns["sample"] = np.repeat(self.sample, count)
        return columns

    def to_table(self) -> pa.Table:
        """Return a table of symbol, timeframe and the columns, times in UTC."""
        columns = self.columns()
        count, marks = len(columns["sample"]), columns.pop("sample")
        kinds, codes = np.unique(marks, return_inverse=True)
        names = {"symbol": self.partition.symbol, "timeframe": self.partition.timeframe}
        zeros = np.zeros(count, np.int32)
        table = {name: pa.DictionaryArray.from_arrays(zeros, pa.array([text])) for name, text in names.items()}
        for name, values in columns.items():
            table[name] = pa.array(values, pa.timestamp("ms", "UTC")) if values.dtype.kind == "M" else pa.array(values)
        table["sample"] = pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(kinds.tolist(), pa.string()))
        return pa.table(table)

    def to_frame(self) -> pd.DataFrame:
        """Return the same as a frame; its attribute "left_out" holds the counts."""
        import pandas as pd

        columns: dict[str, Any] = {"symbol": self.partition.symbol, "timeframe": self.partition.timeframe}
        for name, values in self.columns().items():
            columns[name] = pd.DatetimeIndex(values).tz_localize("UTC") if values.dtype.kind == "M" else values
        columns["sample"] = columns["sample"].astype(object)
        frame = pd.DataFrame(columns, copy=False)
        frame.attrs["left_out"] = dict(self.left_out)
        return frame


def plain_table(table: pa.Table) -> pa.Table:
    """Return the table with plain text columns: the dictionaries of partitions differ."""
    kinds = [(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(kinds))


def band_name(side: str, coverage: float) -> str:
    """Return the column name of a band's bound.

    >>> band_name("lo", 0.95)
    'lo95'
    """
    return f"{side}{coverage * 100:g}"
