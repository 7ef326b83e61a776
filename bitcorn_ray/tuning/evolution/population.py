"""Populations of feature subsets and hyperparameters, generation by generation, by Optuna's NSGA-II.

1. The first generation has all features, those of each system alone, and random subsets. 2. Each later one is bred from
the survivors: of all earlier individuals, those that no other beats in both loss and number of features, then the next
such layer, up to the size of the population; within a layer, those with the most distant neighbours. 3. A point is not
chosen twice while there are others.

With the same seed and the same losses it chooses the same points. An interrupted evolution is therefore repeated from
the start, and recorded trials are not trained again. Shapes: P individuals, F features.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitcorn_ray.tuning.search import Trial, distributions_of, point_of, quiet_optuna
from bitcorn_ray.tuning.space import Point, Space, point_key

_ATTEMPTS = 20  # to draw a new point


@dataclass(frozen=True, kw_only=True)
class Individual:
    """A point with its losses on the search folds, empty if it failed."""

    name: str
    point: Point
    losses: tuple[float, ...] = ()

    @classmethod
    def of(cls, trial: Trial) -> Individual:
        """Return the individual of a trial."""
        losses = trial.losses if trial.state == "finished" else ()
        return cls(name=trial.name, point=dict(trial.point), losses=losses)

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of its features."""
        return tuple(self.point["features"])

    @property
    def loss(self) -> float:
        """Return the mean over the folds, infinite if it failed."""
        return math.fsum(self.losses) / len(self.losses) if self.losses else math.inf


class Population:
    """Chooses points: a subset of features, by name, and values of the dimensions of a space."""

    def __init__(self, groups: Sequence[Sequence[str]], space: Space, size: int, seed: int) -> None:
        optuna = quiet_optuna()
        self._optuna, self._space, self.size = optuna, space, size
        self._features = [name for group in groups for name in group]
        either = optuna.distributions.CategoricalDistribution([False, True])
        self._distributions: dict[str, Any] = {f"feature {name}": either for name in self._features}
        self._distributions |= distributions_of(space)
        self._sampler = optuna.samplers.NSGAIISampler(population_size=size, seed=seed)
        self._study = optuna.create_study(directions=["minimize", "minimize"], sampler=self._sampler)
        for chosen in [self._features, *(groups if len(groups) > 1 else [])][:size]:
            self._study.enqueue_trial({f"feature {name}": name in chosen for name in self._features})
        self._asked: list[tuple[Any, Point | None]] = []
        self._seen: set[str] = set()
        self._generation = 0

    def ask(self) -> list[Point]:
        """Return the points (P,) of the next generation, less those without any feature; some may be known."""
        self._asked = [self._next() for _ in range(self.size)]
        return [point for _, point in self._asked if point is not None]

    def tell(self, losses: Mapping[str, float]) -> list[str]:
        """Record the losses of the generation by `point_key`, and return the keys of the survivors, best layers first.

        A point that failed has an infinite loss: nothing is bred from it while there are others.
        """
        worst = (math.inf, float(len(self._features) + 1))
        for trial, point in self._asked:
            loss = math.inf if point is None else losses[point_key(point)]
            values = worst if point is None or not math.isfinite(loss) else (loss, float(len(point["features"])))
            trial.set_user_attr("key", None if point is None else point_key(point))
            self._study.tell(trial, values)
        self._asked, self._generation = [], self._generation + 1
        survivors = self._sampler.get_parent_population(self._study, self._generation)
        keys = [trial.user_attrs["key"] for trial in survivors if math.isfinite(trial.values[0])]
        return list(dict.fromkeys(keys))

    def _next(self) -> tuple[Any, Point | None]:
        for attempt in range(_ATTEMPTS):
            trial = self._study.ask(self._distributions)
            point = self._point(trial.params)
            key = None if point is None else point_key(point)
            if (key is not None and key not in self._seen) or attempt == _ATTEMPTS - 1:
                break
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        if key is not None:
            self._seen.add(key)
        return trial, point

    def _point(self, params: Mapping[str, Any]) -> Point | None:
        """Return the point of Optuna's parameters, None without any feature."""
        features = [name for name in self._features if params[f"feature {name}"]]
        return {"features": features, **point_of(self._space, params)} if features else None


def pareto_front(individuals: Sequence[Individual]) -> list[Individual]:
    """Return those that no other beats in both loss and number of features, fewest features first.

    Of equal individuals the first counts.
    """
    front = list[Individual]()
    for one in sorted(individuals, key=lambda individual: (len(individual.features), individual.loss)):
        if math.isfinite(one.loss) and (not front or one.loss < front[-1].loss):
            front.append(one)
    return front


def survival(individuals: Sequence[Individual], features: Sequence[str]) -> dict[str, float]:
    """Return the share of individuals, 0 to 1, that have each feature."""
    counts = Counter(name for individual in individuals for name in individual.features)
    return {name: counts[name] / max(1, len(individuals)) for name in features}
