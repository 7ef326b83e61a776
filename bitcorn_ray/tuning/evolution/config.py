"""EvolveConfig: the fields of a run, `systems`, and the sections `folds`, `search` and `evolve`, in one YAML file.

db: market.db
symbol: BTCUSDT
timeframe: 1h
out: evolved/first
model: {horizons: [1, 4, 12], hidden_size: 16}
systems: [v2, v4, "my_features:momentum:window=50"]     # subsets of all their features together
folds: {train: 365d, validation: 30d, test: 30d, last: 6}
search: {training.learning_rate: {loguniform: [1e-4, 1e-2]}}
evolve: {population: 24, generations: 10, held_out: 2}

All other fields are those of a run, except `features`. There is no section `sweep`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitcorn_ray.datasets.load import FeatureMatrix
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.combined import combine, combined_names
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.training.config import validated
from bitcorn_ray.tuning.config import SweepConfig, SweepOptions, TrialOptions, read_sections
from bitcorn_ray.tuning.data import SweepData, sweep_data


@dataclass(frozen=True, kw_only=True)
class EvolveOptions(TrialOptions):
    """The section `evolve`; `max_failures` is a share of a generation's trials.

    population: individuals per generation. generations: their number. held_out: last folds that the search does not
    read; the final front is evaluated on their test windows. The second objective is the number of features.
    shuffles: permutations of each feature of the winner. block: rows that are shuffled together, by default a window's
    length.
    """

    population: int = 24
    generations: int = 10
    held_out: int = 1
    shuffles: int = 5
    block: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(2, "population")
        self.require_at_least(1, "generations", "held_out", "shuffles", *(() if self.block is None else ("block",)))

    def sweep(self, trials: int) -> SweepOptions:
        """Return the options of a number of trials that train all folds, as losses of fewer cannot be compared."""
        shared = {item.name: getattr(self, item.name) for item in fields(TrialOptions)}
        return SweepOptions(search="random", trials=trials, **shared)


@dataclass(frozen=True, kw_only=True)
class EvolveConfig:
    """The configuration of an evolution.

    sweep: common to all trials; its system is all features together. systems: specs of the feature systems.
    Raises BitcornError for systems that cannot be combined, and for a search of systems or features.
    """

    sweep: SweepConfig
    systems: tuple[str, ...]
    options: EvolveOptions = field(default_factory=EvolveOptions)

    def __post_init__(self) -> None:
        for name in self.sweep.space.names:
            if name.partition(".")[0] in ("system", "features"):
                raise BitcornError(
                    f"search.{name}: evolution chooses the features itself, from `systems`; leave it out"
                )
        last = self.sweep.folds.last
        if last is not None and last <= self.options.held_out:
            raise BitcornError(
                f"folds.last is {last} and evolve.held_out {self.options.held_out}: no fold is left to search on"
            )

    @classmethod
    def load(
        cls, config: str | Path | Mapping[str, Any] | EvolveConfig, overrides: Mapping[str, Any] | None = None
    ) -> EvolveConfig:
        """Return the configuration of a YAML file, or of its values.

        overrides: fields of `evolve` and `out`; None keeps the file's value.
        Raises BitcornError for a missing or malformed file, unknown or missing fields, and impossible values.
        """
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        out = {"out": given.pop("out", None)}
        if isinstance(config, EvolveConfig):
            return replace(config, sweep=SweepConfig.load(config.sweep, out), options=replace(config.options, **given))
        values, section = read_sections(config, "evolve")
        for name in ("sweep", "features"):
            if name in values:
                raise BitcornError(f"{name} is not a field of an evolution: give `systems` and `evolve` instead")
        specs = values.pop("systems", None)
        if not isinstance(specs, list | tuple) or not specs or not all(isinstance(spec, str) for spec in specs):
            raise BitcornError(f"systems is {specs!r}: list the feature systems to choose from, as in [v2, v4]")
        systems = [find_system(spec) for spec in specs]
        options = validated(EvolveOptions, {**section, **given}, "evolve")
        all_features = combine(systems, [system.features for system in systems])
        sweep = asdict(options.sweep(options.population * options.generations))
        loaded = SweepConfig.load({**values, "features": all_features.spec, "sweep": sweep}, out)
        return cls(sweep=loaded, systems=tuple(system.spec for system in systems), options=options)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Return the names of all features, those of each system together."""
        return combined_names([find_system(spec) for spec in self.systems])

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of all features, in order."""
        return tuple(name for group in self.groups for name in group)

    def system_of(self, features: Collection[str]) -> FeatureSystem:
        """Return the feature system of some of the features."""
        systems = [find_system(spec) for spec in self.systems]
        chosen = [
            [own for own, name in zip(system.features, group, strict=True) if name in features]
            for system, group in zip(systems, self.groups, strict=True)
        ]
        return combine(systems, chosen)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as in a file."""
        plain = {name: value for name, value in self.sweep.to_json().items() if name not in ("features", "sweep")}
        return {**plain, "systems": list(self.systems), "evolve": asdict(self.options)}


def evolve_data(
    config: EvolveConfig, *, cache_dir: str | Path | None = None, log_fn: Callable[[str], None] | None = None
) -> SweepData:
    """Load the bars, cut the folds, and put the features of all systems side by side into one matrix (T, F).

    A row with a missing feature is missing for all, so that all subsets are compared on the same windows.
    Raises BitcornError as `sweep_data` does.
    """
    data = sweep_data(config.sweep, cache_dir=cache_dir, systems=config.systems, log_fn=log_fn)
    variants = [data.variants[spec] for spec in config.systems]
    matrix = np.concatenate([variant.matrix for variant in variants], axis=1)
    missing = ~np.isfinite(matrix).all(1)
    matrix[missing] = np.nan
    if log_fn:
        log_fn(f"{matrix.shape[1]} features together, complete in {(~missing).sum():,} of {len(matrix):,} bars")
    spec = config.sweep.run.features
    keys = tuple(key for variant in variants for key in variant.keys)
    together = FeatureMatrix(spec=spec, version=1, features=config.features, matrix=matrix, keys=keys)
    return replace(data, variants={spec: together})
