"""The learning rate of each step, as a function of where training stands and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bitcorn_ray.models.neural.config import TrainingConfig

__all__ = ["rate_factor"]

_PATIENCE = 2
_SHRINK = 0.5


def rate_factor(config: TrainingConfig, step: int, steps_per_epoch: int, val_losses: Sequence[float]) -> float:
    """Share of the learning rate that a step uses, above 0 and at most 1.

    step: counted from 0 over all epochs. val_losses: of the epochs so far. It rises in equal steps over
    `config.warmup` epochs; a cosine then falls from 1 to nearly 0 at the last epoch's end, and a plateau halves after
    every two epochs in a row whose validation loss was not the best so far.

    >>> config = TrainingConfig(epochs=2, warmup=0.5, schedule="cosine")
    >>> [round(rate_factor(config, step, 4, []), 2) for step in range(8)]
    [0.5, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    warm = math.ceil(config.warmup * steps_per_epoch)
    if step < warm:
        return (step + 1) / warm
    if config.schedule == "cosine":
        left = max(config.epochs * steps_per_epoch - warm, 1)
        return max(0.5 + 0.5 * math.cos(math.pi * (step - warm) / left), 1e-6)
    if config.schedule == "plateau":
        best, since, factor = math.inf, 0, 1.0
        for loss in val_losses:
            since = 0 if loss < best else since + 1
            best = min(best, loss)
            if since == _PATIENCE:
                since, factor = 0, factor * _SHRINK
        return factor
    return 1.0
