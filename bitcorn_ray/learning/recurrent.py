"""The recurrent layers: PyTorch's fused kernels, with the dropout between them done here.

On a CPU PyTorch hands an LSTM to oneDNN only where the stack has no dropout between its layers; layer by layer every
layer is fused. And where PyTorch draws a float for each number that might be dropped, here one byte decides: the mask
costs a sixth. On a GPU all layers go to cuDNN at once, which runs them side by side; in deterministic mode they go
one by one, as cuDNN's own dropout cannot be given a seed at each step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["drop", "last_state"]


def last_state(layers: nn.LSTM | nn.GRU, norms: nn.ModuleList | None, x_LBF: Tensor) -> Tensor:
    """State (B, D) of the last layer after the last step of (L, B, F).

    norms: one module a layer, for its states. Dropout is the layers' own, in training mode.
    """
    if x_LBF.is_cuda and norms is None and not torch.are_deterministic_algorithms_enabled():
        last: Tensor = layers(x_LBF)[0][-1]
        return last
    states = x_LBF
    for layer in range(layers.num_layers):
        if layer:
            states = drop(states, layers.dropout, layers.training)
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


def drop(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout: zero a share of the numbers, in 256ths, and scale the others up by as much."""
    threshold = round(share * 256)
    if not training or threshold == 0:
        return x
    count = x.numel()
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    # Compared in the floats' type, which holds 0 to 255 exactly: comparing bytes takes ten times as long.
    kept = words.view(torch.uint8)[:count].view(x.shape).to(x.dtype).ge_(threshold)
    return x * kept.mul_(256 / (256 - threshold))
