"""The heads of all horizons as one batched product.

A head is Linear(D, M), ReLU, Linear(M, 1), with M = D / 2. There are 2H of them on the same state: the returns' of all
horizons, then the volatilities'. Their first layers are one matrix, and their second layers one product and sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Heads", "from_per_horizon_heads"]


class Heads(nn.Module):
    """2H heads on a state (B, D): returns (B, H), and one number (B, H) for each volatility.

    weight (2H M, D), bias (2H M,): of the first layers; out_weight (2H, M), out_bias (2H,): of the second ones.
    """

    def __init__(self, hidden_size: int, horizons: int) -> None:
        super().__init__()
        middle = max(hidden_size // 2, 1)
        self.weight = nn.Parameter(torch.empty(2 * horizons * middle, hidden_size))
        self.bias = nn.Parameter(torch.empty(2 * horizons * middle))
        self.out_weight = nn.Parameter(torch.empty(2 * horizons, middle))
        self.out_bias = nn.Parameter(torch.empty(2 * horizons))
        # As nn.Linear begins.
        for parameter, inputs in ((self.weight, hidden_size), (self.bias, hidden_size), (self.out_weight, middle)):
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


def from_per_horizon_heads(state: Mapping[str, Tensor], horizons: Sequence[int]) -> dict[str, Tensor]:
    """Turn a state dict with `heads_ret.<h>.{0,2}.{weight,bias}` and `heads_vol...` into one with `heads.*`.

    This is how the older system laid out its heads. What is not a head's is taken over as it is.
    Raises KeyError where a horizon has no head.
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
