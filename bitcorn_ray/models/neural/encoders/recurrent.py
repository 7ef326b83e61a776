"""LSTM and GRU encoders on PyTorch's fused kernels.

On a CPU PyTorch hands an LSTM to oneDNN only if the stack has no dropout between its layers. So the layers run one by
one, with the dropout between them done here, and every layer is fused. On a GPU all layers go to cuDNN at once, which
runs them concurrently; in deterministic mode they run one by one, as cuDNN's own dropout cannot be seeded for each
step. PyTorch's autocast always uses float16 for recurrent layers on a GPU, in which small gradients vanish: the cast to
bfloat16 is done here.

Shapes: L seq_len, B batch, F inputs, D hidden_size.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Self

import torch
from torch import Tensor, nn

from bitcorn_ray.models.neural.config import RecurrentConfig
from bitcorn_ray.models.neural.encoders import Encoder
from bitcorn_ray.models.neural.encoders.dropout import drop


class RecurrentEncoder(Encoder):
    """The last layer's state after the last bar.

    cell: "lstm" or "gru". layer_norm: normalise the states of each layer.
    """

    def __init__(
        self, inputs: int, hidden_size: int, num_layers: int, dropout: float, *, cell: str, layer_norm: bool
    ) -> None:
        super().__init__()
        self.output_size = hidden_size
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.layers = kind(inputs, hidden_size, num_layers, dropout=dropout if num_layers > 1 else 0.0)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(num_layers)) if layer_norm else None

    @classmethod
    def of(cls, inputs: int, config: RecurrentConfig) -> Self:
        """Return the encoder of a configuration."""
        return cls(
            inputs,
            config.hidden_size,
            config.num_layers,
            config.dropout,
            cell=config.kind,
            layer_norm=config.layer_norm,
        )

    def work_per_window(self, seq_len: int) -> int:
        """Return the number of states that a window costs."""
        return seq_len * self.output_size

    def forward(self, x_LBF: Tensor) -> Tensor:
        """Return the state (B, D) after the last bar."""
        layers = self.layers
        if x_LBF.is_cuda and self.norms is None and not torch.are_deterministic_algorithms_enabled():
            return _states(layers, 0, layers.num_layers, x_LBF)[-1]
        states = x_LBF
        for layer in range(layers.num_layers):
            if layer:
                states = drop(states, layers.dropout, layers.training)
            states = _states(layers, layer, 1, states)
            if self.norms is not None:
                states = self.norms[layer](states if layer < layers.num_layers - 1 else states[-1:])
        return states[-1]


def _states(layers: nn.LSTM | nn.GRU, first: int, count: int, x_LBF: Tensor) -> Tensor:
    """Return the states (L, B, D) of the last of ``count`` layers, with their own dropout between them."""
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [getattr(layers, f"{kind}_l{layer}") for layer in range(first, first + count) for kind in kinds]
    cast = x_LBF.is_cuda and torch.is_autocast_enabled("cuda")
    if cast:
        dtype = torch.get_autocast_dtype("cuda")
        weights, x_LBF = _contiguous(weights, dtype), x_LBF.to(dtype)
    zeros = x_LBF.new_zeros(count, x_LBF.shape[1], layers.hidden_size)
    dropout = layers.dropout if count > 1 else 0.0
    arguments = (weights, True, count, dropout, layers.training, False, False)
    with torch.autocast("cuda", enabled=False) if cast else nullcontext():
        if isinstance(layers, nn.GRU):
            states: Tensor = torch._VF.gru(x_LBF, zeros, *arguments)[0]
        else:
            states = torch._VF.lstm(x_LBF, (zeros, zeros), *arguments)[0]
    return states


def _contiguous(weights: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return the weights in another type, laid out as cuDNN wants them: all matrices, then all biases, without gaps."""
    order = sorted(range(len(weights)), key=lambda index: -weights[index].dim())
    block = torch.cat([weights[index].reshape(-1) for index in order]).to(dtype)
    parts = block.split([weights[index].numel() for index in order])
    by_index = dict(zip(order, parts, strict=True))
    return [by_index[index].view_as(weight) for index, weight in enumerate(weights)]
