"""Windows as arrays with their targets for one horizon, as `build_sequences` returns them.

Training does not copy windows; it works on their index, see `dataset`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.scaling import finite_rows, fit_scaler, scale
from bitcorn_ray.datasets.windows import gap_before, gather_windows, require_lengths, require_rows, window_index
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import modal_step, require_chronology
from bitcorn_ray.market.outcomes import forward_return, return_deviation

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

STRATEGIES = ("forward", "linear")


@dataclass(frozen=True)
class Sequences:
    """N windows: x (N, L, F), y_ret (N,), y_vol (N,), the scaler or None, and metadata with each window's origin."""

    x: NDArray[Any]
    y_ret: NDArray[Any]
    y_vol: NDArray[Any]
    scaler: StandardScaler | None
    metadata: dict[str, Any]


def make_sequences(
    *,
    matrix: NDArray[np.floating],
    close: NDArray[np.float64],
    timestamp: NDArray[np.int64] | None,
    feature_cols: list[str],
    seq_len: int,
    horizon: int,
    step: int | None,
    fill_strategy: str | None,
    max_gap_size: int | None,
    validate: bool,
    dtype: Any,
    fit: bool,
    scaler: StandardScaler | None,
    filled: NDArray[np.bool_] | None = None,
    filled_forward: bool = False,
) -> Sequences:
    """Build the windows of (T, F) rows; `bitcorn_ray.data_loader.build_sequences` documents every parameter.

    timestamp: (T,) int64 ms. step: the timeframe in ms, by default the most frequent distance. filled: (T,) rows of
    bars that were filled. filled_forward: filled bars depend on no later bar, so that windows may end on them.
    """
    require_lengths([horizon], seq_len)
    require_rows([horizon], seq_len, len(matrix))
    if timestamp is None and (validate or fill_strategy):
        raise BitcornError("the rows have no timestamp: add one, or pass validate_chronology=False and fill no gaps")
    if timestamp is not None and (validate or fill_strategy):
        require_chronology(timestamp)
        step = step or modal_step(timestamp)
    source_row = np.arange(len(matrix))
    excluded = None if filled_forward else filled
    if fill_strategy and timestamp is not None and step:
        rows = fill_gaps(timestamp, np.column_stack([matrix, close]), step, fill_strategy, max_gap_size)
        timestamp, source_row = rows.timestamp, rows.source_row
        interpolated = rows.filled & (fill_strategy == "linear")
        excluded = interpolated if excluded is None else interpolated | excluded[source_row]
        filled = rows.filled if filled is None else rows.filled | filled[source_row]
        matrix, close = rows.values[:, :-1].astype(matrix.dtype), rows.values[:, -1]
    if scaler is None and fit:
        scaler = fit_scaler(matrix)
    scaled = matrix.astype(dtype, copy=False) if scaler is None else scale(matrix, scaler, dtype)
    index = window_index(
        rows=len(matrix),
        seq_len=seq_len,
        horizon=horizon,
        gaps=gap_before(timestamp, step) if validate and timestamp is not None and step else None,
        excluded=excluded,
        finite=finite_rows(scaled),
        usable_close=np.isfinite(close) & (close > 0),
    )
    index.require_any()
    with np.errstate(invalid="ignore", divide="ignore"):
        log_close = np.log(close)
    ends = index.ends
    metadata = {
        "seq_len": seq_len,
        "horizon": horizon,
        "feature_cols": list(feature_cols),
        "windows": len(ends),
        "candidates": len(matrix) - seq_len - horizon + 1,
        "left_out": index.left_out,
        "filled_bars": 0 if filled is None else int(filled.sum()),
        "end_rows": source_row[ends],
        "end_timestamps": None if timestamp is None else timestamp[ends],
        "end_filled": np.zeros(len(ends), dtype=bool) if filled is None else filled[ends],
    }
    return Sequences(
        x=gather_windows(scaled, ends, seq_len),
        y_ret=forward_return(log_close, ends, horizon).astype(dtype),
        y_vol=return_deviation(log_close, ends, horizon).astype(dtype),
        scaler=scaler,
        metadata=metadata,
    )


@dataclass(frozen=True)
class FilledRows:
    """Rows with short gaps filled.

    timestamp: (T,) int64 ms. values: (T, C). source_row: (T,) the given row, or the row before the gap for a filled
    one. filled: (T,) True for the rows that were added.
    """

    timestamp: NDArray[np.int64]
    values: NDArray[np.float64]
    source_row: NDArray[np.int64]
    filled: NDArray[np.bool_]


def fill_gaps(
    timestamp: NDArray[np.int64],
    values: NDArray[np.float64],
    step: int,
    strategy: str,
    max_gap_size: int | None = None,
) -> FilledRows:
    """Fill gaps of at most ``max_gap_size`` missing bars (None: all) in ascending rows, on the timeframe's grid.

    timestamp: (T,) int64 ms. values: (T, C). step: the timeframe in ms. strategy: "forward" repeats the bar before the
    gap; "linear" interpolates between the bars around it. An interpolated bar depends on the bar after the gap, so that
    a window that ended on it would look ahead.
    Raises BitcornError for an unknown strategy or a size below 1.
    """
    if strategy not in STRATEGIES:
        raise BitcornError(f"fill_gaps_strategy is {strategy!r}: use None, 'forward' or 'linear'")
    if max_gap_size is not None and max_gap_size < 1:
        raise BitcornError(f"max_gap_size is {max_gap_size}: it must be at least 1, or None for any size")
    distance = np.diff(timestamp)
    missing = np.where(distance % step == 0, distance // step - 1, 0)
    if max_gap_size is not None:
        missing[missing > max_gap_size] = 0
    copies = np.concatenate((1 + missing, [1]))  # each row counts itself and the bars missing after it
    source_row = np.repeat(np.arange(len(timestamp)), copies)
    position = np.arange(len(source_row)) - np.repeat(np.cumsum(copies) - copies, copies)
    filled = position > 0
    out = values[source_row]
    if strategy == "linear" and filled.any():
        before = source_row[filled]
        share = (position[filled] / (missing[before] + 1))[:, None]
        out[filled] = values[before] + share * (values[before + 1] - values[before])
    return FilledRows(timestamp[source_row] + position * step, out, source_row, filled)
