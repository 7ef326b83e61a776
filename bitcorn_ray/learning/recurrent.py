"""The recurrent layers: PyTorch's, one by one on a CPU, all at once on a GPU.

On a CPU PyTorch hands an LSTM to oneDNN's fused kernels only where the stack has no dropout between its layers; layer by
layer, with the dropout in between done here, every layer gets them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RecurrentLayers"]


class RecurrentLayers(nn.Module):
    """Layers of LSTM or GRU cells over (L, B, F), which give the last layer's last state (B, D).

    The parameters have the names and shapes of `torch.nn.LSTM` and `torch.nn.GRU`. dropout: between layers.
    layer_norm: normalise each layer's states.
    """

    def __init__(
        self, inputs: int, hidden_size: int, num_layers: int, *, cell: str, dropout: float, layer_norm: bool
    ) -> None:
        super().__init__()
        self.cell, self.hidden_size, self.num_layers, self.dropout = cell, hidden_size, num_layers, dropout
        like = (nn.LSTM if cell == "lstm" else nn.GRU)(inputs, hidden_size, num_layers)
        for name, parameter in like.named_parameters():
            self.register_parameter(name, parameter)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(num_layers)) if layer_norm else None

    def forward(self, x_LBF: Tensor) -> Tensor:
        """Compute the last layer's last state (B, D)."""
        states = x_LBF
        for layer in range(self.num_layers):
            if layer:
                states = nn.functional.dropout(states, self.dropout, self.training)
            states = self._run(states, [layer])
            if self.norms is not None:
                states = self.norms[layer](states if layer < self.num_layers - 1 else states[-1:])
        return states[-1]

    def _run(self, states: Tensor, layers: list[int]) -> Tensor:
        weights = [
            getattr(self, f"{name}_l{layer}")
            for layer in layers
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        zeros = states.new_zeros(len(layers), states.shape[1], self.hidden_size)
        arguments = (weights, True, len(layers), 0.0, self.training, False, False)
        if self.cell == "gru":
            out: Tensor = torch._VF.gru(states, zeros, *arguments)[0]
        else:
            out = torch._VF.lstm(states, (zeros, zeros), *arguments)[0]
        return out
