"""Windows as arrays with their targets for one horizon: what `build_sequences` gives to users.

(Training works on the index alone, see `dataset`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.gaps import fill_gaps, gap_before
from bitcorn_ray.datasets.scaling import finite_rows, fit_scaler, scale
from bitcorn_ray.datasets.targets import forward_return, return_deviation
from bitcorn_ray.datasets.windows import gather_windows, require_horizons, window_index
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import modal_step, require_chronology

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

__all__ = ["Sequences", "make_sequences"]


@dataclass(frozen=True)
class Sequences:
    """N windows: x (N, L, F), y_ret (N,), y_vol (N,), the scaler used or None, and where each window is from."""

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
    """Build the windows of (T, F) rows; see `bitcorn_ray.data_loader.build_sequences` for every parameter.

    timestamp: (T,) int64 ms; step: the timeframe in ms, by default the most frequent distance. filled: (T,) rows of
    bars that were never traded; filled_forward: they know no later bar, so that windows may end on them.
    """
    require_horizons([horizon], seq_len, len(matrix))
    if timestamp is None and (validate or fill_strategy):
        raise BitcornError("the rows have no timestamp: add one, or pass validate_chronology=False and fill no gaps")
    if timestamp is not None and (validate or fill_strategy):
        require_chronology(timestamp)
        step = step or modal_step(timestamp)
    source_row = np.arange(len(matrix))
    barred_ends = None if filled_forward else filled
    if fill_strategy and timestamp is not None and step:
        rows = fill_gaps(timestamp, np.column_stack([matrix, close]), step, fill_strategy, max_gap_size)
        timestamp, source_row = rows.timestamp, rows.source_row
        barred = rows.filled & (fill_strategy == "linear")
        barred_ends = barred if barred_ends is None else barred | barred_ends[source_row]
        filled = rows.filled if filled is None else rows.filled | filled[source_row]
        matrix, close = rows.values[:, :-1].astype(matrix.dtype), rows.values[:, -1]
    if scaler is None and fit:
        scaler = fit_scaler(matrix)
    scaled = matrix.astype(dtype, copy=False) if scaler is None else scale(matrix, scaler, dtype)
    index = window_index(
        finite=finite_rows(scaled),
        usable_close=np.isfinite(close) & (close > 0),
        gap_before=gap_before(timestamp, step) if validate and timestamp is not None and step else None,
        seq_len=seq_len,
        horizon=horizon,
        barred_ends=barred_ends,
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
