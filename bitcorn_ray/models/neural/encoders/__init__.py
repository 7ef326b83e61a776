"""Encoders of windows: one file an architecture."""

from __future__ import annotations

from typing import Any, Self

from torch import nn


class Encoder(nn.Module):
    """A map from windows (L, B, F), time first, to a state (B, D). It draws its dropout by `dropout.drop`.

    output_size: D.
    """

    output_size: int

    @classmethod
    def of(cls, inputs: int, config: Any) -> Self:
        """Return the encoder of a configuration, whose `encoder` names this class. inputs: F."""
        raise NotImplementedError

    def work_per_window(self, seq_len: int) -> int:
        """Return the number of states that a window costs."""
        raise NotImplementedError
