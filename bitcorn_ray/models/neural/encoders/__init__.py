"""Encoders of windows: one file an architecture."""

from __future__ import annotations

from torch import nn


class Encoder(nn.Module):
    """A map from windows (L, B, F), time first, to a state (B, D). It draws its dropout by `dropout.drop`.

    output_size: D.
    """

    output_size: int

    def work_per_window(self, seq_len: int) -> int:
        """Return the number of states that a window costs."""
        raise NotImplementedError
