"""The recurrent layers: PyTorch's fused kernels, with the dropout between them done here.

On a CPU PyTorch hands an LSTM to oneDNN only where the stack has no dropout between its layers; layer by layer every
layer is fused. And where PyTorch draws a float for each number that might be dropped, here one byte decides: the mask
costs a sixth. On a GPU all layers go to cuDNN at once, which runs them side by side; in deterministic mode they go
one by one, as cuDNN's own dropout cannot be given a seed at each step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Draw", "drop", "last_state"]


@dataclass(frozen=True)
class Draw:
    """What dropout draws for a share of a batch: the numbers that the whole batch would get, of which it takes its own.

    generator: of this share, at the state that all shares begin with. first: place of the share's first window in the
    batch. windows: of the whole batch.
    """

    generator: torch.Generator
    first: int
    windows: int


def last_state(
    layers: nn.LSTM | nn.GRU, norms: nn.ModuleList | None, x_LBF: Tensor, draw: Draw | None = None
) -> Tensor:
    """State (B, D) of the last layer after the last step of (L, B, F).

    norms: one module a layer, for its states. Dropout is the layers' own, in training mode. draw: see `drop`; on a CPU.
    """
    if x_LBF.is_cuda and norms is None and not torch.are_deterministic_algorithms_enabled():
        last: Tensor = layers(x_LBF)[0][-1]
        return last
    states = x_LBF
    for layer in range(layers.num_layers):
        if layer:
            states = drop(states, layers.dropout, layers.training, draw)
        states = _one_layer(layers, layer, states)
        if norms is not None:
            states = norms[layer](states if layer < layers.num_layers - 1 else states[-1:])
    return states[-1]


def _one_layer(layers: nn.LSTM | nn.GRU, layer: int, states: Tensor) -> Tensor:
    """States (L, B, D) of one layer."""
    weights = [getattr(layers, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    zeros = states.new_zeros(1, states.shape[1], layers.hidden_size)
    arguments = (weights, True, 1, 0.0, layers.training, False, False)
    if isinstance(layers, nn.GRU):
        out: Tensor = torch._VF.gru(states, zeros, *arguments)[0]
    else:
        out = torch._VF.lstm(states, (zeros, zeros), *arguments)[0]
    return out


def drop(x: Tensor, share: float, training: bool, draw: Draw | None = None) -> Tensor:
    """Dropout of states (..., B, D): zero a share of the numbers, in 256ths, and scale the others up by as much.

    draw: where x is a part of a batch; by default it is the whole one, and PyTorch's own generator draws.
    """
    threshold = round(share * 256)
    if not training or threshold == 0:
        return x
    shape = (*x.shape[:-2], draw.windows, x.shape[-1]) if draw else x.shape
    count = math.prod(shape)
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=draw.generator if draw else None)
    drawn = words.view(torch.uint8)[:count].view(shape)
    if draw:
        drawn = drawn.narrow(-2, draw.first, x.shape[-2])
    # Compared in the floats' type, which holds 0 to 255 exactly: comparing bytes takes ten times as long.
    kept = drawn.to(x.dtype, memory_format=torch.contiguous_format).ge_(threshold)
    return x * kept.mul_(256 / (256 - threshold))
