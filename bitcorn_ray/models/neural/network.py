"""The network: an encoder of windows, and a return head and a volatility head for each horizon.

Volatility is forecast relative to a causal reference volatility that comes with each window, so that one model serves
quiet and wild times and all symbols. The output z of a head becomes a volatility by a bounded exp: the logarithm of the
volatility is linear in past logarithms (Corsi 2009), and the gradient of the likelihood in z is 1 - v^2 / sigma^2
whatever sigma is, while softplus hardly moves if the market is much quieter than usual.

Shapes: B batch, L seq_len, F features, D encoder output, H horizons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.interpolation import horizon_weights
from bitcorn_ray.models.neural.config import NetworkConfig, RecurrentConfig, TCNConfig
from bitcorn_ray.models.neural.encoders.dropout import drop
from bitcorn_ray.models.neural.encoders.recurrent import RecurrentEncoder
from bitcorn_ray.models.neural.encoders.tcn import TCNEncoder

_GREATEST_LOG = 8.0  # of a volatility in its units: a factor of 3,000 either way


class Encoder(Protocol):
    """What the network needs of an encoder, see `encoders`."""

    output_size: int

    def work_per_window(self, seq_len: int) -> int:
        """Return the number of states that a window costs."""

    def __call__(self, x_LBF: Tensor) -> Tensor:
        """Return the state (B, D) of windows (L, B, F)."""


class Heads(nn.Module):
    """The heads of all horizons as one batched product: returns (B, H), and one number (B, H) for each volatility.

    A head is Linear(D, M), ReLU, Linear(M, 1), with M = D / 2. There are 2H of them on the same state: those of the
    returns, then those of the volatilities. weight (2H M, D), bias (2H M,): of the first layers. out_weight (2H, M),
    out_bias (2H,): of the second ones.
    """

    def __init__(self, state_size: int, horizons: int) -> None:
        super().__init__()
        middle = max(state_size // 2, 1)
        self.weight = nn.Parameter(torch.empty(2 * horizons * middle, state_size))
        self.bias = nn.Parameter(torch.empty(2 * horizons * middle))
        self.out_weight = nn.Parameter(torch.empty(2 * horizons, middle))
        self.out_bias = nn.Parameter(torch.empty(2 * horizons))
        # The initialisation of nn.Linear.
        for parameter, inputs in ((self.weight, state_size), (self.bias, state_size), (self.out_weight, middle)):
            nn.init.uniform_(parameter, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))
        nn.init.zeros_(self.out_bias)

    def forward(self, state_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both (B, H), in the state's precision."""
        middle_BKM = torch.relu(nn.functional.linear(state_BD, self.weight, self.bias)).unflatten(
            1, self.out_weight.shape
        )
        out_BK = (middle_BKM * self.out_weight).sum(2) + self.out_bias
        return_BH, volatility_BH = out_BK.chunk(2, 1)
        return return_BH, volatility_BH


