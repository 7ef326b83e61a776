"""What a trained model says about windows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bitcorn_ray.learning.model import LSTMMultiHead
from bitcorn_ray.learning.training import gather

__all__ = ["predict_windows"]

_BATCH = 1024


@torch.no_grad()
def predict_windows(
    model: LSTMMultiHead, matrix: NDArray[np.float32], ends: NDArray[np.int64], seq_len: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Log returns and volatilities, each (N, H), of the windows that end at rows (N,) of a scaled (T, F) matrix."""
    model.eval()
    device = next(model.parameters()).device
    # A copy, as torch would write to an array that is shared.
    rows = torch.tensor(matrix, device=device)
    batches = torch.tensor(ends, device=device).split(_BATCH)
    parts = [model(gather(rows, batch, seq_len)) for batch in batches]
    returns, volatilities = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return returns, volatilities
