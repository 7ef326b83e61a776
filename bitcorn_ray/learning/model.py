"""The network: one LSTM over the window; for each horizon a return head and a volatility head on its last state.

Shapes: B batch, L seq_len, F features, H horizons.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["LSTM2Head", "LSTMMultiHead"]


class LSTMMultiHead(nn.Module):
    """Forecast return and volatility at several horizons.

    n_features: F. horizons: bars ahead. hidden_size, num_layers: of the LSTM. dropout: between its layers.

    The heads work in units of `output_scale` (H,), a buffer that training sets to each horizon's typical volatility, so
    that every horizon's loss has the same size. `forward` gives log returns and their volatility in real units.
    """

    output_scale: Tensor

    def __init__(
        self,
        n_features: int,
        horizons: Sequence[int] = (1, 4, 12),
        hidden_size: int = 64,
        num_layers: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.horizons = tuple(horizons)
        # Time first: the recurrence then reads each step's batch as one contiguous block.
        self.lstm = nn.LSTM(n_features, hidden_size, num_layers, dropout=dropout if num_layers > 1 else 0.0)
        self.heads_ret = nn.ModuleDict({str(h): _head(hidden_size) for h in self.horizons})
        self.heads_vol = nn.ModuleDict({str(h): _head(hidden_size, nn.Softplus()) for h in self.horizons})
        self.register_buffer("output_scale", torch.ones(len(self.horizons)))

    def standardised(self, x_BLF: Tensor) -> tuple[Tensor, Tensor]:
        """Return and volatility (B, H), each in units of `output_scale`."""
        states_LBD, _ = self.lstm(x_BLF.transpose(0, 1))
        last_BD = states_LBD[-1]
        return_BH = torch.cat([self.heads_ret[str(h)](last_BD) for h in self.horizons], 1)
        volatility_BH = torch.cat([self.heads_vol[str(h)](last_BD) for h in self.horizons], 1)
        return return_BH, volatility_BH

    def forward(self, x_BLF: Tensor) -> tuple[Tensor, Tensor]:
        """Log return (B, H) and its volatility (B, H), above zero, from scaled windows (B, L, F)."""
        return_BH, volatility_BH = self.standardised(x_BLF)
        return return_BH * self.output_scale, volatility_BH * self.output_scale


class LSTM2Head(LSTMMultiHead):
    """`LSTMMultiHead` for one horizon: one return and one volatility, each (B,)."""

    def __init__(
        self, n_features: int, hidden_size: int = 64, num_layers: int = 2, dropout: float = 0.2, horizon: int = 1
    ) -> None:
        super().__init__(n_features, (horizon,), hidden_size, num_layers, dropout)

    def forward(self, x_BLF: Tensor) -> tuple[Tensor, Tensor]:
        """Log return (B,) and its volatility (B,) from scaled windows (B, L, F)."""
        return_BH, volatility_BH = super().forward(x_BLF)
        return return_BH[:, 0], volatility_BH[:, 0]


def _head(hidden_size: int, *last: nn.Module) -> nn.Sequential:
    middle = max(hidden_size // 2, 1)
    return nn.Sequential(nn.Linear(hidden_size, middle), nn.ReLU(), nn.Linear(middle, 1), *last)