class Network(nn.Module):
    """Log returns and volatilities of several horizons from windows of features.

    encoder: of windows of F features and the symbol embedding. symbols: number of partitions, needed with an embedding.

    Outputs are in units of the reference volatility times `output_scale` (H,), which training sets to each horizon's
    typical volatility in units of the reference, so that the losses of all horizons have one size. `typical_reference`,
    of the training windows, is used if no reference is given.
    """

    output_scale: Tensor
    typical_reference: Tensor

    def __init__(
        self,
        n_features: int,
        horizons: Sequence[int],
        encoder: Encoder,
        *,
        dropout: float,
        input_norm: nn.Module | None,
        embedding: nn.Embedding | None,
        skip: bool,
        volatility_link: str,
    ) -> None:
        super().__init__()
        self.horizons = tuple(horizons)
        self.volatility_link = volatility_link
        self.dropout = dropout
        self.input_norm, self.embedding = input_norm, embedding
        self.encoder = cast(nn.Module, encoder)
        self.heads = Heads(encoder.output_size, len(self.horizons))
        inputs = n_features + (embedding.embedding_dim if embedding is not None else 0)
        self.skip = nn.Linear(inputs, 2 * len(self.horizons), bias=False) if skip else None
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)
        self.register_buffer("output_scale", torch.ones(len(self.horizons)))
        self.register_buffer("typical_reference", torch.ones(()))

    def work_per_window(self, seq_len: int) -> int:
        """Return the number of states that a window costs."""
        return cast(Encoder, self.encoder).work_per_window(seq_len)

    def standardised(self, x_BLF: Tensor, symbol_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the return and volatility (B, H), each in units of the reference times `output_scale`.

        symbol_B: int64 indexes of the windows' partitions, needed with an embedding.
        Raises BitcornError if it is missing.
        """
        x_LBF = x_BLF.transpose(0, 1)  # time first: each step's batch is one contiguous block
        if self.input_norm is not None:
            x_LBF = self.input_norm(x_LBF)
        if self.embedding is not None:
            if symbol_B is None:
                raise BitcornError("the model tells partitions apart: give symbol_B, each window's partition")
            x_LBF = torch.cat((x_LBF, self.embedding(symbol_B).expand(len(x_LBF), -1, -1)), 2)
        state_BD = drop(self.encoder(x_LBF), self.dropout, self.training)
        # The heads are small: they stay in float32 if the encoder computed in less.
        with torch.autocast(state_BD.device.type, enabled=False):
            return_BH, log_BH = self.heads(state_BD.float())
            if self.skip is not None:
                skip_return_BH, skip_log_BH = self.skip(x_LBF[-1].float()).chunk(2, 1)
                return_BH, log_BH = return_BH + skip_return_BH, log_BH + skip_log_BH
            return return_BH, self._volatility(log_BH)

    def forward(
        self, x_BLF: Tensor, reference_B: Tensor | None = None, symbol_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the log return and its volatility, (B, H) each, from scaled windows (B, L, F).

        reference_B: volatility of one bar at each window's end, by default `typical_reference`.
        """
        return_BH, volatility_BH = self.standardised(x_BLF, symbol_B)
        unit_BH = self._unit(reference_B)
        return return_BH * unit_BH, volatility_BH * unit_BH

    def predict_interpolated(
        self,
        x_BLF: Tensor,
        horizons: Sequence[float],
        reference_B: Tensor | None = None,
        symbol_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the log return and volatility, (B, len(horizons)) each, at horizons between those trained on.

        The return is linear in the horizon, and so is the variance, as they are for independent steps.
        Raises BitcornError for a horizon outside of those trained on.
        """
        weights = torch.as_tensor(horizon_weights(self.horizons, [float(horizon) for horizon in horizons]))
        return_BH, volatility_BH = Network.forward(self, x_BLF, reference_B, symbol_B)
        weights = weights.to(return_BH)
        return return_BH @ weights, (volatility_BH.square() @ weights).sqrt()

    def _unit(self, reference_B: Tensor | None) -> Tensor:
        reference = self.typical_reference if reference_B is None else reference_B[:, None]
        return reference * self.output_scale

    def _volatility(self, log_BH: Tensor) -> Tensor:
        if self.volatility_link == "softplus":
            return nn.functional.softplus(log_BH)
        return torch.exp(_GREATEST_LOG * torch.tanh(log_BH / _GREATEST_LOG))


class LSTMMultiHead(Network):
    """A network of recurrent layers, with the constructor of the older system.

    n_features: F. cell: "lstm" or "gru". symbols: number of partitions that an embedding tells apart. In its state dict
    the recurrent layers are `lstm.*` and their norms `norms.*`, as in the older system.
    """

    def __init__(
        self,
        n_features: int,
        horizons: Sequence[int] = (1, 4, 12),
        hidden_size: int = 64,
        num_layers: int = 2,
        dropout: float = 0.2,
        *,
        cell: str = "lstm",
        input_norm: bool = False,
        layer_norm: bool = False,
        symbols: int = 0,
        symbol_embedding: int = 0,
        skip: bool = False,
        volatility_link: str = "exp",
    ) -> None:
        norm = nn.LayerNorm(n_features) if input_norm else None
        embedding = nn.Embedding(symbols, symbol_embedding) if symbol_embedding else None
        inputs = n_features + symbol_embedding
        encoder = RecurrentEncoder(inputs, hidden_size, num_layers, dropout, cell=cell, layer_norm=layer_norm)
        super().__init__(
            n_features,
            horizons,
            encoder,
            dropout=dropout,
            input_norm=norm,
            embedding=embedding,
            skip=skip,
            volatility_link=volatility_link,
        )
        self.register_state_dict_post_hook(_to_older_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_older_names)  # type: ignore[no-untyped-call]


class LSTM2Head(LSTMMultiHead):
    """`LSTMMultiHead` for one horizon: one return and one volatility, (B,) each."""

    def __init__(
        self, n_features: int, hidden_size: int = 64, num_layers: int = 2, dropout: float = 0.2, horizon: int = 1
    ) -> None:
        super().__init__(n_features, (horizon,), hidden_size, num_layers, dropout)

    def forward(
        self, x_BLF: Tensor, reference_B: Tensor | None = None, symbol_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the log return (B,) and its volatility (B,) from scaled windows (B, L, F)."""
        return_BH, volatility_BH = super().forward(x_BLF, reference_B, symbol_B)
        return return_BH[:, 0], volatility_BH[:, 0]


def build_network(n_features: int, config: NetworkConfig, symbols: int = 1) -> Network:
    """Return an untrained network for F features. symbols: number of partitions, for an embedding."""
    if isinstance(config, RecurrentConfig):
        return LSTMMultiHead(
            n_features,
            config.horizons,
            config.hidden_size,
            config.num_layers,
            config.dropout,
            cell=config.kind,
            input_norm=config.input_norm,
            layer_norm=config.layer_norm,
            symbols=symbols,
            symbol_embedding=config.symbol_embedding,
            skip=config.skip,
            volatility_link=config.volatility_link,
        )
    norm = nn.LayerNorm(n_features) if config.input_norm else None
    embedding = nn.Embedding(symbols, config.symbol_embedding) if config.symbol_embedding else None
    return Network(
        n_features,
        config.horizons,
        _encoder(n_features + config.symbol_embedding, config),
        dropout=config.dropout,
        input_norm=norm,
        embedding=embedding,
        skip=config.skip,
        volatility_link=config.volatility_link,
    )


def _encoder(inputs: int, config: NetworkConfig) -> Encoder:
    """Return the encoder of a configuration. A new architecture adds a case here."""
    match config:
        case TCNConfig():
            return TCNEncoder(
                inputs, config.seq_len, config.channels, config.kernel_size, config.blocks, config.dropout
            )
    raise BitcornError(f"there is no encoder for a {type(config).__name__}")


def load_weights(network: Network, state: Mapping[str, Tensor]) -> None:
    """Load a state dict, also one whose heads have another width or that has no reference volatility.

    Raises RuntimeError if names or other shapes differ.
    """
    for name in ("weight", "bias", "out_weight"):
        if f"heads.{name}" in state:
            setattr(network.heads, name, nn.Parameter(torch.empty_like(state[f"heads.{name}"])))
    own = {name: value for name, value in network.state_dict().items() if name in ("output_scale", "typical_reference")}
    network.load_state_dict({**own, **state})


def from_per_horizon_heads(state: Mapping[str, Tensor], horizons: Sequence[int]) -> dict[str, Tensor]:
    """Return a state dict with `heads.*` for one with `heads_ret.<h>.{0,2}.{weight,bias}` and `heads_vol...`.

    The older system laid out its heads so. Other names stay as they are.
    Raises KeyError if a horizon has no head.
    """
    keys = [f"heads_{kind}.{horizon}" for kind in ("ret", "vol") for horizon in horizons]
    heads = {
        "heads.weight": torch.cat([state[f"{key}.0.weight"] for key in keys]),
        "heads.bias": torch.cat([state[f"{key}.0.bias"] for key in keys]),
        "heads.out_weight": torch.cat([state[f"{key}.2.weight"] for key in keys]),
        "heads.out_bias": torch.cat([state[f"{key}.2.bias"] for key in keys]),
    }
    others = {name: value for name, value in state.items() if not name.startswith(("heads_ret.", "heads_vol."))}
    return {**others, **heads}


# Names of parameters in a state dict, and of the older system.
_OLDER_NAMES = (("encoder.layers.", "lstm."), ("encoder.norms.", "norms."))


def _to_older_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    _rename(state, [(prefix + name, prefix + older) for name, older in _OLDER_NAMES])


def _from_older_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state, [(prefix + older, prefix + name) for name, older in _OLDER_NAMES])


def _rename(state: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> None:
    """Replace prefixes of names in place, keeping the order."""
    items = list(state.items())
    state.clear()
    for name, value in items:
        old, new = next(((old, new) for old, new in pairs if name.startswith(old)), ("", ""))
        state[new + name.removeprefix(old)] = value
