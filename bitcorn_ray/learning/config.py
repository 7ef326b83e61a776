"""What a model and its training are configured by; free of torch, so that a configuration can be read without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bitcorn_ray.errors import BitcornError

__all__ = ["LOSSES", "ModelConfig", "TrainingConfig"]

LOSSES = ("gaussian_nll", "mse", "hybrid")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. horizons: bars ahead. seq_len: bars a window. dropout: between LSTM layers and in the heads."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    horizons: tuple[int, ...] = (1, 4, 12)
    seq_len: int = 64
    hidden_size: int = 64
    num_layers: int = 2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if not self.horizons or min(self.horizons) < 1 or len(set(self.horizons)) != len(self.horizons):
            raise BitcornError(f"horizons are {list(self.horizons)}: give different whole numbers, each at least 1")
        for name in ("seq_len", "hidden_size", "num_layers"):
            if getattr(self, name) < 1:
                raise BitcornError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise BitcornError(f"dropout is {self.dropout}: it must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training.

    batch_size: windows a step, over all workers together. val_frac: share of the windows, the last, that validate.
    patience: epochs without a better validation loss before training stops; the best epoch's weights are kept.
    grad_clip: greatest norm of the gradient. threads: of torch on a CPU, None leaves them; an execution choice.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    val_frac: float = 0.2
    loss: str = "gaussian_nll"
    patience: int = 5
    grad_clip: float = 1.0
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise BitcornError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("learning_rate", "grad_clip"):
            if not getattr(self, name) > 0:
                raise BitcornError(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.loss not in LOSSES:
            raise BitcornError(f"unknown loss {self.loss!r}: there is {', '.join(LOSSES)}")
        if not 0 < self.val_frac < 1:
            raise BitcornError(f"val_frac is {self.val_frac}: it must lie between 0 and 1")
