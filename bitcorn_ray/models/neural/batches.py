"""Batches of windows: one gather by index, on the device that trains.

On a CPU the tensors share the memory of the dataset's arrays, which may be Ray's and shared with other processes:
this module only reads it. Each epoch shuffles the windows by the seed and its own number. Of every batch each worker
takes every world-th window, so that shards are disjoint, complete and of equal steps.

Shapes: B batch, L seq_len, F features, H horizons, N windows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bitcorn_ray.datasets.dataset import Dataset


class Batch(NamedTuple):
    """Windows x (B, L, F), the indexes of their partitions (B,), and their outcomes.

    The returns and realised volatilities (B, H) are in units of the reference volatility times the output scale.
    """

    x_BLF: Tensor
    symbol_B: Tensor
    return_BH: Tensor
    realised_BH: Tensor


class DeviceData:
    """A dataset as tensors on a device."""

    def __init__(self, data: Dataset, seq_len: int, device: torch.device) -> None:
        self.seq_len = seq_len
        self.matrix, self.reference, self.returns, self.volatilities, self.scale = (
            shared_tensor(array).to(device)
            for array in (data.matrix, data.reference, data.returns, data.volatilities, data.output_scale)
        )
        self.later_starts = shared_tensor(data.partition_starts[1:-1]).to(device)

    def batch(self, ends_B: Tensor) -> Batch:
        """Return the batch of the windows that end at rows (B,)."""
        unit_BH = self.reference[ends_B][:, None] * self.scale
        return Batch(
            gather(self.matrix, ends_B, self.seq_len),
            torch.bucketize(ends_B, self.later_starts, right=True),
            self.returns[ends_B] / unit_BH,
            self.volatilities[ends_B] / unit_BH,
        )


def gather(matrix: Tensor, ends: Tensor, seq_len: int) -> Tensor:
    """Return the windows (B, L, F) that end at rows (B,) of a (T, F) matrix, time-major in memory."""
    rows_LB = torch.arange(1 - seq_len, 1, device=ends.device)[:, None] + ends
    return matrix.index_select(0, rows_LB.view(-1)).view(seq_len, len(ends), -1).transpose(0, 1)


def shared_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Return a tensor in the memory of an array. Only read it: PyTorch has no read-only tensors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def steps_per_epoch(windows: int, batch_size: int, world: int) -> int:
    """Return the steps of each of ``world`` workers: a last batch of fewer windows than workers is left out.

    batch_size: at least ``world``.
    """
    whole, rest = divmod(windows, batch_size)
    return whole + (rest >= world)


def shuffled(ends: Tensor, config_seed: int, epoch: int) -> Tensor:
    """Return all training windows (N,) in the order of an epoch, on the device of ``ends``."""
    generator = torch.Generator().manual_seed(derive_seed(config_seed, epoch))
    return ends[torch.randperm(len(ends), generator=generator).to(ends.device)]


def shards(order: Tensor, batch_size: int, rank: int, world: int, start: int) -> Iterator[tuple[Tensor, int]]:
    """Yield one worker's part of each batch and the size of the whole batch, from step ``start`` on."""
    for step in range(start, steps_per_epoch(len(order), batch_size, world)):
        batch = order[step * batch_size : (step + 1) * batch_size]
        yield batch[rank::world], len(batch)


def derive_seed(*numbers: int) -> int:
    """Return one seed for several numbers, different for different numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return seed
