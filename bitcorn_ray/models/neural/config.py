"""What a model and its training are configured by; free of torch, so that a configuration can be read without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from bitcorn_ray.errors import BitcornError

__all__ = ["CELLS", "LINKS", "LOSSES", "PRECISIONS", "SCHEDULES", "ModelConfig", "TrainingConfig"]

LOSSES = ("gaussian_nll", "robust_nll", "student_t", "mse", "hybrid")
CELLS = ("lstm", "gru")
LINKS = ("exp", "softplus")
SCHEDULES = ("constant", "cosine", "plateau")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network.

    horizons: bars ahead. seq_len: bars a window. dropout: between recurrent layers and before the heads.
    cell: "lstm" or "gru". input_norm, layer_norm: layer normalisation of each bar's inputs, and of each layer's states.
    symbol_embedding: numbers that stand for each partition beside its inputs, 0 for none: a model with them serves the
    partitions that it was trained on, one without them serves any.
    reference_span: bars over which the volatility that forecasts are relative to is averaged (see
    `features.reference`); 0 for forecasts that are relative to nothing. skip: add a linear map of the last bar's inputs
    to what the heads say. volatility_link: how a head's number becomes a volatility, "exp" or "softplus".
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    horizons: tuple[int, ...] = (1, 4, 12)
    seq_len: int = 64
    hidden_size: int = 64
    num_layers: int = 2
    dropout: float = 0.2
    cell: str = "lstm"
    input_norm: bool = False
    layer_norm: bool = False
    symbol_embedding: int = 0
    reference_span: int = 168
    skip: bool = False
    volatility_link: str = "exp"

    def __post_init__(self) -> None:
        if not self.horizons or min(self.horizons) < 1 or len(set(self.horizons)) != len(self.horizons):
            raise BitcornError(f"horizons are {list(self.horizons)}: give different whole numbers, each at least 1")
        _require_at_least(self, 1, "seq_len", "hidden_size", "num_layers")
        _require_at_least(self, 0, "symbol_embedding", "reference_span")
        _require_one_of(self, "cell", CELLS)
        _require_one_of(self, "volatility_link", LINKS)
        if not 0 <= self.dropout < 1:
            raise BitcornError(f"dropout is {self.dropout}: it must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training.

    batch_size: windows a step, over all workers together. val_frac, test_frac: shares of the windows: the last ones
    test, and nothing of the training ever looks at them; those before them validate.
    loss: see `losses`. degrees_of_freedom: of the Student-t loss, above 2, 0 learns them for each horizon; and of the
    robust loss, by default 12.
    directional_penalty: weight of a penalty for returns of the wrong sign, 0 for none.
    horizon_weights: "uniform", "learned" (by each horizon's noise), or a positive number for each horizon.
    patience: epochs without a better validation loss before training stops; the best epoch's weights are kept.
    warmup: epochs (or a part of one) over which the learning rate rises to its value. schedule: what it does then:
    "constant"; "cosine", down to 0 at the last epoch's end; "plateau", halved after two epochs that were not better.
    grad_clip: greatest norm of the gradient. ema: decay a step of an exponential mean of the weights, which then are
    the ones that validate and are kept; 0 for none.
    precision: "float32", "bfloat16" (autocast: weights stay float32), or "auto": a trial tells which one is faster.
    deterministic: the same seed gives the same losses bit for bit on the same machine; "auto" then means float32.
    checkpoint_epochs, checkpoint_minutes: how often the state is saved to go on from: after every so many epochs, and
    where minutes are given, within epochs too.
    threads: of torch on a CPU, None leaves them; results depend on them in their last bits.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    val_frac: float = 0.2
    test_frac: float = 0.0
    loss: str = "gaussian_nll"
    degrees_of_freedom: float = 0.0
    directional_penalty: float = 0.0
    horizon_weights: Literal["uniform", "learned"] | tuple[float, ...] = "uniform"
    patience: int = 5
    warmup: float = 0.1
    schedule: str = "constant"
    grad_clip: float = 1.0
    ema: float = 0.0
    precision: str = "auto"
    deterministic: bool = False
    checkpoint_epochs: int = 1
    checkpoint_minutes: float | None = None
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        _require_at_least(self, 1, "epochs", "batch_size", "patience", "checkpoint_epochs")
        _require_at_least(self, 0, "weight_decay", "directional_penalty", "warmup", "ema")
        for name in ("learning_rate", "grad_clip", *(("checkpoint_minutes",) if self.checkpoint_minutes else ())):
            if not 0 < getattr(self, name) < math.inf:
                raise BitcornError(f"{name} is {getattr(self, name)}: it must be above 0 and finite")
        if self.loss not in LOSSES:
            raise BitcornError(f"unknown loss {self.loss!r}: there is {', '.join(LOSSES)}")
        _require_one_of(self, "schedule", SCHEDULES)
        _require_one_of(self, "precision", PRECISIONS)
        if not 0 < self.val_frac < 1:
            raise BitcornError(f"val_frac is {self.val_frac}: it must lie between 0 and 1")
        if not 0 <= self.test_frac < 1 - self.val_frac:
            raise BitcornError(
                f"test_frac is {self.test_frac}: it must be at least 0, and with val_frac {self.val_frac} below 1"
            )
        if self.degrees_of_freedom != 0 and not 2 < self.degrees_of_freedom < math.inf:
            raise BitcornError(f"degrees_of_freedom is {self.degrees_of_freedom}: it must be above 2, or 0 to learn it")
        if self.ema >= 1:
            raise BitcornError(f"ema is {self.ema}: it must be below 1, such as 0.999")
        if not isinstance(self.horizon_weights, str):
            if not self.horizon_weights or not all(0 < weight < math.inf for weight in self.horizon_weights):
                raise BitcornError(f"horizon_weights are {list(self.horizon_weights)}: give a positive number for each")
        elif self.horizon_weights not in ("uniform", "learned"):
            raise BitcornError(f"horizon_weights is {self.horizon_weights!r}: use 'uniform', 'learned' or numbers")


def _require_at_least(config: object, least: int, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= least:
            raise BitcornError(f"{name} is {getattr(config, name)}: it must be at least {least}")


def _require_one_of(config: object, name: str, choices: tuple[str, ...]) -> None:
    if getattr(config, name) not in choices:
        raise BitcornError(f"{name} is {getattr(config, name)!r}: there is {', '.join(choices)}")
