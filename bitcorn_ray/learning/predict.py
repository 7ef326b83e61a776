"""What a trained model says about windows, and about horizons between those that it was trained on.

Shapes: N windows, T rows, F features, L seq_len, H horizons.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.batches import gather
from bitcorn_ray.learning.model import LSTMMultiHead

__all__ = ["between_horizons", "horizon_weights", "predict_windows"]

Floats = NDArray[np.float32]

# A CPU's caches hold the states of so many windows; a GPU wants more to do at once.
_BATCH_CPU, _BATCH_GPU = 256, 8_192


@torch.inference_mode()
def predict_windows(
    model: LSTMMultiHead,
    matrix: Floats,
    reference: Floats | None,
    ends: NDArray[np.int64],
    seq_len: int,
    symbols: NDArray[np.int64] | None = None,
) -> tuple[Floats, Floats]:
    """Log returns and volatilities, each (N, H), of the windows that end at rows (N,) of a scaled (T, F) matrix.

    reference: (T,) volatility of one bar by row; None where the model's forecasts are relative to nothing.
    symbols: (N,) places of the windows' partitions among those trained on; needed by a model with an embedding only.
    The model computes in float32 on the device that it is on, so that one window gives what it gives among many.
    """
    model.eval()
    if len(ends) == 0:
        nothing = np.zeros((0, len(model.horizons)), np.float32)
        return nothing, nothing.copy()
    device = next(model.parameters()).device
    first = int(ends.min()) - seq_len + 1
    # A copy of the rows in use: torch refuses arrays that are shared and cannot be written to.
    rows = torch.tensor(matrix[first : int(ends.max()) + 1], device=device)
    references = None if reference is None else torch.tensor(reference[ends], dtype=torch.float32, device=device)
    places = None if symbols is None else torch.tensor(symbols, device=device)
    parts = []
    for batch in torch.arange(len(ends)).split(_BATCH_CPU if device.type == "cpu" else _BATCH_GPU):
        window = gather(rows, torch.from_numpy(ends[batch.numpy()] - first).to(device), seq_len)
        chosen = [None if each is None else each[batch.to(device)] for each in (references, places)]
        parts.append(model(window, *chosen))
    shape = (len(ends), len(model.horizons))
    returns, volatilities = (torch.cat(part).reshape(shape).cpu().numpy() for part in zip(*parts, strict=True))
    return returns, volatilities


def between_horizons(
    known: Sequence[int], asked: Sequence[int], returns: NDArray[np.floating], volatilities: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Returns and volatilities at other horizons, (N, H) -> (N, len(asked)), as `LSTMMultiHead.predict_interpolated`.

    The return is linear in the horizon, and so is the variance. Horizons that are known come out as they went in.
    Raises BitcornError for a horizon outside of the known ones.
    """
    weights = horizon_weights(known, asked)
    return returns @ weights, np.sqrt(np.square(volatilities) @ weights)


def horizon_weights(known: Sequence[int], asked: Sequence[int]) -> NDArray[np.float64]:
    """Weights (H, len(asked)) of linear interpolation in the horizon: at most two in a column are not zero.

    Raises BitcornError for a horizon outside of the known ones.
    """
    outside = [horizon for horizon in asked if not min(known) <= horizon <= max(known)]
    if outside or not asked:
        raise BitcornError(
            f"horizons {', '.join(map(str, outside)) or '(none)'} cannot be interpolated: the model was trained on "
            f"{', '.join(map(str, sorted(known)))}; ask for some from {min(known)} to {max(known)}"
        )
    order = np.argsort(known)
    sorted_known = np.asarray(known)[order]
    unit = np.eye(len(known))[order]
    return np.stack([np.interp(asked, sorted_known, unit[:, column]) for column in range(len(known))])
