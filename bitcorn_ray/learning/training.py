"""The training loop: one function for a plain process and for a Ray worker.

Each epoch: 1. shuffle the training windows by the seed and the epoch's number; 2. a step for each batch, gathered from
the matrix on the device; 3. the validation loss; 4. keep the weights where it is the best so far; 5. report.
What an epoch does depends on the seed, the epoch and the weights alone, so that one that is repeated after a crash
gives the same weights. With several processes (torch.distributed initialised) each takes its share of every batch.

Shapes: B batch, L seq_len, H horizons.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.dataset import TrainingData
from bitcorn_ray.learning.losses import LOSS_FUNCTIONS, Loss
from bitcorn_ray.learning.model import LSTMMultiHead

__all__ = ["EpochResult", "FitResult", "Report", "build_model", "fit", "gather"]

_VALIDATION_BATCH = 1024


@dataclass(frozen=True)
class EpochResult:
    """One epoch. Losses are means over windows and horizons, in units of each horizon's typical volatility."""

    epoch: int
    train_loss: float
    val_loss: float
    val_loss_by_horizon: list[float]
    best: bool
    seconds: float
    samples_per_second: float


Report = Callable[[EpochResult, Callable[[], dict[str, Any]]], None]
"""Called after each epoch with its result and a function that returns the state to resume from."""


@dataclass(frozen=True)
class FitResult:
    """weights: state dict of the best epoch, on the CPU. history: every epoch."""

    weights: dict[str, Tensor]
    history: list[EpochResult]

    @property
    def best_epoch(self) -> EpochResult:
        """The epoch whose weights were kept."""
        return [result for result in self.history if result.best][-1]


@dataclass
class _State:
    """What has to survive a crash, beside the model and the optimiser."""

    epoch: int = 0
    since_best: int = 0
    best_loss: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[EpochResult] = field(default_factory=list)


class _Standardised(nn.Module):
    """The model with its outputs in units of each horizon's typical volatility, as a module that DDP can wrap."""

    def __init__(self, model: LSTMMultiHead) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_BLF: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.standardised(x_BLF)


def build_model(n_features: int, config: ModelConfig) -> LSTMMultiHead:
    """Build an untrained model for F features."""
    return LSTMMultiHead(n_features, config.horizons, config.hidden_size, config.num_layers, config.dropout)


def fit(
    data: TrainingData,
    model_config: ModelConfig,
    config: TrainingConfig,
    *,
    device: str = "cpu",
    report: Report | None = None,
    resume: dict[str, Any] | None = None,
) -> FitResult:
    """Train until the last epoch or until validation no longer improves, and return the best weights.

    report: called after each epoch. resume: a state that `report` was given the means to get.
    Raises BitcornError where the loss stops being a finite number.
    """
    with torch.random.fork_rng(), _threads(config.threads):
        torch.manual_seed(config.seed)
        loop = _Loop(data, model_config, config, torch.device(device))
        state = loop.restore(resume) if resume else _State()
        while state.epoch < config.epochs and state.since_best < config.patience:
            result = loop.epoch(state)
            if report:
                report(result, lambda: loop.snapshot(state))
    return FitResult(state.best_weights, state.history)


def gather(matrix: Tensor, ends: Tensor, seq_len: int) -> Tensor:
    """Windows (B, L, F) that end at rows (B,) of a (T, F) matrix; time-major in memory, as the LSTM reads them."""
    rows_LB = torch.arange(1 - seq_len, 1, device=ends.device)[:, None] + ends
    return matrix[rows_LB].transpose(0, 1)


