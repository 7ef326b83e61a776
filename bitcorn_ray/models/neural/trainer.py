"""The training loop of networks: one function for a plain process and for a Ray worker.

Each epoch: 1. shuffle the training windows; 2. make a step for each batch, gathered on the device; 3. compute the
validation loss; 4. keep the weights if it is the best so far; 5. save a checkpoint and report.
A step depends only on the seed, its number and the weights (dropout is seeded at every step), so that steps that are
repeated after a crash give the same weights. With several processes (torch.distributed initialised) each takes its part
of every batch, and all decide together.

Shapes: B batch, L seq_len, H horizons.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import logger_of
from bitcorn_ray.memory import keep_freed_memory
from bitcorn_ray.models.base import EpochResult, FitContext, FitResult, Progress
from bitcorn_ray.models.neural.acceleration import choose_precision, machine, torch_runtime
from bitcorn_ray.models.neural.checkpoint import Superseded
from bitcorn_ray.models.neural.config import LOSSES, NetworkConfig, TrainingConfig
from bitcorn_ray.models.neural.losses import Objective
from bitcorn_ray.models.neural.network import Network
from bitcorn_ray.models.neural.steps import (
    DeviceData,
    Steps,
    derive_seed,
    shards,
    shared_tensor,
    shuffled,
    steps_per_epoch,
)

_VALIDATION_BATCH = 256  # or a training batch if it is larger
_CHECK_EVERY = 50  # steps between checks that wait for the device: non-finite losses, due checkpoints
_PROGRESS_SECONDS = 0.5
_LOGGED = ("epoch", "train_loss", "val_loss", "best", "seconds", "samples_per_second")
_log = logger_of(__name__)
_EPOCHS = 3  # of rising loss, before a warning
_PLATEAU_PATIENCE = 2
_PLATEAU_FACTOR = 0.5
_BIAS_WINDOWS = 65_536  # evenly spread, enough for one number a horizon
_BIAS_BATCH = 1_024


@dataclass
class State:
    """The state of a training that a checkpoint saves, besides the network and the optimiser.

    epoch: finished epochs. step: steps done in the next one. totals: losses of these steps by process and horizon.
    """

    epoch: int = 0
    step: int = 0
    totals: list[list[float]] = field(default_factory=list)
    since_best: int = 0
    best_loss: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    learned: dict[str, list[float]] = field(default_factory=dict)
    history: list[EpochResult] = field(default_factory=list)


def fit(
    data: Dataset, model_config: NetworkConfig, config: TrainingConfig, context: FitContext
) -> tuple[Network, FitResult]:
    """Train until the last epoch or until validation no longer improves, and return the network of the best epoch.

    context: progress is reported by the first process only. If its checkpoints hold a snapshot of the same training, it
    is resumed.
    Raises BitcornError if the loss is not finite, naming the bars, and if the checkpoints belong to another training.
    """
    if not context.device.startswith("cuda"):
        keep_freed_memory()
    with torch_runtime(config, context.device):
        loop = _Loop(data, model_config, config, context)
        state = loop.restore()
        while state.epoch < config.epochs and state.since_best < config.patience:
            result = loop.epoch(state)
            if loop.rank == 0:
                _log.info("epoch done", extra={name: getattr(result, name) for name in _LOGGED})
            if context.report:
                context.report(result)
        loop.model.load_state_dict(state.best_weights)
        if LOSSES[config.loss]:
            loop.model.output_scale *= volatility_bias_factor(loop.model, loop.data, loop.train_ends)
        loop.optimiser.zero_grad()  # frees the gradients
        return loop.model.eval(), FitResult(state.history, state.learned, loop.precision, loop.machines())


class _Loop:
    """The tensors on their device, the network and the optimiser of one process."""

    def __init__(self, data: Dataset, model: NetworkConfig, config: TrainingConfig, context: FitContext) -> None:
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.dataset, self.config, self.device = data, config, torch.device(context.device)
        self.checkpoints, self.progress = context.checkpoints, context.progress if self.rank == 0 else None
        self.data = DeviceData(data, model.seq_len, self.device)
        self.train_ends = shared_tensor(data.train_ends).to(self.device)
        self.validation_ends = shared_tensor(data.validation_ends).to(self.device)
        self.steps = steps_per_epoch(len(self.train_ends), config.batch_size, self.world)
        if self.steps == 0 or config.batch_size < self.world:
            raise BitcornError(
                f"{len(self.train_ends)} training windows in batches of {config.batch_size} are too few for "
                f"{self.world} workers: give more windows than workers, and a batch_size of at least {self.world}"
            )
        self.model = Network(data.matrix.shape[1], model, len(data.names)).to(self.device)
        self.model.output_scale.copy_(self.data.scale)
        self.model.typical_reference.fill_(data.typical_reference)
        self.objective = Objective(config, model.horizons).to(self.device)
        parts = (self.model, self.objective, self.data)
        self.stepper = (
            Steps.for_one_process(*parts, config.batch_size, config.deterministic) if self.world == 1 else Steps(*parts)
        )
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.stepper.network, config.weight_decay), lr=config.learning_rate, fused=True
        )
        self.average = AveragedWeights(self.model, config.ema) if config.ema else None
        self.precision = ""
        self.saved_at = time.monotonic()

    def epoch(self, state: State) -> EpochResult:
        """Train and validate the rest of an epoch, and update the state."""
        started, first_step = time.perf_counter(), state.step
        with self.stepper.threads():
            train_H = self._train(state)
        train_seconds = time.perf_counter() - started
        windows = min((state.step - first_step) * self.config.batch_size, len(self.train_ends))
        validation_H = self._validate()
        val_loss = float(self.objective.overall(validation_H))
        if not torch.isfinite(validation_H).all():
            raise BitcornError(
                f"the validation loss is not finite in epoch {state.epoch + 1} ({validation_H.tolist()}); "
                f"windows of {self.dataset.describe(self.dataset.validation_ends)}: {self._remedy()}"
            )
        result = EpochResult(
            epoch=state.epoch + 1,
            train_loss=float(self.objective.overall(train_H)),
            val_loss=val_loss,
            train_loss_by_horizon=train_H.tolist(),
            val_loss_by_horizon=validation_H.tolist(),
            best=val_loss < state.best_loss,
            learning_rate=self.optimiser.param_groups[0]["lr"],
            seconds=time.perf_counter() - started,
            samples_per_second=windows / train_seconds,
        )
        state.history.append(replace(result, warnings=diverging([*state.history, result], self.model.horizons)))
        state.epoch, state.step, state.totals = result.epoch, 0, []
        state.since_best += 1
        if result.best:
            state.since_best, state.best_loss, state.learned = 0, val_loss, self.objective.learned()
            with self._averaged_weights():
                state.best_weights = on_cpu(self.model.state_dict())
        if state.epoch % self.config.checkpoint_epochs == 0 or state.epoch == self.config.epochs:
            self._save(state)
        return state.history[-1]

    def _train(self, state: State) -> Tensor:
        """Make the remaining steps of the epoch, and return the mean loss by horizon, (H,)."""
        self.stepper.network.train()
        order = shuffled(self.train_ends, self.config.seed, state.epoch)
        total_H = self._own_total(state)
        broken = torch.full((self.config.batch_size,), -1, device=self.device)
        last_shown, first_step = time.monotonic(), state.step
        started = last_shown
        for ends_B, batch_size in shards(order, self.config.batch_size, self.rank, self.world, state.step):
            loss_BH = self._step(ends_B, batch_size, state)
            total_H += loss_BH.sum(0)
            unusable = torch.where(torch.isfinite(loss_BH).all(1), -1, ends_B)
            here = broken[: len(ends_B)]
            torch.where(broken.amax() >= 0, here, unusable, out=here)
            state.step += 1
            if state.step % _CHECK_EVERY == 0:
                self._check(broken, state, total_H)
            if self.progress and time.monotonic() - last_shown > _PROGRESS_SECONDS:
                last_shown = time.monotonic()
                done = state.step * self.config.batch_size
                rate = (state.step - first_step) * self.config.batch_size / (last_shown - started)
                mean = float(total_H.mean()) * self.world / done
                self.progress(Progress(state.epoch + 1, done, len(order), mean, rate))
        self._refuse(broken, state)
        return (self._summed(total_H) / len(order)).cpu()

    def _step(self, ends_B: Tensor, batch_size: int, state: State) -> Tensor:
        """Make one step of the optimiser, and return the losses (B, H) before it."""
        rate = self.config.learning_rate * rate_factor(
            self.config,
            state.epoch * self.steps + state.step,
            self.steps,
            [result.val_loss for result in state.history],
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # DDP averages gradients over processes; scaled like this, they are those of the mean over the whole batch.
        loss_BH = self.stepper.gradients(ends_B, self.world / batch_size, self.precision, self._seed(state))
        nn.utils.clip_grad_norm_(self.stepper.parameters, self.config.grad_clip, foreach=True)
        self.optimiser.step()
        if self.average:
            self.average.update()
        return loss_BH

    def _seed(self, state: State) -> int:
        """Seed the dropout of a step by its number, unless it is recorded, and return the seed."""
        seed = derive_seed(self.config.seed, state.epoch, state.step, self.rank)
        # With PyTorch 2.11, a replay after seeding crashes once another graph has been recorded in between.
        if self.model.dropout and not self.stepper.recorded:
            generator = (
                torch.default_generator
                if self.device.type == "cpu"
                else torch.cuda.default_generators[self.device.index or 0]
            )
            generator.manual_seed(seed)
        return seed

    def _check(self, broken: Tensor, state: State, total_H: Tensor) -> None:
        self._refuse(broken, state)
        minutes = self.config.checkpoint_minutes
        if minutes and self.checkpoints is not None and state.step < self.steps:
            due = torch.tensor(time.monotonic() - self.saved_at > minutes * 60, device=self.device)
            if self.world > 1:
                dist.broadcast(due, 0)
            if due:
                self._save(state, total_H)

    def _refuse(self, broken: Tensor, state: State) -> None:
        """Raise BitcornError if a loss was not finite in any process."""
        found = self._gathered(broken)
        found = found[found >= 0].cpu()
        if len(found):
            raise BitcornError(
                f"the loss is not finite in epoch {state.epoch + 1}, at step {state.step} or shortly before, for "
                f"{len(found)} windows that end at bars of {self.dataset.describe(found.numpy())}: {self._remedy()}"
            )

    def _remedy(self) -> str:
        rate = self.config.learning_rate
        return f"look for extreme features or prices there, or lower the learning rate ({rate})"

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """Return the mean loss by horizon, (H,), in float32 as in forecasts."""
        self.stepper.network.eval()
        total_H = torch.zeros(len(self.model.horizons), dtype=torch.float64, device=self.device)
        with self._averaged_weights():
            own = self.validation_ends[self.rank :: self.world]
            for ends_B in own.split(max(_VALIDATION_BATCH, self.config.batch_size)) if len(own) else ():
                batch = self.data.batch(ends_B)
                forecast = self.model.standardised(batch.x_BLF, batch.symbol_B)
                total_H += self.objective.by_window(*forecast, batch.return_BH, batch.realised_BH).sum(0)
        return (self._summed(total_H) / len(self.validation_ends)).cpu()

    def _averaged_weights(self) -> AbstractContextManager[None]:
        """Use the averaged weights, if there are any, within this block."""
        return self.average.applied() if self.average else nullcontext()

    # Collective operations

    def _summed(self, value: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def _gathered(self, value: Tensor) -> Tensor:
        if self.world == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.world)]
        dist.all_gather(parts, value)
        return torch.cat(parts)

    def machines(self) -> list[dict[str, Any]]:
        """Return the machine of each process."""
        machines = [machine(self.device)] * self.world
        if self.world > 1:
            dist.all_gather_object(machines, machines[0])
        return machines

    # Checkpoints

    def _own_total(self, state: State) -> Tensor:
        """Return the loss by horizon, (H,), of this process's part of the epoch's steps so far."""
        totals = state.totals
        if totals and len(totals) != self.world:  # another number of workers than before the interruption
            totals = [torch.tensor(totals).sum(0).tolist(), *[[0.0] * len(self.model.horizons)] * (self.world - 1)]
        own = totals[self.rank] if totals else [0.0] * len(self.model.horizons)
        return torch.tensor(own, dtype=torch.float64, device=self.device)

    def _save(self, state: State, total_H: Tensor | None = None) -> None:
        """Save a checkpoint. All processes take part, and the first one writes. Raises Superseded if it may not."""
        self.saved_at = time.monotonic()
        if self.checkpoints is None:
            return
        totals = [] if total_H is None else self._gathered(total_H).view(self.world, -1).tolist()
        refused: list[BitcornError | None] = [None]
        if self.rank == 0:
            snapshot = {
                "model": on_cpu(self.model.state_dict()),
                "objective": on_cpu(self.objective.state_dict()),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.state() if self.average else None,
                "precision": self.precision,
                "state": {**vars(state), "totals": totals, "history": [asdict(result) for result in state.history]},
                "step": state.epoch * self.steps + state.step,
            }
            try:
                self.checkpoints.save(snapshot)
            except Superseded as error:
                refused = [error]
        if self.world > 1:  # all stop together, or wait until it is written
            dist.broadcast_object_list(refused, 0)
        if refused[0] is not None:
            raise refused[0]

    def restore(self) -> State:
        """Restore the newest checkpoint, if any, prepare to train, and return the state."""
        snapshot = self.checkpoints.load() if self.checkpoints is not None else None
        state = State()
        if snapshot:
            self.model.load_state_dict(snapshot["model"])
            self.objective.load_state_dict(snapshot["objective"])
            self.optimiser.load_state_dict(snapshot["optimiser"])
            if self.average:
                self.average.restore(snapshot["average"])
            state = State(**snapshot["state"])
            state.history = [EpochResult(**result) for result in snapshot["state"]["history"]]
        self.precision = snapshot["precision"] if snapshot else self._measured_precision()
        if self.world > 1:
            self.stepper.distribute()
        return state

    def _measured_precision(self) -> str:
        ends = self.train_ends[: math.ceil(self.config.batch_size / self.world)]
        self.stepper.network.train()
        with self.stepper.threads():
            chosen = choose_precision(
                self.config.precision,
                self.config.deterministic,
                self.device,
                lambda precision: self.stepper.try_out(ends, precision),
            )
        if self.world > 1:  # clocks differ; the first one's counts
            choice = torch.tensor(chosen == "bfloat16", device=self.device)
            dist.broadcast(choice, 0)
            chosen = "bfloat16" if choice else "float32"
        return chosen


@torch.no_grad()
def volatility_bias_factor(model: Network, data: DeviceData, train_ends: Tensor) -> Tensor:
    """Return the factor (H,) that makes volatilities forecast the variance of the training windows without bias.

    It is the root of the mean, over training windows, of the realised variance in units of the forecast one. QLIKE asks
    for the mean of the variance. The Gaussian likelihood with realised variance has it as its best answer; the best
    answer of other losses is lower, by a factor that differs from horizon to horizon (Patton 2011).
    model: on the data's device. train_ends: (N,) rows.
    """
    model.eval()
    spread = train_ends[:: max(len(train_ends) // _BIAS_WINDOWS, 1)].contiguous()
    total_H = torch.zeros(len(model.horizons), dtype=torch.float64, device=train_ends.device)
    for ends_B in spread.split(_BIAS_BATCH):
        batch = data.batch(ends_B)
        _, sigma_BH = model.standardised(batch.x_BLF, batch.symbol_B)
        total_H += (batch.realised_BH.double() / sigma_BH.double()).square().sum(0)
    factor_H = (total_H / len(spread)).sqrt()
    # A market that never moved has no bias to measure.
    return torch.where(factor_H > 0, factor_H, torch.ones_like(factor_H))


def rate_factor(config: TrainingConfig, step: int, steps_per_epoch: int, val_losses: Sequence[float]) -> float:
    """Return the factor of the learning rate of a step, above 0 and at most 1.

    step: counted from 0 over all epochs. val_losses: of the epochs so far. The factor rises linearly over
    `config.warmup` epochs. A cosine then falls from 1 to nearly 0 at the end of the last epoch, and a plateau halves
    after every two successive epochs without the best validation loss so far.

    >>> config = TrainingConfig(epochs=2, warmup=0.5, schedule="cosine")
    >>> [round(rate_factor(config, step, 4, []), 2) for step in range(8)]
    [0.5, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    warm = math.ceil(config.warmup * steps_per_epoch)
    if step < warm:
        return (step + 1) / warm
    if config.schedule == "cosine":
        left = max(config.epochs * steps_per_epoch - warm, 1)
        return max(0.5 + 0.5 * math.cos(math.pi * (step - warm) / left), 1e-6)
    if config.schedule == "plateau":
        best, since, factor = math.inf, 0, 1.0
        for loss in val_losses:
            since = 0 if loss < best else since + 1
            best = min(best, loss)
            if since == _PLATEAU_PATIENCE:
                since, factor = 0, factor * _PLATEAU_FACTOR
        return factor
    return 1.0


def diverging(history: Sequence[EpochResult], horizons: Sequence[int]) -> list[str]:
    """Return a warning for each horizon whose validation loss rose over three epochs while that of others fell."""
    if len(history) <= _EPOCHS or len(horizons) < 2:
        return []
    recent = [result.val_loss_by_horizon for result in history[-_EPOCHS - 1 :]]
    rising = [all(b[h] > a[h] for a, b in pairwise(recent)) for h in range(len(horizons))]
    falling = any(all(b[h] < a[h] for a, b in pairwise(recent)) for h in range(len(horizons)))
    return [
        f"the validation loss of horizon {horizon} rose over {_EPOCHS} epochs while that of others fell: give it a "
        "lower weight (horizon_weights) or its own model"
        for horizon, rose in zip(horizons, rising, strict=True)
        if rose and falling
    ]


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups for the optimiser: matrices decay; biases, norms and scalars do not."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}


class AveragedWeights:
    """The exponential mean of a network's weights over the steps (Polyak & Juditsky 1992).

    decay: of a step. It is (1 + n) / (10 + n) after n steps while that is smaller, so that the start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.weights = [parameter.detach() for parameter in model.parameters()]
        self.means = [weight.clone() for weight in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights of a step to the mean."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.means, self.weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the mean as the network's weights within this block."""
        own = [weight.clone() for weight in self.weights]
        torch._foreach_copy_(self.weights, self.means)
        try:
            yield
        finally:
            torch._foreach_copy_(self.weights, own)

    def state(self) -> dict[str, Any]:
        """Return the state for `restore`, in plain values and tensors."""
        return {"steps": self.steps, "means": [mean.to("cpu", copy=True) for mean in self.means]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.steps = state["steps"]
        torch._foreach_copy_(self.means, [mean.to(self.means[0].device) for mean in state["means"]])
