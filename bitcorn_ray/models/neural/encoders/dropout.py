"""Dropout whose mask does not depend on how a batch is divided among threads.

PyTorch draws a float for each number that might be dropped. Here one byte decides, which costs a sixth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DropoutSlice:
    """The part of a batch that a thread computes: it draws the mask of the whole batch and uses its own part.

    generator: of this part, in the state that the generators of all parts start from. first: index of the part's first
    window in the batch. windows: of the whole batch.
    """

    generator: torch.Generator
    first: int
    windows: int


_slice: ContextVar[DropoutSlice | None] = ContextVar("dropout_slice", default=None)


@contextmanager
def dropout_slice(part: DropoutSlice | None) -> Iterator[None]:
    """Draw dropout for a part of a batch within this block and thread; None for a whole batch."""
    token = _slice.set(part)
    try:
        yield
    finally:
        _slice.reset(token)


def drop(x: Tensor, probability: float, training: bool) -> Tensor:
    """Return states (..., B, D) with dropout: a share of the numbers becomes zero, the others are scaled up.

    probability: in 256ths. The generator is that of the current `dropout_slice`, by default PyTorch's own.
    """
    threshold = round(probability * 256)
    if not training or threshold == 0:
        return x
    part = _slice.get()
    shape = (*x.shape[:-2], part.windows, x.shape[-1]) if part else x.shape
    count = math.prod(shape)
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=part.generator if part else None)
    drawn = words.view(torch.uint8)[:count].view(shape)
    if part:
        drawn = drawn.narrow(-2, part.first, x.shape[-2])
    # Compared in the floats' type, which holds 0 to 255 exactly: comparing bytes takes ten times as long.
    kept = drawn.to(x.dtype, memory_format=torch.contiguous_format).ge_(threshold)
    return x * kept.mul_(256 / (256 - threshold))
