"""EvolveConfig: a run's fields in one YAML file, with `systems`, `folds`, `search` and `evolve` beside them.

db: market.db
symbol: BTCUSDT
timeframe: 1h
out: evolved/first
model: {horizons: [1, 4, 12], hidden_size: 16}
systems: [v2, v4, "my_features:momentum:window=50"]     # subsets of all their features together
folds: {train: 365d, validation: 30d, test: 30d, last: 6}
search: {training.learning_rate: {loguniform: [1e-4, 1e-2]}}
evolve: {population: 24, generations: 10, held_out: 2}

All other fields are those of a run; `features` and `sweep` have no place here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.combined import combine, combined_names
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.training.config import validated
from bitcorn_ray.tuning.config import SweepConfig, TrialConfig, read_sections
from bitcorn_ray.tuning.options import Resources, SweepOptions
from bitcorn_ray.tuning.space import Point


@dataclass(frozen=True, kw_only=True)
class EvolveOptions:
    """The section `evolve`.

    population: individuals of a generation. generations: how many. held_out: last folds that evolution never sees; the
    final front is judged on their test windows.
    objective: loss on VALIDATION windows, mean over windows and horizons: "qlike" of the variance or "gaussian_nll" of
    the return; the other objective is the number of features. seeds: trainings of each fold. resources: of a trial.
    shuffles: permutations of each feature of the winner. block: rows that are shuffled together, by default a window's
    length. max_hours: after which no more is begun. max_failures: share of a generation's trials that may fail.
    seed: of evolution and of the shuffles.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    population: int = 24
    generations: int = 10
    held_out: int = 1
    objective: str = "qlike"
    seeds: int = 1
    resources: Resources = field(default_factory=Resources)
    shuffles: int = 5
    block: int | None = None
    max_hours: float | None = None
    max_failures: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"population": 2, "generations": 1, "held_out": 1, "shuffles": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise BitcornError(f"{name} is {getattr(self, name)}: it must be at least {lowest}")
        if self.block is not None and self.block < 1:
            raise BitcornError(f"block is {self.block}: it must be at least 1 row, or left out")
        self.sweep(1)

    def sweep(self, trials: int, max_hours: float | None = None) -> SweepOptions:
        """How so many trials are run: all folds of each, as losses of fewer could not be compared."""
        return SweepOptions(
            search="random",
            objective=self.objective,
            trials=trials,
            max_hours=max_hours or self.max_hours,
            seeds=self.seeds,
            resources=self.resources,
            max_failures=self.max_failures,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class EvolveConfig:
    """One evolution. sweep: what all trials have in common; its system is all features together. systems: as texts.

    Raises BitcornError for systems that cannot be combined, and for a search of systems or features.
    """

    sweep: SweepConfig
    systems: tuple[str, ...]
    options: EvolveOptions = field(default_factory=EvolveOptions)

    def __post_init__(self) -> None:
        for name in self.sweep.space.names:
            if name.partition(".")[0] in ("system", "features"):
                raise BitcornError(f"search.{name}: evolution chooses the features itself, of `systems`; leave it out")
        last = self.sweep.folds.last
        if last is not None and last <= self.options.held_out:
            raise BitcornError(
                f"folds.last is {last} and evolve.held_out {self.options.held_out}: no fold is left to search on"
            )

    @classmethod
    def load(
        cls, config: str | Path | Mapping[str, Any] | EvolveConfig, overrides: Mapping[str, Any] | None = None
    ) -> EvolveConfig:
        """Read a YAML file, or its values. overrides: fields of `evolve` and `out`; None leaves the file's value.

        Raises BitcornError for a missing or malformed file, unknown or missing fields, and impossible values.
        """
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        out = {"out": given.pop("out", None)}
        if isinstance(config, EvolveConfig):
            return replace(config, sweep=SweepConfig.load(config.sweep, out), options=replace(config.options, **given))
        values, section = read_sections(config, "evolve")
        for name in ("sweep", "features"):
            if name in values:
                raise BitcornError(
                    f"{name} has no place here: give `systems`, whose features are searched, and `evolve`"
                )
        systems = _systems(values.pop("systems", None))
        options = validated(EvolveOptions, {**section, **given}, "evolve")
        whole = combine(systems, [system.features for system in systems])
        sweep = asdict(options.sweep(options.population * options.generations))
        loaded = SweepConfig.load({**values, "features": whole.spec, "sweep": sweep}, out)
        return cls(sweep=loaded, systems=tuple(system.spec for system in systems), options=options)

    @property
    def parents(self) -> list[FeatureSystem]:
        """The systems."""
        return [find_system(spec) for spec in self.systems]

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of all features, those of each system together."""
        return combined_names(self.parents)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all features, in order."""
        return tuple(name for group in self.groups for name in group)

    def at(self, point: Point) -> TrialConfig:
        """Return what the trial of a point trains, whose `features` are names of `features`."""
        return self.sweep.at(point)

    def system_of(self, kept: Mapping[str, Any] | tuple[str, ...] | list[str]) -> FeatureSystem:
        """The feature system of some of the features."""
        parents = self.parents
        chosen = [
            [own for own, name in zip(parent.features, group, strict=True) if name in kept]
            for parent, group in zip(parents, self.groups, strict=True)
        ]
        return combine(parents, chosen)

    def to_json(self) -> dict[str, Any]:
        """The same in plain values."""
        plain = {name: value for name, value in self.sweep.to_json().items() if name not in ("features", "sweep")}
        return {**plain, "systems": list(self.systems), "evolve": asdict(self.options)}


def _systems(given: Any) -> list[FeatureSystem]:
    if not isinstance(given, list | tuple) or not given or not all(isinstance(spec, str) for spec in given):
        raise BitcornError(f"systems is {given!r}: list the feature systems to choose from, as in [v2, v4]")
    return [find_system(spec) for spec in given]
