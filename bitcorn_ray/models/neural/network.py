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
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.config import GRUConfig, LSTMConfig, NetworkConfig, RecurrentConfig
from bitcorn_ray.models.neural.encoders import Encoder
from bitcorn_ray.models.neural.encoders.dropout import drop

_GREATEST_LOG = 8.0  # of a volatility in its units: a factor of 3,000 either way


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
    """Log returns and volatilities of several horizons from windows of F features.

    symbols: number of partitions, needed with an embedding.
    Outputs are in units of the reference volatility times `output_scale` (H,), which training sets to each horizon's
    typical volatility in units of the reference, so that the losses of all horizons have one size. `typical_reference`,
    of the training windows, is used if no reference is given.
    """

    output_scale: Tensor
    typical_reference: Tensor

    def __init__(self, n_features: int, config: NetworkConfig, symbols: int = 1) -> None:
        super().__init__()
        self.horizons, self.dropout, self.volatility_link = config.horizons, config.dropout, config.volatility_link
        inputs, count = n_features + config.symbol_embedding, len(config.horizons)
        self.input_norm = nn.LayerNorm(n_features) if config.input_norm else None
        self.embedding = nn.Embedding(symbols, config.symbol_embedding) if config.symbol_embedding else None
        self.encoder = _encoder(inputs, config)
        self.heads = Heads(self.encoder.output_size, count)
        self.skip = nn.Linear(inputs, 2 * count, bias=False) if config.skip else None
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)
        self.register_buffer("output_scale", torch.ones(count))
        self.register_buffer("typical_reference", torch.ones(()))
        if isinstance(config, RecurrentConfig):
            self.register_state_dict_post_hook(_to_stored_names)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_pre_hook(_from_stored_names)  # type: ignore[no-untyped-call]

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
                raise BitcornError("the model has a symbol embedding: give symbol_B, the partition of each window")
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
        unit_BH = (self.typical_reference if reference_B is None else reference_B[:, None]) * self.output_scale
        return return_BH * unit_BH, volatility_BH * unit_BH

    def _volatility(self, log_BH: Tensor) -> Tensor:
        if self.volatility_link == "softplus":
            return nn.functional.softplus(log_BH)
        return torch.exp(_GREATEST_LOG * torch.tanh(log_BH / _GREATEST_LOG))


class LSTMMultiHead(Network):
    """A recurrent network from single options. cell: "lstm" or "gru". options: further fields of its configuration."""

    def __init__(
        self,
        n_features: int,
        horizons: Sequence[int] = (1, 4, 12),
        hidden_size: int = 64,
        num_layers: int = 2,
        dropout: float = 0.2,
        *,
        cell: str = "lstm",
        symbols: int = 1,
        **options: Any,
    ) -> None:
        config = {"lstm": LSTMConfig, "gru": GRUConfig}[cell]
        sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "dropout": dropout}
        super().__init__(n_features, config(horizons=tuple(horizons), **sizes, **options), symbols)


def _encoder(inputs: int, config: NetworkConfig) -> Encoder:
    """Return the encoder that a configuration names."""
    module, _, name = config.encoder.partition(":")
    made: type[Encoder] = getattr(import_module(f"bitcorn_ray.models.neural.encoders.{module}"), name)
    return made.of(inputs, config)


def load_weights(network: Network, state: Mapping[str, Tensor]) -> None:
    """Load a state dict, also one whose heads have another width or that has no reference volatility.

    Raises RuntimeError if names or other shapes differ.
    """
    for name in ("weight", "bias", "out_weight"):
        if f"heads.{name}" in state:
            setattr(network.heads, name, nn.Parameter(torch.empty_like(state[f"heads.{name}"])))
    own = {name: value for name, value in network.state_dict().items() if name in ("output_scale", "typical_reference")}
    network.load_state_dict({**own, **state})


# Prefixes of a recurrent network's parameters, and in its state dict, as the older system named them.
_STORED_NAMES = (("encoder.layers.", "lstm."), ("encoder.norms.", "norms."))


def _to_stored_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    _rename(state, {prefix + name: prefix + stored for name, stored in _STORED_NAMES})


def _from_stored_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state, {prefix + stored: prefix + name for name, stored in _STORED_NAMES})


def _rename(state: dict[str, Any], prefixes: Mapping[str, str]) -> None:
    """Replace prefixes of names in place, keeping the order."""
    for name in list(state):
        old = next((old for old in prefixes if name.startswith(old)), "")
        state[prefixes.get(old, "") + name.removeprefix(old)] = state.pop(name)
