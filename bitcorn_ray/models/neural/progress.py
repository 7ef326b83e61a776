"""What a training tells while it runs and when it is done, and what it has to remember to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from torch import Tensor

__all__ = ["EpochResult", "FitResult", "Progress", "State", "diverging"]

_EPOCHS = 3  # of rising loss before a horizon is said to diverge


@dataclass(frozen=True)
class EpochResult:
    """One epoch. Losses are means over windows and horizons, in units of each horizon's typical volatility.

    best: no earlier epoch had a lower validation loss. learning_rate: of the last step. samples_per_second: windows
    trained on, validation left out. warnings: what to look at.
    """

    epoch: int
    train_loss: float
    val_loss: float
    train_loss_by_horizon: list[float]
    val_loss_by_horizon: list[float]
    best: bool
    learning_rate: float
    seconds: float
    samples_per_second: float
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """Within an epoch: windows done of all, their mean loss, windows a second."""

    epoch: int
    done: int
    windows: int
    loss: float
    samples_per_second: float


@dataclass(frozen=True)
class FitResult:
    """weights: state dict of the best epoch, on the CPU. history: every epoch.

    learned: what the loss learned beside the weights, by name, a number a horizon. precision: trained in.
    machines: what each process ran on, see `machine`.
    """

    weights: dict[str, Tensor]
    history: list[EpochResult]
    learned: dict[str, list[float]] = field(default_factory=dict)
    precision: str = "float32"
    machines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best_epoch(self) -> EpochResult:
        """The epoch whose weights were kept."""
        return [result for result in self.history if result.best][-1]


@dataclass
class State:
    """What has to survive a crash, beside the model and the optimiser.

    epoch: finished. step: done in the epoch after these; totals: for each process their losses by horizon.
    """

    epoch: int = 0
    step: int = 0
    totals: list[list[float]] = field(default_factory=list)
    since_best: int = 0
    best_loss: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    learned: dict[str, list[float]] = field(default_factory=dict)
    history: list[EpochResult] = field(default_factory=list)

    def take(
        self, result: EpochResult, weights: Callable[[], tuple[dict[str, Tensor], dict[str, list[float]]]]
    ) -> None:
        """Take an epoch's result over, and what was learned where it is the best."""
        self.history.append(result)
        self.epoch, self.step, self.totals = result.epoch, 0, []
        self.since_best += 1
        if result.best:
            self.since_best, self.best_loss = 0, result.val_loss
            self.best_weights, self.learned = weights()


def diverging(history: Sequence[EpochResult], horizons: Sequence[int]) -> list[str]:
    """Warn of horizons whose validation loss rose over the last three epochs while that of others fell."""
    if len(history) <= _EPOCHS or len(horizons) < 2:
        return []
    recent = [result.val_loss_by_horizon for result in history[-_EPOCHS - 1 :]]
    rising = [all(b[h] > a[h] for a, b in pairwise(recent)) for h in range(len(horizons))]
    falling = any(all(b[h] < a[h] for a, b in pairwise(recent)) for h in range(len(horizons)))
    return [
        f"the validation loss of horizon {horizon} rose over {_EPOCHS} epochs while that of others fell: give it a "
        "lower weight (horizon_weights) or a model of its own"
        for horizon, rose in zip(horizons, rising, strict=True)
        if rose and falling
    ]
