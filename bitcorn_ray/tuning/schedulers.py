"""When a bad trial stops: Tune's schedulers, each trial's mean over its folds so far compared at the same fold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from bitcorn_ray.tuning.search import Outcome

__all__ = ["FOLD", "LOSS", "scheduler_of"]

FOLD, LOSS = "fold", "loss"  # as trials report them


class _Earlier:
    """Stands for a trial of an earlier sweep before Tune's schedulers, which hash trials and read their names."""

    def __init__(self, name: str) -> None:
        self.trial_id = name


def scheduler_of(name: str, folds: int, ended: Sequence[Outcome]) -> TrialScheduler:
    """Tune's scheduler of a name, on the mean of the folds so far.

    name: one of `learning.sweep.SCHEDULERS`. folds: of a whole trial. ended: trials of the past, which it has seen.
    """
    common: dict[str, Any] = {"time_attr": FOLD, "metric": LOSS, "mode": "min", "grace_period": 1}
    if name == "none" or folds == 1:
        return FIFOScheduler()
    if name == "median":
        # Nobody waits for others: a trial that was paused would begin anew.
        patience: Any = math.inf
        made: Any = MedianStoppingRule(**common, min_samples_required=3, min_time_slice=patience)
    else:
        brackets = 1 if name == "asha" else min(3, 1 + int(math.log(folds, 3)))
        made = AsyncHyperBandScheduler(**common, max_t=folds, reduction_factor=3, brackets=brackets)
    for number, outcome in enumerate(ended):
        if outcome.losses:
            trial: Any = _Earlier(f"earlier-{number}")
            made.on_trial_add(None, trial)
            for stop in range(len(outcome.losses)):
                mean = sum(outcome.losses[: stop + 1]) / (stop + 1)
                if made.on_trial_result(None, trial, {FOLD: stop + 1, LOSS: mean}) != TrialScheduler.CONTINUE:
                    break
    return made
