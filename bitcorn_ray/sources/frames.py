"""Bars out of a pandas DataFrame, by the names of its columns (see `columns`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import BAR_COLUMNS, Bars
from bitcorn_ray.sources.columns import match_columns, match_extra
from bitcorn_ray.sources.times import milliseconds, parse_times

if TYPE_CHECKING:
    import pandas as pd


def key_of_frame(df: pd.DataFrame, name: str) -> str | None:
    """Return the symbol or timeframe of a frame, from its column or else its attributes; None if neither says it.

    name: "symbol" or "timeframe". Raises BitcornError if the column holds several.
    """
    found, _ = match_columns([str(column) for column in df.columns])
    if name in found and len(df):
        values = df[found[name]].unique()
        if len(values) > 1:
            raise BitcornError(
                f"the frame holds {len(values)} {name}s ({values[0]}, {values[1]}, ...): pass one at a time"
            )
        return str(values[0])
    return str(df.attrs[name]) if df.attrs.get(name) else None


def read_frame(df: pd.DataFrame, extra: Sequence[str] = ()) -> Bars:
    """Return the bars of a frame with OHLCV columns; times come from a column or a DatetimeIndex, if there is one.

    extra: further columns to keep. Times may be epochs, datetimes or text (without a zone: UTC).
    Raises BitcornError if a column is missing or is not numeric.
    """
    found, missing = match_columns([str(name) for name in df.columns])
    absent = [name for name in missing if name != "timestamp"]
    if absent:
        raise BitcornError(f"the frame has no column {', '.join(absent)}: it has {', '.join(map(str, df.columns))}")
    prices = {}
    further = match_extra([str(name) for name in df.columns], extra, found) if extra else {}
    for name, stored in {**{name: found[name] for name in BAR_COLUMNS[1:]}, **further}.items():
        try:
            prices[name] = np.ascontiguousarray(df[stored].to_numpy(dtype=np.float64, na_value=np.nan))
        except (TypeError, ValueError) as error:
            raise BitcornError(f"column {stored!r} holds values that are not numbers: {error}") from error
    kept = {name: prices.pop(name) for name in further}
    times = frame_times(df)
    timestamp = np.arange(len(df)) if times is None else times
    return Bars(timestamp=timestamp, **prices, extra=kept, timed=times is not None)


def frame_times(df: pd.DataFrame) -> NDArray[np.int64] | None:
    """Return the times of a frame as int64 milliseconds UTC (T,), or None if it has none.

    They come from the time column, else from a DatetimeIndex: epochs, datetimes or text (see `times`), as UTC without a
    zone. Raises BitcornError for missing times and for values that are no times.
    """
    import pandas as pd

    column = match_columns([str(name) for name in df.columns])[0].get("timestamp")
    times: pd.Series | pd.DatetimeIndex
    if column is not None:
        times = df[column]
    elif isinstance(df.index, pd.DatetimeIndex):
        times = df.index
    else:
        return None
    if missing := int(np.sum(times.isna())):
        raise BitcornError(f"{missing} rows have no timestamp: remove these rows")
    if pd.api.types.is_datetime64_any_dtype(times.dtype):
        # The index converts zones and Arrow types without boxing each value.
        index = pd.DatetimeIndex(times)
        times = index if index.tz is None else index.tz_convert(None)
    values = times.to_numpy()
    if values.dtype.kind == "M":
        return values.astype("M8[ms]").astype(np.int64)
    if values.dtype.kind == "O":
        try:
            return parse_times(pa.array(values), f"column {column!r}").ms
        except pa.ArrowException as error:
            raise BitcornError(f"column {column!r} holds {values[0]!r}, which is no time: {error}") from error
    return milliseconds(values, f"column {column!r}")
