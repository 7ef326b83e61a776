"""The training loop: one function for a plain process and for a Ray worker.

Each epoch: 1. shuffle the training windows; 2. a step for each batch, gathered on the device; 3. the validation loss;
4. keep the weights where it is the best so far; 5. save a checkpoint and report.
What a step does depends on the seed, its number and the weights alone (dropout is seeded at every step), so that steps
that are repeated after a crash give the same weights. With several processes (torch.distributed initialised) each takes
its share of every batch, and all decide together.

Shapes: B batch, L seq_len, H horizons.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import logger_of
from bitcorn_ray.memory import keep_freed_memory
from bitcorn_ray.models.neural.batches import (
    DeviceData,
    gather,
    mixed,
    shards,
    shared_tensor,
    shuffled,
    steps_per_epoch,
)
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder, Superseded
from bitcorn_ray.models.neural.config import ModelConfig, TrainingConfig
from bitcorn_ray.models.neural.level import NEEDS_LEVEL, volatility_level
from bitcorn_ray.models.neural.losses import Objective
from bitcorn_ray.models.neural.machine import machine
from bitcorn_ray.models.neural.network import build_model
from bitcorn_ray.models.neural.precision import choose_precision
from bitcorn_ray.models.neural.progress import EpochResult, FitResult, Progress, State, diverging
from bitcorn_ray.models.neural.schedule import rate_factor
from bitcorn_ray.models.neural.setting import torch_setting
from bitcorn_ray.models.neural.steps import Steps
from bitcorn_ray.models.neural.weights import AveragedWeights, on_cpu, parameter_groups

__all__ = ["EpochResult", "FitResult", "Progress", "build_model", "fit", "gather"]

_VALIDATION_BATCH = 256  # or a batch, where that is larger: no more activations than training has
_LOOK_EVERY = 50  # steps between looks at what only the device knows: losses that are no numbers, other workers' clocks
_PROGRESS_SECONDS = 0.5
_LOGGED = ("epoch", "train_loss", "val_loss", "best", "seconds", "samples_per_second")
_log = logger_of(__name__)


def fit(
    data: Dataset,
    model_config: ModelConfig,
    config: TrainingConfig,
    *,
    device: str = "cpu",
    report: Callable[[EpochResult], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoints: CheckpointFolder | None = None,
) -> FitResult:
    """Train until the last epoch or until validation no longer improves, and return the best weights.

    report: called after each epoch. progress: called about twice a second, in the first process only.
    checkpoints: where the state is saved; what is there already, of the same training, is gone on from.
    Raises BitcornError where the loss stops being a finite number, naming the bars, and where the checkpoints are of
    another training.
    """
    if not device.startswith("cuda"):
        keep_freed_memory()
    with torch_setting(config, device):
        loop = _Loop(data, model_config, config, torch.device(device), checkpoints, progress)
        state = loop.restore()
        while state.epoch < config.epochs and state.since_best < config.patience:
            result = loop.epoch(state)
            if loop.rank == 0:
                _log.info("epoch done", extra={name: getattr(result, name) for name in _LOGGED})
            if report:
                report(result)
        weights = loop.levelled(state.best_weights)
        return FitResult(weights, state.history, state.learned, loop.precision, loop.machines(device))


class _Loop:
    """The tensors on their device, the model and the optimiser of one process."""

    def __init__(
        self,
        data: Dataset,
        model: ModelConfig,
        config: TrainingConfig,
        device: torch.device,
        checkpoints: CheckpointFolder | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.given, self.config, self.device = data, config, device
        self.checkpoints, self.progress = checkpoints, progress if self.rank == 0 else None
        self.data = DeviceData(data, model.seq_len, device)
        self.train_ends = shared_tensor(data.train_ends).to(device)
        self.validation_ends = shared_tensor(data.validation_ends).to(device)
        self.steps = steps_per_epoch(len(self.train_ends), config.batch_size, self.world)
        if self.steps == 0 or config.batch_size < self.world:
            raise BitcornError(
                f"{len(self.train_ends)} training windows in batches of {config.batch_size} are too few for "
                f"{self.world} workers: each needs one of every batch"
            )
        self.model = build_model(data.matrix.shape[1], model, len(data.names)).to(device)
        self.model.output_scale.copy_(self.data.scale)
        self.model.typical_reference.fill_(data.typical_reference)
        self.objective = Objective(config, model.horizons).to(device)
        parts = (self.model, self.objective, self.data)
        alone = self.world == 1
        self.stepper = Steps.alone(*parts, config.batch_size, config.deterministic) if alone else Steps(*parts)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.stepper.network, config.weight_decay), lr=config.learning_rate, fused=True
        )
        self.average = AveragedWeights(self.model, config.ema) if config.ema else None
        self.precision = ""
        self.saved_at = time.monotonic()

    def epoch(self, state: State) -> EpochResult:
        """Train and validate one epoch, from where the state stands in it, and bring the state up to date."""
        started, first_step = time.perf_counter(), state.step
        with self.stepper.threads():
            train_H = self._train(state)
        train_seconds = time.perf_counter() - started
        windows = min((state.step - first_step) * self.config.batch_size, len(self.train_ends))
        validation_H = self._validate()
        val_loss = float(self.objective.overall(validation_H))
        if not torch.isfinite(validation_H).all():
            raise BitcornError(
                f"the validation loss is no finite number in epoch {state.epoch + 1} ({validation_H.tolist()}); "
                f"windows of {self.given.describe(self.given.validation_ends)}: {self._remedy()}"
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
        warned = diverging([*state.history, result], self.model.horizons)
        result = replace(result, warnings=warned)
        with self._kept_weights():
            state.take(result, lambda: (on_cpu(self.model.state_dict()), self.objective.learned()))
        if state.epoch % self.config.checkpoint_epochs == 0 or state.epoch == self.config.epochs:
            self._save(state)
        return result

    def _train(self, state: State) -> Tensor:
        """Make the epoch's steps that are left; mean loss by horizon, (H,)."""
        self.stepper.network.train()
        order = shuffled(self.train_ends, self.config.seed, state.epoch)
        total_H = self._own_total(state)
        broken = torch.full((self.config.batch_size,), -1, device=self.device)
        last_shown, begun = time.monotonic(), state.step
        started = last_shown
        for ends_B, batch_size in shards(order, self.config.batch_size, self.rank, self.world, state.step):
            loss_BH = self._step(ends_B, batch_size, state)
            total_H += loss_BH.sum(0)
            unusable = torch.where(torch.isfinite(loss_BH).all(1), -1, ends_B)
            here = broken[: len(ends_B)]
            torch.where(broken.amax() >= 0, here, unusable, out=here)
            state.step += 1
            if state.step % _LOOK_EVERY == 0:
                self._look(broken, state, total_H)
            if self.progress and time.monotonic() - last_shown > _PROGRESS_SECONDS:
                last_shown = time.monotonic()
                done = state.step * self.config.batch_size
                rate = (state.step - begun) * self.config.batch_size / (last_shown - started)
                mean = float(total_H.mean()) * self.world / done
                self.progress(Progress(state.epoch + 1, done, len(order), mean, rate))
        self._refuse(broken, state)
        return (self._summed(total_H) / len(order)).cpu()

    def _step(self, ends_B: Tensor, batch_size: int, state: State) -> Tensor:
        """One step of the optimiser; the losses (B, H) before it."""
        rate = self.config.learning_rate * rate_factor(
            self.config, state.epoch * self.steps + state.step, self.steps, [each.val_loss for each in state.history]
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # DDP averages gradients over processes; so scaled, they are those of the mean over the whole batch.
        loss_BH = self.stepper.gradients(ends_B, self.world / batch_size, self.precision, self._seed(state))
        nn.utils.clip_grad_norm_(self.stepper.parameters, self.config.grad_clip, foreach=True)
        self.optimiser.step()
        if self.average:
            self.average.update()
        return loss_BH

    def _seed(self, state: State) -> int:
        """Make what is random in a step, dropout, a function of its place, unless it is recorded; the seed."""
        seed = mixed(self.config.seed, state.epoch, state.step, self.rank)
        # Seen with PyTorch 2.11: a replay after a seed crashes once another graph has been recorded in between.
        if self.model.dropout and not self.stepper.recorded:
            generator = (
                torch.default_generator
                if self.device.type == "cpu"
                else torch.cuda.default_generators[self.device.index or 0]
            )
            generator.manual_seed(seed)
        return seed

    def _look(self, broken: Tensor, state: State, total_H: Tensor) -> None:
        self._refuse(broken, state)
        minutes = self.config.checkpoint_minutes
        if minutes and self.checkpoints is not None and state.step < self.steps:
            due = torch.tensor(time.monotonic() - self.saved_at > minutes * 60, device=self.device)
            if self.world > 1:
                dist.broadcast(due, 0)
            if due:
                self._save(state, total_H)

    def _refuse(self, broken: Tensor, state: State) -> None:
        """Stop where a loss was no finite number in any process."""
        found = self._gathered(broken)
        found = found[found >= 0].cpu()
        if len(found):
            raise BitcornError(
                f"the loss is no finite number in epoch {state.epoch + 1}, at step {state.step} or shortly before, for "
                f"{len(found)} windows that end at bars of {self.given.describe(found.numpy())}: {self._remedy()}"
            )

    def _remedy(self) -> str:
        rate = self.config.learning_rate
        return f"look for features or prices out of all proportion there, or lower the learning rate ({rate})"

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """Mean loss by horizon, (H,), in float32: as the weights will be used."""
        self.stepper.network.eval()
        total_H = torch.zeros(len(self.model.horizons), dtype=torch.float64, device=self.device)
        with self._kept_weights():
            own = self.validation_ends[self.rank :: self.world]
            for ends_B in own.split(max(_VALIDATION_BATCH, self.config.batch_size)) if len(own) else ():
                batch = self.data.batch(ends_B)
                forecast = self.model.standardised(batch.x_BLF, batch.symbol_B)
                total_H += self.objective.each(*forecast, batch.return_BH, batch.realised_BH).sum(0)
        return (self._summed(total_H) / len(self.validation_ends)).cpu()

    def _kept_weights(self) -> AbstractContextManager[None]:
        return self.average.applied() if self.average else nullcontext()

    def levelled(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights with the level of the volatility set right, where the loss leaves it wrong."""
        if self.config.loss not in NEEDS_LEVEL:
            return weights
        self.model.load_state_dict(weights)
        level = volatility_level(self.model, self.data, self.train_ends)
        return {**weights, "output_scale": (weights["output_scale"] * level.cpu()).to(torch.float32)}

    # Among processes

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

    def machines(self, device: str) -> list[dict[str, Any]]:
        """What each process runs on."""
        found = [machine(device)] * self.world
        if self.world > 1:
            dist.all_gather_object(found, machine(device))
        return found

    # Going on after an interruption

    def _own_total(self, state: State) -> Tensor:
        """Loss by horizon, (H,), of this process's share of the epoch's steps so far."""
        totals = state.totals
        if totals and len(totals) != self.world:  # other workers than those that were interrupted
            totals = [torch.tensor(totals).sum(0).tolist(), *[[0.0] * len(self.model.horizons)] * (self.world - 1)]
        own = totals[self.rank] if totals else [0.0] * len(self.model.horizons)
        return torch.tensor(own, dtype=torch.float64, device=self.device)

    def _save(self, state: State, total_H: Tensor | None = None) -> None:
        """Save a checkpoint; all processes take part, the first one writes. Raises BitcornError where it may not."""
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
                "state": {**vars(state), "totals": totals, "history": [asdict(each) for each in state.history]},
                "step": state.epoch * self.steps + state.step,
            }
            try:
                self.checkpoints.save(snapshot)
            except Superseded as error:
                refused = [error]
        if self.world > 1:  # all stop together, or wait until it is saved
            dist.broadcast_object_list(refused, 0)
        if refused[0] is not None:
            raise refused[0]

    def restore(self) -> State:
        """Take over the newest checkpoint, if any, and make ready to train."""
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
        self.precision = snapshot["precision"] if snapshot else self._tried_precision()
        if self.world > 1:
            self.stepper.distribute()
        return state

    def _tried_precision(self) -> str:
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