class _Loop:
    """The tensors on their device, the model and the optimiser of one process."""

    def __init__(self, data: TrainingData, model: ModelConfig, config: TrainingConfig, device: torch.device) -> None:
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.config, self.seq_len, self.device = config, model.seq_len, device
        # Copies: arrays from Ray's object store are shared between processes, and torch would write to them.
        self.matrix = torch.tensor(data.matrix, device=device)
        scale = torch.tensor(data.output_scale)
        self.returns = (torch.tensor(data.returns) / scale).to(device)
        self.volatilities = (torch.tensor(data.volatilities) / scale).to(device)
        self.train_ends = torch.tensor(data.train_ends, device=device)
        self.validation_ends = torch.tensor(data.validation_ends, device=device)
        self.model = build_model(data.matrix.shape[1], model).to(device)
        self.model.output_scale.copy_(scale)
        self.loss: Loss = LOSS_FUNCTIONS[config.loss]
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        network: nn.Module = _Standardised(self.model)
        self.network = network if self.world == 1 else nn.parallel.DistributedDataParallel(network)

    def epoch(self, state: _State) -> EpochResult:
        """Train and validate one epoch, and bring the state up to date."""
        started = time.perf_counter()
        train_loss = self._train(state.epoch)
        train_seconds = time.perf_counter() - started
        by_horizon = self._validate()
        val_loss = float(by_horizon.mean())
        if not (torch.isfinite(by_horizon).all() and math.isfinite(train_loss)):
            raise BitcornError(
                f"the loss is no finite number in epoch {state.epoch + 1} (training {train_loss}, validation "
                f"{val_loss}): lower the learning rate ({self.config.learning_rate})"
            )
        best = val_loss < state.best_loss
        state.epoch += 1
        result = EpochResult(
            epoch=state.epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            val_loss_by_horizon=by_horizon.tolist(),
            best=best,
            seconds=time.perf_counter() - started,
            samples_per_second=len(self.train_ends) / train_seconds,
        )
        state.history.append(result)
        state.since_best = 0 if best else state.since_best + 1
        if best:
            state.best_loss = val_loss
            state.best_weights = _on_cpu(self.model.state_dict())
        return result

    def _train(self, epoch: int) -> float:
        self.network.train()
        order = torch.randperm(len(self.train_ends), generator=_generator(self.config.seed, epoch)).to(self.device)
        torch.manual_seed(_mixed(self.config.seed, epoch, self.rank))  # dropout
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in order.split(self.config.batch_size):
            if len(batch) < self.world:
                break  # the last few windows, fewer than processes: every process skips them
            loss_sum = self._loss(self.train_ends[batch[self.rank :: self.world]]).mean(1).sum()
            # DDP averages gradients over processes; so scaled, they are those of the mean over the whole batch.
            loss = loss_sum * (self.world / len(batch))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
            self.optimiser.step()
            total += loss_sum.detach()
        return float(self._summed(total)) / len(order)

    @torch.no_grad()
    def _validate(self) -> Tensor:
        self.network.eval()
        total = torch.zeros(len(self.model.horizons), dtype=torch.float64, device=self.device)
        for batch in self.validation_ends[self.rank :: self.world].split(_VALIDATION_BATCH):
            total += self._loss(batch, self.model.standardised).sum(0)
        return (self._summed(total) / len(self.validation_ends)).cpu()

    def _loss(self, ends: Tensor, network: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None) -> Tensor:
        return_BH, volatility_BH = (network or self.network)(gather(self.matrix, ends, self.seq_len))
        return self.loss(return_BH, volatility_BH, self.returns[ends], self.volatilities[ends])

    def _summed(self, value: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def snapshot(self, state: _State) -> dict[str, Any]:
        """Everything to go on from: copies, in plain values and tensors."""
        return {
            "model": _on_cpu(self.model.state_dict()),
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "state": {**vars(state), "history": [asdict(result) for result in state.history]},
        }

    def restore(self, snapshot: dict[str, Any]) -> _State:
        """Take over a snapshot."""
        self.model.load_state_dict(snapshot["model"])
        self.optimiser.load_state_dict(snapshot["optimiser"])
        state = _State(**snapshot["state"])
        state.history = [EpochResult(**result) for result in snapshot["state"]["history"]]
        return state


def _on_cpu(weights: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}


def _mixed(*numbers: int) -> int:
    """One seed out of several numbers, different for different ones."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number) % 2**63
    return mixed


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mixed(*numbers))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
