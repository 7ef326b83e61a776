"""Batches of windows on the device that trains, and the gradients of a step.

A batch is one gather by index. On a CPU the tensors share the memory of the dataset's arrays, which may be Ray's and
shared with other processes: this module only reads it. Each epoch shuffles the windows by the seed and its own number.
Of every batch each worker takes every world-th window, so that shards are disjoint, complete and of equal steps.

The gradients are of a whole batch at once, on a CPU of its parts in parallel, on a GPU by a CUDA graph. The time steps
of a recurrent layer are sequential, and each is too small to be divided between two threads, but the windows of a batch
are independent: every thread takes a part of them through the whole network and back, with single-threaded kernels, and
the gradients are added in the order of the parts. Dropout is drawn as for the whole batch (`encoders.dropout`), so that
dividing a batch changes a result only in its last bits, and always by the same bits. On a GPU a step is hundreds of
small kernels, and launching them one by one takes longer than running them. A CUDA graph records them once and launches
all of them together.

Shapes: B batch, L seq_len, F features, H horizons, N windows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.models.neural.acceleration import autocast
from bitcorn_ray.models.neural.encoders.dropout import DropoutSlice, dropout_slice
from bitcorn_ray.models.neural.losses import Objective
from bitcorn_ray.models.neural.network import Network


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


_Outcome = tuple[Sequence[Tensor], Tensor]  # gradients of all parameters, and the losses (B, H)

_WARM_UPS = 3
_SMALLEST_PART = 16  # windows: with fewer, kernels are not filled
_SMALLEST_WORK = 65_536  # states of a part for which a thread pays


def part_count(threads: int, windows: int, work_per_window: int) -> int:
    """Return the number of parts that a batch is divided into on so many threads; 1 for an undivided batch.

    work_per_window: states that a window costs, see `Encoder.work_per_window`.

    >>> part_count(2, 64, 64 * 64), part_count(2, 512, 2 * 32), part_count(1, 64, 64 * 64)
    (2, 1, 1)
    """
    return max(1, min(threads, windows // _SMALLEST_PART, windows * work_per_window // _SMALLEST_WORK))


class _NetworkWithLoss(nn.Module):
    """Network and objective as one module that DDP can wrap, as some objectives have parameters."""

    def __init__(self, model: Network, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        forecast = self.model.standardised(batch.x_BLF, batch.symbol_B)
        outcome: tuple[Tensor, Tensor] = self.objective(*forecast, batch.return_BH, batch.realised_BH)
        return outcome


class _Recording:
    """The kernels of a step as a CUDA graph, for batches of one size. Its results are valid until the next call.

    pool: memory of the graphs, shared by all that never run at the same time.
    """

    def __init__(self, step: Callable[[Tensor], _Outcome], ends_B: Tensor, pool: Any) -> None:
        self._ends_B = ends_B.clone()
        side = torch.cuda.Stream(ends_B.device)
        side.wait_stream(torch.cuda.current_stream(ends_B.device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):  # libraries choose kernels and allocate in the first steps
                step(self._ends_B)
        torch.cuda.current_stream(ends_B.device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool, capture_error_mode="thread_local"):
            self._outcome = step(self._ends_B)

    def __call__(self, ends_B: Tensor) -> _Outcome:
        self._ends_B.copy_(ends_B)
        self._graph.replay()
        return self._outcome


class Steps:
    """The losses of batches, and the gradients of all parameters.

    parts: number of threads that compute a part of each batch, on a CPU; 1 leaves a batch whole. recorded: size of the
    batches whose kernels are recorded, on a GPU; other batches, and all by default, are launched kernel by kernel.
    """

    def __init__(
        self, model: Network, objective: Objective, data: DeviceData, parts: int = 1, recorded: int | None = None
    ) -> None:
        self.network: nn.Module = _NetworkWithLoss(model, objective)
        self.parameters = list(self.network.parameters())
        self.data, self.parts, self.recorded = data, parts, recorded
        self._pool: ThreadPoolExecutor | None = None
        self._recordings: dict[tuple[str, float], _Recording] = {}
        self._memory = torch.cuda.graph_pool_handle() if recorded else None

    @classmethod
    def for_one_process(
        cls, model: Network, objective: Objective, data: DeviceData, batch_size: int, deterministic: bool
    ) -> Steps:
        """Return the fastest steps of a single process: batches in parts on a CPU, recorded on a GPU.

        Recorded dropout cannot be seeded for each step, so nothing is recorded in a deterministic training.
        """
        if data.matrix.device.type == "cpu":
            work = model.encoder.work_per_window(data.seq_len)
            return cls(model, objective, data, part_count(torch.get_num_threads(), batch_size, work))
        return cls(model, objective, data, recorded=None if deterministic else batch_size)

    def distribute(self) -> None:
        """Average the gradients of all processes from now on."""
        self.network = nn.parallel.DistributedDataParallel(
            self.network, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Start the threads for the parts within this block; PyTorch's other threads are divided among them."""
        before = torch.get_num_threads()
        if self.parts == 1:
            yield
            return
        threads = max(1, before // self.parts)
        with ThreadPoolExecutor(self.parts - 1, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            self._pool = pool
            torch.set_num_threads(threads)
            try:
                yield
            finally:
                self._pool = None
                torch.set_num_threads(before)

    def gradients(self, ends_B: Tensor, factor: float, precision: str, seed: int) -> Tensor:
        """Set the gradients of the summed loss times a factor, and return the losses (B, H).

        ends_B: rows at which the windows end. seed: of dropout if the batch is divided; an undivided batch uses
        PyTorch's own generator.
        """
        if isinstance(self.network, nn.parallel.DistributedDataParallel):
            for parameter in self.parameters:
                parameter.grad = None
            loss_sum, loss_BH = self._losses(ends_B, precision)
            (loss_sum * factor).backward()
            return loss_BH
        gradients, loss_BH = self._outcome(ends_B, factor, precision, seed)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss_BH

    def try_out(self, ends_B: Tensor, precision: str) -> None:
        """Run one forward and backward pass without side effects, but for the random generator."""
        self._outcome(ends_B, 1 / len(ends_B), precision, 0)

    def _outcome(self, ends_B: Tensor, factor: float, precision: str, seed: int) -> _Outcome:
        if len(ends_B) == self.recorded:
            if (precision, factor) not in self._recordings:
                step = partial(self._whole, factor=factor, precision=precision)
                self._recordings[precision, factor] = _Recording(step, ends_B, self._memory)
            return self._recordings[precision, factor](ends_B)
        if self._pool is not None and len(ends_B) >= self.parts:
            return self._in_parts(ends_B, factor, precision, seed)
        return self._whole(ends_B, factor, precision)

    def _whole(self, ends_B: Tensor, factor: float, precision: str) -> _Outcome:
        loss_sum, loss_BH = self._losses(ends_B, precision)
        return torch.autograd.grad(loss_sum * factor, self.parameters), loss_BH

    def _losses(self, ends_B: Tensor, precision: str) -> tuple[Tensor, Tensor]:
        """Return the sum that training minimises, and the losses (B, H)."""
        with autocast(precision, ends_B.device):
            loss_sum, loss_BH = self.network(self.data.batch(ends_B))
        return loss_sum, loss_BH.detach()

    def _in_parts(self, ends_B: Tensor, factor: float, precision: str, seed: int) -> _Outcome:
        """Compute each part on a thread and add up the gradients."""
        assert self._pool is not None

        def compute(first: int, own_B: Tensor) -> _Outcome:
            with dropout_slice(DropoutSlice(torch.Generator().manual_seed(seed), first, len(ends_B))):
                loss_sum, loss_BH = self._losses(own_B, precision)
            return torch.autograd.grad(loss_sum * factor, self.parameters), loss_BH

        parts, firsts = ends_B.tensor_split(self.parts), [0]
        for part in parts[:-1]:
            firsts.append(firsts[-1] + len(part))
        others = [self._pool.submit(compute, *job) for job in zip(firsts[1:], parts[1:], strict=True)]
        try:
            done = [compute(firsts[0], parts[0])]
        finally:
            # Wait for all, also if the first part failed.
            results = [other.exception() or other.result() for other in others]
        for result in results:
            if isinstance(result, BaseException):
                raise result
            done.append(result)
        gradients, losses = zip(*done, strict=True)
        for total, *rest in zip(*gradients, strict=True):
            for other in rest:
                total.add_(other)
        return gradients[0], torch.cat(losses)
