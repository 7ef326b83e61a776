"""The recurrent layers: PyTorch's fused kernels, with the dropout between them done here.

On a CPU PyTorch hands an LSTM to oneDNN only where the stack has no dropout between its layers; layer by layer every
layer is fused. And where PyTorch draws a float for each number that might be dropped, here one byte decides: the mask
costs a sixth. On a GPU all layers go to cuDNN at once, which runs them side by side; in deterministic mode they go
one by one, as cuDNN's own dropout cannot be given a seed at each step. PyTorch's autocast would take float16 for
recurrent layers on a GPU, whatever it is told, and small gradients would vanish: the cast to bfloat16 is done here.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
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
        return _states(layers, 0, layers.num_layers, x_LBF)[-1]
    states = x_LBF
    for layer in range(layers.num_layers):
        if layer:
            states = drop(states, layers.dropout, layers.training, draw)
        states = _states(layers, layer, 1, states)
        if norms is not None:
            states = norms[layer](states if layer < layers.num_layers - 1 else states[-1:])
    return states[-1]


def _states(layers: nn.LSTM | nn.GRU, first: int, count: int, x_LBF: Tensor) -> Tensor:
    """States (L, B, D) of the last of ``count`` layers, with their own dropout between them."""
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [getattr(layers, f"{kind}_l{layer}") for layer in range(first, first + count) for kind in kinds]
    cast = x_LBF.is_cuda and torch.is_autocast_enabled("cuda")
    if cast:
        dtype = torch.get_autocast_dtype("cuda")
        weights, x_LBF = _in_one_block(weights, dtype), x_LBF.to(dtype)
    zeros = x_LBF.new_zeros(count, x_LBF.shape[1], layers.hidden_size)
    dropout = layers.dropout if count > 1 else 0.0
    arguments = (weights, True, count, dropout, layers.training, False, False)
    with torch.autocast("cuda", enabled=False) if cast else nullcontext():
        if isinstance(layers, nn.GRU):
            out: Tensor = torch._VF.gru(x_LBF, zeros, *arguments)[0]
        else:
            out = torch._VF.lstm(x_LBF, (zeros, zeros), *arguments)[0]
    return out


def _in_one_block(weights: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The weights in another type, in memory as cuDNN wants them: all matrices, then all biases, without a gap."""
    order = sorted(range(len(weights)), key=lambda place: -weights[place].dim())
    block = torch.cat([weights[place].reshape(-1) for place in order]).to(dtype)
    parts = block.split([weights[place].numel() for place in order])
    placed = dict(zip(order, parts, strict=True))
    return [placed[place].view_as(weight) for place, weight in enumerate(weights)]


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
