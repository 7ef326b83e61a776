"""The network: recurrent layers over the window, and for each horizon a return head and a volatility head.

Volatility is forecast relative to a causal reference volatility that comes with each window, so that one model serves
quiet and wild times and all symbols. A head's number z becomes a volatility by exp, bounded: the logarithm of the
volatility is what is linear in the past's logarithms (Corsi 2009), and the gradient of the likelihood in z is
1 - v^2 / sigma^2 whatever sigma is, while softplus hardly moves where the market is much quieter than usual.

Shapes: B batch, L seq_len, F features, H horizons, D hidden_size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.config import ModelConfig
from bitcorn_ray.models.neural.encoders.recurrent import Draw, drop, last_state
from bitcorn_ray.models.neural.heads import Heads

__all__ = ["LSTM2Head", "LSTMMultiHead", "build_model"]

_GREATEST_LOG = 8.0  # of a volatility in its units: a factor of 3,000 either way


class LSTMMultiHead(nn.Module):
    """Forecast return and volatility at several horizons.

    n_features: F. horizons: bars ahead. hidden_size, num_layers, dropout, cell, input_norm, layer_norm,
    symbol_embedding, skip, volatility_link: see `ModelConfig`. symbols: P, for the embedding.

    The heads work in units of a window's reference volatility times `output_scale` (H,), which training sets to each
    horizon's typical volatility in units of the reference, so that every horizon's loss has the same size.
    `typical_reference`, of the training windows, stands in where no reference is given.
    """

    output_scale: Tensor
    typical_reference: Tensor

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
        super().__init__()
        self.horizons = tuple(horizons)
        self.volatility_link = volatility_link
        self.dropout = dropout
        self.input_norm = nn.LayerNorm(n_features) if input_norm else None
        self.embedding = nn.Embedding(symbols, symbol_embedding) if symbol_embedding else None
        inputs = n_features + symbol_embedding
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.lstm = kind(inputs, hidden_size, num_layers, dropout=dropout if num_layers > 1 else 0.0)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(num_layers)) if layer_norm else None
        self.heads = Heads(hidden_size, len(self.horizons))
        self.skip = nn.Linear(inputs, 2 * len(self.horizons), bias=False) if skip else None
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)
        self.register_buffer("output_scale", torch.ones(len(self.horizons)))
        self.register_buffer("typical_reference", torch.ones(()))

    def standardised(
        self, x_BLF: Tensor, symbol_B: Tensor | None = None, draw: Draw | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return and volatility (B, H), each in units of the reference times `output_scale`.

        symbol_B: int64 places of the windows' partitions among those trained on; needed with an embedding only.
        draw: for dropout, where the windows are a share of a batch.
        """
        x_LBF = x_BLF.transpose(0, 1)  # time first: each step's batch is one contiguous block
        if self.input_norm is not None:
            x_LBF = self.input_norm(x_LBF)
        if self.embedding is not None:
            if symbol_B is None:
                raise BitcornError("the model tells partitions apart: give symbol_B, each window's partition")
            x_LBF = torch.cat((x_LBF, self.embedding(symbol_B).expand(len(x_LBF), -1, -1)), 2)
        state_BD = drop(last_state(self.lstm, self.norms, x_LBF, draw), self.dropout, self.training, draw)
        # What follows is small: it stays in float32 where the layers above computed in less.
        with torch.autocast(state_BD.device.type, enabled=False):
            return_BH, log_BH = self.heads(state_BD.float())
            if self.skip is not None:
                skip_return_BH, skip_log_BH = self.skip(x_LBF[-1].float()).chunk(2, 1)
                return_BH, log_BH = return_BH + skip_return_BH, log_BH + skip_log_BH
            return return_BH, self._volatility(log_BH)

    def forward(
        self, x_BLF: Tensor, reference_B: Tensor | None = None, symbol_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log return (B, H) and its volatility (B, H), above zero, from scaled windows (B, L, F).

        reference_B: volatility of one bar at each window's end; by default `typical_reference`.
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
        """Log return and volatility, each (B, len(horizons)), at horizons between those trained on.

        The return is linear in the horizon, and so is the variance, as they are for independent steps.
        Raises BitcornError for a horizon outside of those trained on.
        """
        order = sorted(range(len(self.horizons)), key=lambda place: self.horizons[place])
        known = torch.tensor([self.horizons[place] for place in order], dtype=torch.float64)
        asked = torch.tensor([float(horizon) for horizon in horizons], dtype=torch.float64)
        if len(asked) == 0 or not bool(((asked >= known[0]) & (asked <= known[-1])).all()):
            raise BitcornError(
                f"horizons {list(horizons)} are asked for, but the model was trained on {list(self.horizons)}: only "
                f"horizons from {min(self.horizons)} to {max(self.horizons)} can be interpolated"
            )
        return_BH, volatility_BH = (
            each[:, order] for each in LSTMMultiHead.forward(self, x_BLF, reference_B, symbol_B)
        )
        above = torch.searchsorted(known, asked).clamp(min=1) if len(known) > 1 else torch.zeros(len(asked)).long()
        below = (above - 1).clamp(min=0)
        width = (known[above] - known[below]).clamp(min=1e-12)
        share = ((asked - known[below]) / width).to(return_BH)
        above, below, share = above.to(return_BH.device), below.to(return_BH.device), share.to(return_BH.device)
        variance_BH = volatility_BH.square()
        between_BH = torch.lerp(return_BH[:, below], return_BH[:, above], share)
        return between_BH, torch.lerp(variance_BH[:, below], variance_BH[:, above], share).sqrt()

    def _unit(self, reference_B: Tensor | None) -> Tensor:
        reference = self.typical_reference if reference_B is None else reference_B[:, None]
        return reference * self.output_scale

    def _volatility(self, log_BH: Tensor) -> Tensor:
        if self.volatility_link == "softplus":
            return nn.functional.softplus(log_BH)
        return torch.exp(_GREATEST_LOG * torch.tanh(log_BH / _GREATEST_LOG))


class LSTM2Head(LSTMMultiHead):
    """`LSTMMultiHead` for one horizon: one return and one volatility, each (B,)."""

    def __init__(
        self, n_features: int, hidden_size: int = 64, num_layers: int = 2, dropout: float = 0.2, horizon: int = 1
    ) -> None:
        super().__init__(n_features, (horizon,), hidden_size, num_layers, dropout)

    def forward(
        self, x_BLF: Tensor, reference_B: Tensor | None = None, symbol_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log return (B,) and its volatility (B,) from scaled windows (B, L, F)."""
        return_BH, volatility_BH = super().forward(x_BLF, reference_B, symbol_B)
        return return_BH[:, 0], volatility_BH[:, 0]


def build_model(n_features: int, config: ModelConfig, symbols: int = 1) -> LSTMMultiHead:
    """Build an untrained model for F features. symbols: how many partitions it tells apart, with an embedding."""
    return LSTMMultiHead(
        n_features,
        config.horizons,
        config.hidden_size,
        config.num_layers,
        config.dropout,
        cell=config.cell,
        input_norm=config.input_norm,
        layer_norm=config.layer_norm,
        symbols=symbols,
        symbol_embedding=config.symbol_embedding,
        skip=config.skip,
        volatility_link=config.volatility_link,
    )
