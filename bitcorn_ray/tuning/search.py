"""Search algorithms: random, grid, tree-structured Parzen estimator, or a user's own.

A suggester is asked for points and told their outcomes. It accepts outcomes of points that it did not choose, which are
those of an interrupted sweep, and continues as if it had chosen them. It never chooses a point twice.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.space import Dimension, Point, Space, point_key

_TRIES = 20  # for a point that is new
_LISTED = 20_000  # points of a space that is small enough to look for what is left of it


@dataclass(frozen=True)
class Outcome:
    """The outcome of a point. state: "finished", "stopped" or "failed". losses: of the folds that it finished."""

    state: str
    losses: tuple[float, ...] = ()

    @property
    def loss(self) -> float | None:
        """Return the mean over the folds, None without any."""
        return float(np.mean(self.losses)) if self.losses else None


class Suggester(Protocol):
    """The interface of a search algorithm."""

    def ask(self) -> Point | None:
        """Return the next point, None if there is none left."""

    def expect(self, point: Point) -> None:
        """Record that a point of an earlier sweep is being tried."""

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Record the outcome of a point, whoever chose it."""


def suggester_of(search: str, space: Space, seed: int) -> Suggester:
    """Return a suggester by its name: random, grid, tpe, or module:callable for a user's own.

    Raises BitcornError for an unknown name and for a grid over a continuous range.
    """
    if search == "grid":
        return GridSuggester(space)
    if search in ("random", "tpe"):
        return OptunaSuggester(space, search, seed)
    if ":" in search:
        return UserSuggester(space, _imported(search), seed)
    raise BitcornError(f"search is {search!r}: use tpe, random, grid or module:callable")


class GridSuggester:
    """Suggests all points in order."""

    def __init__(self, space: Space) -> None:
        self._points: Iterator[Point] = space.points()
        self._seen: set[str] = set()

    def ask(self) -> Point | None:
        """Return the next point, None if there is none left."""
        point = next((each for each in self._points if point_key(each) not in self._seen), None)
        if point is not None:
            self._seen.add(point_key(point))
        return point

    def expect(self, point: Point) -> None:
        """Record that a point is being tried."""
        self._seen.add(point_key(point))

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Record that a point was tried."""
        self._seen.add(point_key(point))


class OptunaSuggester:
    """Suggests points with a sampler of Optuna. kind: "tpe" or "random"."""

    def __init__(self, space: Space, kind: str, seed: int) -> None:
        optuna = quiet_optuna()
        self._optuna, self._space = optuna, space
        self._distributions = {each.name: distribution_of(each) for each in space.dimensions}
        sampler: Any = (
            optuna.samplers.RandomSampler(seed=seed)
            if kind == "random"
            else optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        )
        self._study = optuna.create_study(sampler=sampler)
        self._asked: dict[str, Any] = {}
        self._seen: set[str] = set()
        self._rng = np.random.default_rng(seed)

    def ask(self) -> Point | None:
        """Return the next point, None if there is none left."""
        size = self._space.size
        if size is not None and len(self._seen) >= size:
            return None
        for _ in range(_TRIES):
            trial = self._study.ask(self._distributions)
            point = {each.name: value_of(each, trial.params[each.name]) for each in self._space.dimensions}
            if (key := point_key(point)) not in self._seen:
                self._seen.add(key)
                self._asked[key] = trial
                return point
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        left = [p for p in self._space.points(_LISTED) if point_key(p) not in self._seen] if size else []
        if not left:
            return None
        point = left[int(self._rng.integers(len(left)))]
        self._seen.add(point_key(point))
        return point

    def expect(self, point: Point) -> None:
        """Record that a point is being tried."""
        self._seen.add(point_key(point))

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Record the outcome of a point. A stopped point ranks below every finished one."""
        key, states = point_key(point), self._optuna.trial.TrialState
        self._seen.add(key)
        state = {"finished": states.COMPLETE, "stopped": states.PRUNED}.get(outcome.state, states.FAIL)
        means = [float(np.mean(outcome.losses[: stop + 1])) for stop in range(len(outcome.losses))]
        if (trial := self._asked.pop(key, None)) is not None:
            for step, mean in enumerate(means):
                trial.report(mean, step)
            self._study.tell(trial, outcome.loss if state == states.COMPLETE else None, state=state)
            return
        frozen = self._optuna.trial.create_trial(
            state=state,
            value=outcome.loss if state == states.COMPLETE else None,
            params={each.name: drawn_of(each, point[each.name]) for each in self._space.dimensions},
            distributions=self._distributions,
            intermediate_values=dict(enumerate(means)),
        )
        self._study.add_trial(frozen)


def quiet_optuna() -> Any:
    """Return the module optuna, without its log lines about each study."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distribution_of(dimension: Dimension) -> Any:
    """Return Optuna's distribution of a dimension. That of a choice is over indexes, as values may be unhashable."""
    from optuna import distributions

    if dimension.kind == "int":
        low, high, *step = dimension.values
        return distributions.IntDistribution(low, range(low, high + 1, *step)[-1], step=step[0] if step else 1)
    if dimension.kind in ("choice", "grid"):
        return distributions.CategoricalDistribution(range(len(dimension.values)))
    low, high = dimension.values
    return distributions.FloatDistribution(low, high, log=dimension.kind == "loguniform")


def value_of(dimension: Dimension, drawn: Any) -> Any:
    """Return the value of a dimension for a draw from its distribution."""
    return dimension.values[drawn] if dimension.kind in ("choice", "grid") else drawn


def drawn_of(dimension: Dimension, value: Any) -> Any:
    """Return the draw from a dimension's distribution that gives a value."""
    if dimension.kind not in ("choice", "grid"):
        return value
    return [point_key({"": each}) for each in dimension.values].index(point_key({"": value}))


class UserSuggester:
    """Suggests points with a user's function of the space, the outcomes so far and a random generator.

    The outcomes are pairs (point, outcome). The function returns a point, or None to end the search.
    """

    def __init__(
        self,
        space: Space,
        function: Callable[[Space, Sequence[tuple[Point, Outcome]], np.random.Generator], Point | None],
        seed: int,
    ) -> None:
        self._space, self._function, self._rng = space, function, np.random.default_rng(seed)
        self._told: list[tuple[Point, Outcome]] = []
        self._seen: set[str] = set()

    def ask(self) -> Point | None:
        """Call the function until it returns a new point. Raises BitcornError if it returns anything else."""
        for _ in range(_TRIES):
            try:
                point = self._function(self._space, tuple(self._told), self._rng)
            except BitcornError:
                raise
            except Exception as error:  # whatever the user's function raises
                raise BitcornError(f"the search function failed: {type(error).__name__}: {error}") from error
            if point is None:
                return None
            if not isinstance(point, dict) or set(point) != set(self._space.names):
                raise BitcornError(f"the search function returned {point!r}: return {', '.join(self._space.names)}")
            if (key := point_key(point)) not in self._seen:
                self._seen.add(key)
                return point
        return None

    def expect(self, point: Point) -> None:
        """Record that a point is being tried."""
        self._seen.add(point_key(point))

    def tell(self, point: Point, outcome: Outcome) -> None:
        """Record the outcome of a point for the function."""
        self._seen.add(point_key(point))
        self._told.append((point, outcome))


def _imported(origin: str) -> Any:
    module_name, _, attribute = origin.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except Exception as error:  # whatever the user's module raises
        raise BitcornError(f"search {origin!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise BitcornError(f"search {origin!r}: the module has no function {attribute!r}")
    return function
