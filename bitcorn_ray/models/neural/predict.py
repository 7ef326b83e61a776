"""What a trained model says about windows, and about horizons between those that it was trained on.

Shapes: N windows, T rows, F features, L seq_len, H horizons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.batches import gather
from bitcorn_ray.models.neural.network import LSTMMultiHead

__all__ = ["between_horizons", "horizon_weights", "predict_windows"]

Floats = NDArray[np.float32]
Result = TypeVar("Result")

# A CPU's caches hold the states of so many windows; a GPU wants more to do at once.
_BATCH_CPU, _BATCH_GPU = 256, 8_192


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
    shape = (len(ends), len(model.horizons))
    if len(ends) == 0:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    device = next(model.parameters()).device
    first = int(ends.min()) - seq_len + 1
    # A copy of the rows in use: torch refuses arrays that are shared and cannot be written to.
    rows = torch.tensor(matrix[first : int(ends.max()) + 1], device=device)
    places = torch.tensor(ends - first, device=device)
    references = None if reference is None else torch.tensor(reference[ends], dtype=torch.float32, device=device)
    of_symbols = None if symbols is None else torch.tensor(symbols, device=device)

    @torch.inference_mode()
    def forecast(batch: slice) -> tuple[Tensor, Tensor]:
        window = gather(rows, places[batch], seq_len)
        return model(window, *(None if each is None else each[batch] for each in (references, of_symbols)))  # type: ignore[no-any-return]

    size = _BATCH_CPU if device.type == "cpu" else _BATCH_GPU
    batches = [slice(start, start + size) for start in range(0, len(ends), size)]
    parts = _on_all_cores(forecast, batches) if device.type == "cpu" else list(map(forecast, batches))
    returns, volatilities = (torch.cat(part).reshape(shape).cpu().numpy() for part in zip(*parts, strict=True))
    return returns, volatilities


def _on_all_cores(work: Callable[[slice], Result], batches: list[slice]) -> list[Result]:
    """Do batches side by side, each on one thread of its own.

    PyTorch would share out every product inside a batch, and at each step of the recurrence all threads would wait for
    the slowest: four times as slow where another process has a core.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(batches) < 2:
        return list(map(work, batches))
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, batches))
    finally:
        torch.set_num_threads(threads)  # what the pool's threads set holds for threads to come, too


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
