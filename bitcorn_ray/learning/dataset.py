"""What a training runs on: one scaled matrix, targets by row, and the windows of each part.

1. Find the windows that are valid for the longest horizon. 2. Split them in time, purged by the longest horizon.
3. Fit the scaler on the rows up to the last training window's end, and scale all rows with it.
Nothing after the last training window's end reaches its inputs or the scaler; its targets end where validation begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.gaps import gap_before
from bitcorn_ray.learning.scaling import finite_rows, fit_scaler, scale
from bitcorn_ray.learning.targets import forward_return, realised_volatility
from bitcorn_ray.learning.windows import require_horizons, window_index
from bitcorn_ray.market.bars import modal_step, require_chronology
from bitcorn_ray.validation.splits import holdout

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

__all__ = ["TrainingData", "training_data"]


@dataclass(frozen=True)
class TrainingData:
    """Plain arrays, so that they travel through an object store without a copy.

    matrix: (T, F) float32, scaled. returns, volatilities: (T, H) float32, by the row at which a window ends; zero where
    no window ends. output_scale: (H,) root mean square volatility of the training windows, per horizon.
    train_ends, validation_ends: (N,) int64 rows.
    """

    matrix: NDArray[np.float32]
    returns: NDArray[np.float32]
    volatilities: NDArray[np.float32]
    output_scale: NDArray[np.float32]
    train_ends: NDArray[np.int64]
    validation_ends: NDArray[np.int64]


def training_data(
    matrix: NDArray[np.floating],
    close: NDArray[np.float64],
    timestamp: NDArray[np.int64] | None,
    step: int | None,
    model: ModelConfig,
    training: TrainingConfig,
) -> tuple[TrainingData, StandardScaler, dict[str, Any]]:
    """Turn (T, F) features, (T,) closes and (T,) times in ms into training data, its scaler, and facts about it.

    timestamp None treats rows as neighbouring bars. step: timeframe in ms, by default the most frequent distance.
    Raises BitcornError for too few rows, times out of order, and where no window is valid.
    """
    longest = max(model.horizons)
    require_horizons(model.horizons, model.seq_len, len(matrix))
    gaps = None
    if timestamp is not None:
        require_chronology(timestamp)
        gaps = gap_before(timestamp, step or modal_step(timestamp))
    index = window_index(
        finite=finite_rows(matrix),
        usable_close=np.isfinite(close) & (close > 0),
        gap_before=gaps,
        seq_len=model.seq_len,
        horizon=longest,
    )
    index.require_any()
    train, validation = holdout(index.ends, training.val_frac, longest)
    scaler = fit_scaler(matrix[: train[-1] + 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        log_close = np.log(close)
    returns, volatilities = (np.zeros((len(matrix), len(model.horizons)), np.float32) for _ in range(2))
    for column, horizon in enumerate(model.horizons):
        returns[index.ends, column] = forward_return(log_close, index.ends, horizon)
        volatilities[index.ends, column] = realised_volatility(log_close, index.ends, horizon)
    # A market that never moved has no scale: 1 keeps the arithmetic finite.
    mean_square = np.square(volatilities[train], dtype=np.float64).mean(0)
    output_scale = np.sqrt(np.where(mean_square > 0, mean_square, 1.0)).astype(np.float32)
    facts = {
        "rows": len(matrix),
        "windows": len(index.ends),
        "train_windows": len(train),
        "validation_windows": len(validation),
        "purged_windows": len(index.ends) - len(train) - len(validation),
        "left_out": index.left_out,
        "train_rows": [int(train[0]), int(train[-1])],
        "validation_rows": [int(validation[0]), int(validation[-1])],
    }
    # Rows with features that are not finite belong to no window; zeros keep them harmless in the matrix.
    scaled = np.nan_to_num(scale(matrix, scaler), nan=0.0, posinf=0.0, neginf=0.0)
    return TrainingData(scaled, returns, volatilities, output_scale, train, validation), scaler, facts
