"""The gradients of a step: of a whole batch at once, or on a CPU of its shares side by side.

The steps in time of a recurrent layer follow one another, and each is too small for two threads to divide. The windows
of a batch don't wait for each other: every thread takes a share of them through the whole network and back, with one
thread's kernels, and the gradients are added in the shares' order. What dropout zeroes is drawn as for the whole
batch, so that shares change a result in its last bits only, and a number of shares gives the same bits every time.

Shapes: B batch, L seq_len, D hidden_size, H horizons.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bitcorn_ray.learning.batches import Batch, DeviceData
from bitcorn_ray.learning.losses import Objective
from bitcorn_ray.learning.model import LSTMMultiHead
from bitcorn_ray.learning.precision import autocast
from bitcorn_ray.learning.recurrent import Draw

__all__ = ["Steps", "share_count"]

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


class Steps:
    """Losses of batches, and the gradients of all parameters.

    shares: how many threads take a share of each batch, on a CPU; 1 leaves a batch whole.
    """

    def __init__(self, model: LSTMMultiHead, objective: Objective, data: DeviceData, shares: int) -> None:
        self.network: nn.Module = _Network(model, objective)
        self.parameters = list(self.network.parameters())
        self.data, self.shares = data, shares
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 1

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
        for parameter in self.parameters:
            parameter.grad = None
        if self._pool is None or len(ends_B) < self.shares:
            with autocast(precision, ends_B.device):
                loss_sum, loss_BH = self.network(self.data.batch(ends_B))
            (loss_sum * factor).backward()
            whole: Tensor = loss_BH
            return whole.detach()
        every, losses = self._by_shares(ends_B, factor, precision, seed)
        for parameter, first, *others in zip(self.parameters, *every, strict=True):
            for other in others:
                first.add_(other)
            parameter.grad = first
        return torch.cat(losses)

    def try_out(self, ends_B: Tensor, precision: str) -> None:
        """Go forward and back once, and leave no trace but what is drawn."""
        if self._pool is not None and len(ends_B) >= self.shares:
            self._by_shares(ends_B, 1.0, precision, 0)
            return
        with autocast(precision, ends_B.device):
            loss_sum = self.network(self.data.batch(ends_B))[0]
        torch.autograd.grad(loss_sum, self.parameters)

    def _by_shares(
        self, ends_B: Tensor, factor: float, precision: str, seed: int
    ) -> tuple[list[tuple[Tensor, ...]], list[Tensor]]:
        """Gradients and losses (b, H) of each share."""
        assert self._pool is not None

        def one(first: int, own_B: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            draw = Draw(torch.Generator().manual_seed(seed), first, len(ends_B))
            with autocast(precision, own_B.device):
                loss_sum, loss_BH = self.network(self.data.batch(own_B), draw)
            return torch.autograd.grad(loss_sum * factor, self.parameters), loss_BH.detach()

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
        return [gradients for gradients, _ in done], [loss_BH for _, loss_BH in done]
