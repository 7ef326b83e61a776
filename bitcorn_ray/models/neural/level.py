"""The level of a trained model's volatility, set right on the windows that it was trained on.

QLIKE asks for the mean of the variance. The Gaussian likelihood with realised variance has it as its best answer; other
losses ask for something lower, by a factor that differs from horizon to horizon (Patton 2011), and one number a horizon
brings it back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitcorn_ray.models.neural.batches import DeviceData
from bitcorn_ray.models.neural.network import LSTMMultiHead

__all__ = ["NEEDS_LEVEL", "volatility_level"]

NEEDS_LEVEL = ("robust_nll", "student_t", "mse", "hybrid")
_MOST_WINDOWS = 65_536  # evenly spread ones tell one number a horizon well enough
_BATCH = 1_024


@torch.no_grad()
def volatility_level(model: LSTMMultiHead, data: DeviceData, train_ends: Tensor) -> Tensor:
    """Root (H,) of the mean, over training windows, of the realised variance in units of the forecast one.

    model: on the data's device. train_ends: (N,) rows. Multiplied by it, the volatility forecasts the variance of the
    training windows without bias.
    """
    model.eval()
    spread = train_ends[:: max(len(train_ends) // _MOST_WINDOWS, 1)].contiguous()
    total_H = torch.zeros(len(model.horizons), dtype=torch.float64, device=train_ends.device)
    for ends_B in spread.split(_BATCH):
        batch = data.batch(ends_B)
        _, sigma_BH = model.standardised(batch.x_BLF, batch.symbol_B)
        total_H += (batch.realised_BH.double() / sigma_BH.double()).square().sum(0)
    level_H = (total_H / len(spread)).sqrt()
    # A market that never moved says nothing about the level.
    return torch.where(level_H > 0, level_H, torch.ones_like(level_H))
