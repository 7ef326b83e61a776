"""Search algorithms (random, grid, tree-structured Parzen estimator, a user's function) and the importance of fields.

A suggester is asked for points and told the trials that ended. It accepts trials that it did not suggest, which are
those of an interrupted sweep, and continues as if it had suggested them. It never suggests a point twice.

Optuna is driven through its own ask-and-tell interface: Ray Tune's `OptunaSearch` would record a stopped trial as a
complete one with the mean of its first folds, and suggest points again.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.config import SEARCHES
from bitcorn_ray.tuning.space import Dimension, Point, Space, point_key

_ATTEMPTS = 20  # to draw a new point
_MOST_LISTED = 20_000  # points of a space that is small enough to list
_FEWEST_TRIALS, _TREES = 8, 64  # of the random forest


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A point of the search space and the state of its trial.

    state: "running" (or interrupted), "finished" (all folds), "stopped" (by the scheduler) or "failed". losses: one per
    finished fold. error: why it failed. seconds: of training. setting: its `TrialConfig` in plain values.
    """

    name: str
    point: Point
    state: str = "running"
    losses: tuple[float, ...] = ()
    error: str | None = None
    seconds: float = 0.0
    setting: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """Return the mean over the folds, None without any."""
        return float(np.mean(self.losses)) if self.losses else None


class Suggester:
    """The interface of a search algorithm. This one suggests nothing."""

    def __init__(self) -> None:
        self._seen = set[str]()

    def ask(self) -> Point | None:
        """Return the next point, None if there is none left."""
        return None

    def exclude(self, point: Point) -> None:
        """Never suggest a point that an earlier sweep began."""
        self._seen.add(point_key(point))

    def tell(self, trial: Trial) -> None:
        """Record a trial that ended."""
        self.exclude(trial.point)


def suggester_of(search: str, space: Space, seed: int) -> Suggester:
    """Return a suggester by its name: random, grid, tpe, or module:callable for a user's function.

    Raises BitcornError for an unknown name and for a grid over a continuous range.
    """
    if search == "grid":
        return GridSuggester(space)
    if search in ("random", "tpe"):
        return OptunaSuggester(space, search, seed)
    if ":" in search:
        return UserSuggester(space, _import_function(search), seed)
    raise BitcornError(f"search is {search!r}: use {', '.join(SEARCHES)} or module:callable")


