"""The gradients of a step: of a whole batch at once, on a CPU of its shares side by side, on a GPU by a CUDA graph.

The steps in time of a recurrent layer follow one another, and each is too small for two threads to divide. The windows
of a batch don't wait for each other: every thread takes a share of them through the whole network and back, with one
thread's kernels, and the gradients are added in the shares' order. What dropout zeroes is drawn as for the whole
batch, so that shares change a result in its last bits only, and a number of shares gives the same bits every time.

On a GPU a step is hundreds of small kernels, and to launch them one by one takes longer than to run them. A CUDA graph
records them once and launches all of them together.

Shapes: B batch, L seq_len, D hidden_size, H horizons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bitcorn_ray.models.neural.batches import Batch, DeviceData
from bitcorn_ray.models.neural.encoders.recurrent import Draw
from bitcorn_ray.models.neural.losses import Objective
from bitcorn_ray.models.neural.network import LSTMMultiHead
from bitcorn_ray.models.neural.precision import autocast

__all__ = ["Steps", "share_count"]

_Outcome = tuple[Sequence[Tensor], Tensor]  # gradients of all parameters, and the losses (B, H)

_WARM_UPS = 3
_SMALLEST_SHARE = 16  # windows: with fewer the kernels' rows are not filled
_SMALLEST_WORK = 65_536  # states (L x B x D) of a share, for which handing it to a thread pays


def share_count(threads: int, windows: int, seq_len: int, hidden_size: int) -> int:
    """Shares of a batch of so many windows that pay on so many threads; 1 for none.

    >>> share_count(2, 64, 64, 64), share_count(2, 512, 2, 32), share_count(1, 64, 64, 64)
    (2, 1, 1)
    """
    return max(1, min(threads, windows // _SMALLEST_SHARE, windows * seq_len * hidden_size // _SMALLEST_WORK))


class _Network(nn.Module):
    """Model and objective as one module that DDP can wrap, as some objectives learn too."""

    def __init__(self, model: LSTMMultiHead, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, draw: Draw | None = None) -> tuple[Tensor, Tensor]:
        forecast = self.model.standardised(batch.x_BLF, batch.symbol_B, draw)
        outcome: tuple[Tensor, Tensor] = self.objective(*forecast, batch.return_BH, batch.realised_BH)
        return outcome


class _Recording:
    """A step's kernels as a CUDA graph, for batches of one size: what it returns stays good until the next call.

    pool: of the graphs' memory, shared by all that never run at the same time.
    """

    def __init__(self, step: Callable[[Tensor], _Outcome], ends_B: Tensor, pool: Any) -> None:
        self._ends_B = ends_B.clone()
        apart = torch.cuda.Stream(ends_B.device)
        apart.wait_stream(torch.cuda.current_stream(ends_B.device))
        with torch.cuda.stream(apart):  # libraries choose their kernels and allocate at first: not to be recorded
            for _ in range(_WARM_UPS):
                step(self._ends_B)
        torch.cuda.current_stream(ends_B.device).wait_stream(apart)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool, capture_error_mode="thread_local"):
            self._outcome = step(self._ends_B)

    def __call__(self, ends_B: Tensor) -> _Outcome:
        self._ends_B.copy_(ends_B)
        self._graph.replay()
        return self._outcome


class Steps:
    """Losses of batches, and the gradients of all parameters.

    shares: how many threads take a share of each batch, on a CPU; 1 leaves a batch whole.
    recorded: windows of the batches whose kernels are recorded, on a GPU; other batches, and all by default, are
    launched kernel by kernel.
    """

    def __init__(
        self, model: LSTMMultiHead, objective: Objective, data: DeviceData, shares: int = 1, recorded: int | None = None
    ) -> None:
        self.network: nn.Module = _Network(model, objective)
        self.parameters = list(self.network.parameters())
        self.data, self.shares, self.recorded = data, shares, recorded
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 1
        self._recordings: dict[tuple[str, float], _Recording] = {}
        self._memory = torch.cuda.graph_pool_handle() if recorded else None

    @classmethod
    def alone(
        cls, model: LSTMMultiHead, objective: Objective, data: DeviceData, batch_size: int, deterministic: bool
    ) -> Steps:
        """As pays where one process trains: by shares on a CPU, recorded on a GPU.

        Recorded dropout takes no seed for a step: where training is deterministic, nothing is recorded.
        """
        if data.matrix.device.type == "cpu":
            shares = share_count(torch.get_num_threads(), batch_size, data.seq_len, model.lstm.hidden_size)
            return cls(model, objective, data, shares)
        return cls(model, objective, data, recorded=None if deterministic else batch_size)

    def distribute(self) -> None:
        """Let all processes average their gradients."""
        self.network = nn.parallel.DistributedDataParallel(
            self.network, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Have the threads ready that take shares; the others of PyTorch are divided among them meanwhile."""
        before = torch.get_num_threads()
        if self.shares == 1:
            yield
            return
        self._threads = max(1, before // self.shares)
        with ThreadPoolExecutor(self.shares - 1, initializer=torch.set_num_threads, initargs=(self._threads,)) as pool:
            self._pool = pool
            torch.set_num_threads(self._threads)
            try:
                yield
            finally:
                self._pool = None
                torch.set_num_threads(before)

    def gradients(self, ends_B: Tensor, factor: float, precision: str, seed: int) -> Tensor:
        """Leave the gradients of the loss's sum times a factor in the parameters; the losses (B, H).

        ends_B: rows at which the windows end. seed: of what is random where shares are taken; whole batches take
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
        """Go forward and back once as training in one process does, and leave no trace but what is drawn."""
        self._outcome(ends_B, 1 / len(ends_B), precision, 0)

    def _outcome(self, ends_B: Tensor, factor: float, precision: str, seed: int) -> _Outcome:
        if len(ends_B) == self.recorded:
            if (precision, factor) not in self._recordings:
                step = partial(self._whole, factor=factor, precision=precision)
                self._recordings[precision, factor] = _Recording(step, ends_B, self._memory)
            return self._recordings[precision, factor](ends_B)
        if self._pool is not None and len(ends_B) >= self.shares:
            return self._by_shares(ends_B, factor, precision, seed)
        return self._whole(ends_B, factor, precision)

    def _whole(self, ends_B: Tensor, factor: float, precision: str) -> _Outcome:
        loss_sum, loss_BH = self._losses(ends_B, precision)
        return torch.autograd.grad(loss_sum * factor, self.parameters), loss_BH

    def _losses(self, ends_B: Tensor, precision: str, draw: Draw | None = None) -> tuple[Tensor, Tensor]:
        """What training makes small, and the losses (B, H)."""
        with autocast(precision, ends_B.device):
            loss_sum, loss_BH = self.network(self.data.batch(ends_B), draw)
        return loss_sum, loss_BH.detach()

    def _by_shares(self, ends_B: Tensor, factor: float, precision: str, seed: int) -> _Outcome:
        """Each share's on a thread, added up."""
        assert self._pool is not None

        def one(first: int, own_B: Tensor) -> _Outcome:
            draw = Draw(torch.Generator().manual_seed(seed), first, len(ends_B))
            loss_sum, loss_BH = self._losses(own_B, precision, draw)
            return torch.autograd.grad(loss_sum * factor, self.parameters), loss_BH

        shares, firsts = ends_B.tensor_split(self.shares), [0]
        for share in shares[:-1]:
            firsts.append(firsts[-1] + len(share))
        others = [self._pool.submit(one, *each) for each in zip(firsts[1:], shares[1:], strict=True)]
        try:
            done = [one(firsts[0], shares[0])]
        finally:
            # None is left running, whatever became of the first.
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
