"""The configurations of networks and of a training, without torch, so that they can be read where it is not loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import ModelConfig, require_at_least, require_one_of

# Whether the best volatility under a loss is biased, so that it is corrected after the training, see `losses`.
LOSSES = {"gaussian_nll": False, "robust_nll": True, "student_t": True, "mse": True, "hybrid": True}
LINKS = ("exp", "softplus")
SCHEDULES = ("constant", "cosine", "plateau")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ModelConfig):
    """The options that all networks have.

    dropout: inside the encoder and before the heads. input_norm: layer normalisation of each bar's inputs.
    symbol_embedding: learned numbers for each partition beside its inputs, 0 for none; a network with them serves only
    the partitions that it was trained on. skip: add a linear map of the last bar's inputs to the heads' outputs.
    volatility_link: how the output of a head becomes a volatility, "exp" or "softplus".
    encoder: what turns windows into states, as module:Class in `models.neural.encoders`.
    """

    encoder: ClassVar[str]

    dropout: float = 0.2
    input_norm: bool = False
    symbol_embedding: int = 0
    skip: bool = False
    volatility_link: str = "exp"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 0, "symbol_embedding")
        require_one_of(self, "volatility_link", LINKS)
        if not 0 <= self.dropout < 1:
            raise BitcornError(f"dropout is {self.dropout}: it must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(NetworkConfig):
    """The options of recurrent networks.

    hidden_size: of each layer's state. num_layers: stacked layers. layer_norm: layer normalisation of each layer's
    states.
    """

    encoder: ClassVar[str] = "recurrent:RecurrentEncoder"

    hidden_size: int = 64
    num_layers: int = 2
    layer_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "hidden_size", "num_layers")


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(RecurrentConfig):
    """A network of LSTM layers (Hochreiter & Schmidhuber 1997)."""

    kind: Literal["lstm"] = "lstm"


@dataclass(frozen=True, kw_only=True)
class GRUConfig(RecurrentConfig):
    """A network of GRU layers (Cho et al. 2014)."""

    kind: Literal["gru"] = "gru"


@dataclass(frozen=True, kw_only=True)
class TCNConfig(NetworkConfig):
    """A temporal convolutional network (Bai, Kolter & Koltun 2018).

    channels: of each block. kernel_size: bars of a convolution. blocks: residual blocks, whose dilation doubles from
    block to block; 0 for as many as make the last bar see the whole window.
    """

    encoder: ClassVar[str] = "tcn:TCNEncoder"

    kind: Literal["tcn"] = "tcn"
    channels: int = 32
    kernel_size: int = 3
    blocks: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "channels")
        require_at_least(self, 2, "kernel_size")
        require_at_least(self, 0, "blocks")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The options of a training. Models without epochs use val_frac, test_frac, seed and threads only.

    batch_size: windows of a step, over all workers together. val_frac, test_frac: shares of all windows. The last ones
    test, and training never reads them; those before them validate.
    loss: see `losses`. degrees_of_freedom: of the Student-t loss, above 2, or 0 to learn them for each horizon; and of
    the robust loss, by default 12. directional_penalty: weight of a penalty for returns of the wrong sign, 0 for none.
    horizon_weights: "uniform", "learned" (by each horizon's noise), or a positive number for each horizon.
    patience: epochs without a better validation loss before training stops; the best epoch's weights are kept.
    warmup: epochs (or a fraction of one) over which the learning rate rises to its value. schedule: what follows:
    "constant"; "cosine", down to 0 at the end of the last epoch; "plateau", halved after two epochs without
    improvement. grad_clip: largest norm of the gradient. ema: decay a step of an exponential mean of the weights, which
    is then validated and kept; 0 for none.
    precision: "float32", "bfloat16" (autocast: weights stay float32), or "auto", which measures which one is faster.
    deterministic: the same seed gives the same losses bit for bit on the same machine; "auto" then means float32.
    checkpoint_epochs, checkpoint_minutes: save the state after every so many epochs, and within epochs every so many
    minutes. threads: of torch on a CPU, None for the default; results depend on them in their last bits.
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
        require_at_least(self, 1, "epochs", "batch_size", "patience", "checkpoint_epochs")
        require_at_least(self, 0, "weight_decay", "directional_penalty", "warmup", "ema")
        for name in ("learning_rate", "grad_clip", *(("checkpoint_minutes",) if self.checkpoint_minutes else ())):
            if not 0 < getattr(self, name) < math.inf:
                raise BitcornError(f"{name} is {getattr(self, name)}: it must be above 0 and finite")
        require_one_of(self, "loss", tuple(LOSSES))
        require_one_of(self, "schedule", SCHEDULES)
        require_one_of(self, "precision", PRECISIONS)
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