class GridSuggester(Suggester):
    """Suggests all points in order."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self._points = space.points()

    def ask(self) -> Point | None:
        """Return the next point, None if there is none left."""
        return next((point for point in self._points if point_key(point) not in self._seen), None)


class OptunaSuggester(Suggester):
    """Suggests points with a sampler of Optuna. kind: "tpe" or "random"."""

    def __init__(self, space: Space, kind: str, seed: int) -> None:
        super().__init__()
        optuna = quiet_optuna()
        self._optuna, self._space, self._distributions = optuna, space, distributions_of(space)
        sampler: Any = (
            optuna.samplers.RandomSampler(seed=seed)
            if kind == "random"
            else optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        )
        self._study = optuna.create_study(sampler=sampler)
        self._asked: dict[str, Any] = {}
        self._rng = np.random.default_rng(seed)

    def ask(self) -> Point | None:
        """Return the next point, None if there is none left."""
        size = self._space.size
        if size is not None and len(self._seen) >= size:
            return None
        for _ in range(_ATTEMPTS):
            trial = self._study.ask(self._distributions)
            point = point_of(self._space, trial.params)
            if (key := point_key(point)) not in self._seen:
                self._seen.add(key)
                self._asked[key] = trial
                return point
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        unseen = [p for p in self._space.points(_MOST_LISTED) if point_key(p) not in self._seen] if size else []
        if not unseen:
            return None
        point = unseen[int(self._rng.integers(len(unseen)))]
        self.exclude(point)
        return point

    def tell(self, trial: Trial) -> None:
        """Record a trial that ended. A stopped trial ranks below every finished one."""
        self.exclude(trial.point)
        states = self._optuna.trial.TrialState
        state = {"finished": states.COMPLETE, "stopped": states.PRUNED}.get(trial.state, states.FAIL)
        value = trial.loss if state == states.COMPLETE else None
        means = [float(np.mean(trial.losses[: stop + 1])) for stop in range(len(trial.losses))]
        if (asked := self._asked.pop(point_key(trial.point), None)) is not None:
            for step, mean in enumerate(means):
                asked.report(mean, step)
            self._study.tell(asked, value, state=state)
            return
        frozen = self._optuna.trial.create_trial(
            state=state,
            value=value,
            params=params_of(self._space, trial.point),
            distributions=self._distributions,
            intermediate_values=dict(enumerate(means)),
        )
        self._study.add_trial(frozen)


class UserSuggester(Suggester):
    """Suggests points with a user's function of the space, the trials that ended and a random generator.

    The trials are pairs (point, trial). The function returns a point, or None to end the search.
    """

    def __init__(
        self,
        space: Space,
        function: Callable[[Space, Sequence[tuple[Point, Trial]], np.random.Generator], Point | None],
        seed: int,
    ) -> None:
        super().__init__()
        self._space, self._function, self._rng = space, function, np.random.default_rng(seed)
        self._ended = list[tuple[Point, Trial]]()

    def ask(self) -> Point | None:
        """Call the function until it returns a new point. Raises BitcornError if it returns anything else."""
        for _ in range(_ATTEMPTS):
            try:
                point = self._function(self._space, tuple(self._ended), self._rng)
            except BitcornError:
                raise
            except Exception as error:  # whatever the user's function raises
                raise BitcornError(f"the search function failed: {type(error).__name__}: {error}") from error
            if point is None:
                return None
            if not isinstance(point, dict) or set(point) != set(self._space.names):
                raise BitcornError(f"the search function returned {point!r}: return {', '.join(self._space.names)}")
            if point_key(point) not in self._seen:
                self.exclude(point)
                return point
        return None

    def tell(self, trial: Trial) -> None:
        """Record a trial that ended, for the function."""
        super().tell(trial)
        self._ended.append((trial.point, trial))


def search_importance(space: Space, tried: Sequence[tuple[Point, float | None]], *, seed: int = 0) -> dict[str, float]:
    """Return the share of the loss's variance that each searched field explains by itself, by functional ANOVA.

    A random forest predicts the loss over the space (Hutter, Hoos and Leyton-Brown 2014). tried: points and their
    losses; those that are None or not finite are ignored. seed: of the forest.
    Empty for fewer than eight trials, or if all points or losses are equal.
    """
    optuna = quiet_optuna()
    known = {point_key(point): (point, loss) for point, loss in tried if loss is not None and math.isfinite(loss)}
    varied = space.only(lambda own: len({point_key({"": point[own.name]}) for point, _ in known.values()}) > 1)
    if len(known) < _FEWEST_TRIALS or not varied.dimensions or len({loss for _, loss in known.values()}) < 2:
        return {}
    study, distributions = optuna.create_study(), distributions_of(varied)
    for point, loss in known.values():
        params = params_of(varied, point)
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=loss))
    forest = optuna.importance.FanovaImportanceEvaluator(n_trees=_TREES, seed=seed)
    return {name: float(share) for name, share in forest.evaluate(study).items()}


def quiet_optuna() -> Any:
    """Return the module optuna, without its log lines about each study."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distributions_of(space: Space) -> dict[str, Any]:
    """Return Optuna's distribution of each field. That of a choice is over indexes, as values may be unhashable."""
    return {dimension.name: _distribution_of(dimension) for dimension in space.dimensions}


def _distribution_of(dimension: Dimension) -> Any:
    from optuna import distributions

    if dimension.kind == "int":
        low, high, *step = dimension.values
        return distributions.IntDistribution(low, range(low, high + 1, *step)[-1], step=step[0] if step else 1)
    if dimension.is_choice:
        return distributions.CategoricalDistribution(range(len(dimension.values)))
    low, high = dimension.values
    return distributions.FloatDistribution(low, high, log=dimension.kind == "loguniform")


def point_of(space: Space, params: Mapping[str, Any]) -> Point:
    """Return the point of Optuna's parameters."""
    return {
        dimension.name: dimension.values[params[dimension.name]] if dimension.is_choice else params[dimension.name]
        for dimension in space.dimensions
    }


def params_of(space: Space, point: Point) -> dict[str, Any]:
    """Return Optuna's parameters of a point."""
    params = {}
    for dimension in space.dimensions:
        value = point[dimension.name]
        if dimension.is_choice:
            value = [point_key({"": option}) for option in dimension.values].index(point_key({"": value}))
        params[dimension.name] = value
    return params


def _import_function(origin: str) -> Any:
    module_name, _, attribute = origin.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except Exception as error:  # whatever the user's module raises
        raise BitcornError(f"search {origin!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise BitcornError(f"search {origin!r}: the module has no function {attribute!r}")
    return function
