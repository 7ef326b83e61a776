"""How a sweep is carried out: how many trials, on what, and when a bad one stops."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from bitcorn_ray.errors import BitcornError

SCHEDULERS = ("none", "asha", "median", "hyperband")
OBJECTIVES = ("qlike", "gaussian_nll")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial takes of Ray's; parts of a GPU, or of a CPU, let several share one."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    cpu: float = 1
    gpu: float = 0

    def __post_init__(self) -> None:
        if not (0 < self.cpu < math.inf and 0 <= self.gpu < math.inf):
            raise BitcornError(f"resources are {self.cpu} CPUs and {self.gpu} GPUs: give some CPU, and 0 GPUs or more")


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """The section `sweep`.

    search: "tpe", "random", "grid" or module:callable (see `suggest`). scheduler: stops a trial whose running mean over
    folds is bad: "asha", "hyperband" (asynchronous, three brackets), "median", or "none".
    objective: loss by which trials are compared on VALIDATION windows, whatever they were trained on, mean over
    windows and horizons: "qlike" of the variance, or "gaussian_nll" of the return. Test windows choose nothing.
    trials: at most. max_hours: after which no more is begun, and what runs ends. seeds: trainings of each fold, with
    training.seed and those after it. max_failures: share of the trials that may fail. seed: of the search.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    search: str = "tpe"
    scheduler: str = "none"
    objective: str = "qlike"
    trials: int = 16
    max_hours: float | None = None
    seeds: int = 1
    resources: Resources = field(default_factory=Resources)
    max_failures: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("scheduler", SCHEDULERS), ("objective", OBJECTIVES)):
            if getattr(self, name) not in known:
                raise BitcornError(f"{name} is {getattr(self, name)!r}: use {', '.join(known)}")
        for name in ("trials", "seeds"):
            if getattr(self, name) < 1:
                raise BitcornError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.max_hours is not None and not self.max_hours > 0:
            raise BitcornError(f"max_hours is {self.max_hours}: it must be above 0, or left out")
        if not 0 <= self.max_failures <= 1:
            raise BitcornError(f"max_failures is {self.max_failures}: it is a share of the trials, from 0 to 1")
        if self.search not in ("tpe", "random", "grid") and ":" not in self.search:
            raise BitcornError(f"search is {self.search!r}: use tpe, random, grid or module:callable")
