"""A temporal convolutional network: dilated causal convolutions in residual blocks (Bai, Kolter & Koltun 2018).

1. A causal convolution sees the bars up to its own: the input is padded on the left only.
2. A block is two such convolutions of one dilation, each with weight normalisation (Salimans & Kingma 2016), ReLU and
   dropout, added to its input; a convolution of width 1 adapts the input if the channels differ.
3. The dilation doubles from block to block, so that n blocks see 1 + 2 (kernel_size - 1) (2^n - 1) bars.

Shapes: L seq_len, B batch, F inputs, C channels.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from bitcorn_ray.models.neural.config import TCNConfig
from bitcorn_ray.models.neural.encoders import Encoder
from bitcorn_ray.models.neural.encoders.dropout import drop


class TCNEncoder(Encoder):
    """The channels of the last block at the last bar.

    blocks: number of residual blocks, 0 for the fewest whose last bar sees seq_len bars.
    """

    def __init__(self, inputs: int, seq_len: int, channels: int, kernel_size: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.output_size = channels
        count = blocks or blocks_for(seq_len, kernel_size)
        self.blocks = nn.ModuleList(
            _Block(inputs if index == 0 else channels, channels, kernel_size, 2**index, dropout)
            for index in range(count)
        )

    @classmethod
    def of(cls, inputs: int, config: TCNConfig) -> Self:
        """Return the encoder of a configuration."""
        return cls(inputs, config.seq_len, config.channels, config.kernel_size, config.blocks, config.dropout)

    def work_per_window(self, seq_len: int) -> int:
        """Return the number of states that a window costs."""
        return 2 * len(self.blocks) * seq_len * self.output_size

    def forward(self, x_LBF: Tensor) -> Tensor:
        """Return the channels (B, C) at the last bar."""
        x_BCL = x_LBF.permute(1, 2, 0)
        for block in self.blocks:
            x_BCL = block(x_BCL)
        return x_BCL[:, :, -1]


def receptive_field(blocks: int, kernel_size: int) -> int:
    """Return the number of bars that the last bar sees.

    >>> receptive_field(3, 2)
    15
    """
    return 1 + 2 * (kernel_size - 1) * ((1 << blocks) - 1)


def blocks_for(seq_len: int, kernel_size: int) -> int:
    """Return the fewest blocks whose last bar sees seq_len bars, at least 1.

    >>> blocks_for(64, 3), blocks_for(1, 3)
    (5, 1)
    """
    blocks = 1
    while receptive_field(blocks, kernel_size) < seq_len:
        blocks += 1
    return blocks


class _Block(nn.Module):
    """Two causal convolutions, added to their input."""

    def __init__(self, inputs: int, channels: int, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.padding, self.dropout = (kernel_size - 1) * dilation, dropout
        self.convolutions = nn.ModuleList(
            weight_norm(nn.Conv1d(size, channels, kernel_size, dilation=dilation)) for size in (inputs, channels)
        )
        self.adapt = nn.Conv1d(inputs, channels, 1) if inputs != channels else None

    def forward(self, x_BCL: Tensor) -> Tensor:
        states_BCL = x_BCL
        for convolution in self.convolutions:
            padded_BCL = nn.functional.pad(states_BCL, (self.padding, 0))
            states_BCL = _drop_channels_last(torch.relu(convolution(padded_BCL)), self.dropout, self.training)
        return torch.relu(states_BCL + (x_BCL if self.adapt is None else self.adapt(x_BCL)))


def _drop_channels_last(x_BCL: Tensor, probability: float, training: bool) -> Tensor:
    """Return the states with dropout, drawn in the layout (L, B, C) that `drop` expects."""
    return drop(x_BCL.permute(2, 0, 1), probability, training).permute(1, 2, 0)
