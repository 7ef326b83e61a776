"""SweepConfig: the fields of a run and the sections `folds`, `search` and `sweep`, in one YAML file.

db: market.db
symbol: BTCUSDT
timeframe: 1h
out: sweeps/first
model: {horizons: [1, 4, 12]}
folds: {train: 365d, validation: 30d, test: 30d, last: 12}
search:
model.hidden_size: {choice: [16, 32, 64]}
training.learning_rate: {loguniform: [1e-4, 1e-2]}
seq_len: {int: [16, 96, 16]}
system: {choice: [v2, v4]}
system.short: {int: [6, 24, 6]}                     # a parameter of the systems that have it
features: {choice: [[log_ret_1, rsi_14], [raw_vol_10]]}    # of the chosen system, these only
sweep: {search: tpe, scheduler: asha, trials: 32}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from bitcorn_ray.datasets.folds import FoldsConfig
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.models.base import ModelConfig
from bitcorn_ray.models.neural.config import TrainingConfig
from bitcorn_ray.models.registry import config_class, model_config
from bitcorn_ray.training.config import RunConfig, read_yaml, validated
from bitcorn_ray.tuning.space import SEQ_LEN, Point, Space

_ALIASES = {"seq_len": "model.seq_len", "model.cell": "model.kind"}
_MOST_VARIANTS = 64
# Fields that cannot be searched, and why.
_FIXED = {
    "model.horizons": "losses of different horizons cannot be compared",
    "training.val_frac": "`folds` determines the validation windows",
    "training.test_frac": "`folds` determines the test windows",
    "training.seed": "`sweep.seeds` repeats each trial with several seeds",
}
SEARCHES = ("tpe", "random", "grid")
SCHEDULERS = ("none", "asha", "median", "hyperband")
OBJECTIVES = ("qlike", "gaussian_nll")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources of one trial; with a part of a GPU, or of a CPU, several trials share one."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    cpu: float = 1
    gpu: float = 0

    def __post_init__(self) -> None:
        if not (0 < self.cpu < math.inf and 0 <= self.gpu < math.inf):
            raise BitcornError(f"resources are {self.cpu} CPUs and {self.gpu} GPUs: give some CPU, and 0 GPUs or more")


@dataclass(frozen=True, kw_only=True)
class TrialOptions:
    """The options that the sections `sweep` and `evolve` share.

    objective: loss on the validation windows by which trials are compared, whatever they were trained on, mean over
    windows and horizons: "qlike" of the variance, or "gaussian_nll" of the return. Test windows choose nothing.
    seeds: trainings of each fold, with training.seed and the following seeds. resources: of a trial. max_hours: after
    which no trial begins and running ones end. max_failures: share of the trials that may fail. seed: of the search.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    objective: str = "qlike"
    seeds: int = 1
    resources: Resources = field(default_factory=Resources)
    max_hours: float | None = None
    max_failures: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise BitcornError(f"objective is {self.objective!r}: use {', '.join(OBJECTIVES)}")
        self.require_at_least(1, "seeds")
        if self.max_hours is not None and not self.max_hours > 0:
            raise BitcornError(f"max_hours is {self.max_hours}: it must be above 0, or left out")
        if not 0 <= self.max_failures <= 1:
            raise BitcornError(f"max_failures is {self.max_failures}: it is a share of the trials, from 0 to 1")

    def require_at_least(self, minimum: int, *names: str) -> None:
        """Raise BitcornError if an option is below a minimum."""
        for name in names:
            if getattr(self, name) < minimum:
                raise BitcornError(f"{name} is {getattr(self, name)}: it must be at least {minimum}")


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrialOptions):
    """The section `sweep`.

    search: "tpe", "random", "grid" or module:callable (see `search`). scheduler: stops a trial whose running mean over
    folds is bad: "asha", "hyperband" (asynchronous, three brackets), "median", or "none". trials: maximum number.
    """

    search: str = "tpe"
    scheduler: str = "none"
    trials: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "trials")
        if self.scheduler not in SCHEDULERS:
            raise BitcornError(f"scheduler is {self.scheduler!r}: use {', '.join(SCHEDULERS)}")
        if self.search not in SEARCHES and ":" not in self.search:
            raise BitcornError(f"search is {self.search!r}: use {', '.join(SEARCHES)} or module:callable")


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """The configuration of one trial.

    system: spec of the feature system. features: a subset of its features, None for all.
    """

    model: ModelConfig
    training: TrainingConfig
    system: str
    features: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `from_json`, with lists for tuples."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Return the configuration of `to_json`. Raises BitcornError for impossible values."""
        features = values["features"]
        return cls(
            model=model_config(values["model"]),
            training=validated(TrainingConfig, values["training"], "training"),
            system=values["system"],
            features=None if features is None else tuple(features),
        )


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The configuration of a sweep.

    run: fields that all trials share. Its `out` is the folder of the sweep, and its workers train the best trial.
    Raises BitcornError for fields that a search cannot reach and for values that these cannot have.
    """

    run: RunConfig
    folds: FoldsConfig = field(default_factory=FoldsConfig)
    space: Space = field(default_factory=Space)
    sweep: SweepOptions = field(default_factory=SweepOptions)

    def __post_init__(self) -> None:
        if self.folds.validation in (0, "0"):
            raise BitcornError("folds.validation is 0: trials are compared on validation windows, so give a length")
        for dimension in self.space.dimensions:
            _require_reachable(dimension.name, self.model_kinds)
            for value in dimension.extremes:
                if not dimension.name.startswith(("system", "features")):
                    self.at({dimension.name: value})
        self._require_variants()

    @classmethod
    def load(
        cls, config: str | Path | Mapping[str, Any] | SweepConfig, overrides: Mapping[str, Any] | None = None
    ) -> SweepConfig:
        """Return the configuration of a YAML file, or of its values.

        overrides: fields of `sweep` and `out`; None keeps the file's value.

        Raises BitcornError for a missing or malformed file, unknown or missing fields, and impossible values.
        """
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        out = given.pop("out", None)
        if isinstance(config, SweepConfig):
            run = config.run if out is None else replace(config.run, out=out)
            return replace(config, run=run, sweep=replace(config.sweep, **given))
        values, options = read_sections(config, "sweep")
        folds, search = values.pop("folds", None), values.pop("search", None)
        return cls(
            run=RunConfig.load(None, {**values, "out": out or values.get("out")}),
            folds=validated(FoldsConfig, folds or {}, "folds"),
            space=Space.parse(search),
            sweep=validated(SweepOptions, {**options, **given}, "sweep"),
        )

    @property
    def model_kinds(self) -> tuple[str, ...]:
        """Return the model kinds that the search can reach."""
        for dimension in self.space.dimensions:
            if _ALIASES.get(dimension.name, dimension.name) == "model.kind":
                return tuple(dimension.options or ())
        return (self.run.model.kind,)

    @property
    def longest_seq_len(self) -> int:
        """Return the longest window of any trial, in bars."""
        return self.space.maximum(SEQ_LEN, self.run.model.seq_len)

    def at(self, point: Point) -> TrialConfig:
        """Return the configuration of a point's trial. Raises BitcornError for values that do not fit together.

        A searched field of the model applies to the kinds that have it. If `model.kind` is searched, a kind takes from
        the run's model the fields that it has.
        """
        kind = next((point[name] for name in ("model.kind", "model.cell") if name in point), self.run.model.kind)
        own_fields = {item.name for item in fields(config_class(kind))}
        model = {name: value for name, value in asdict(self.run.model).items() if name in own_fields}
        model["kind"], training = kind, asdict(self.run.training)
        system, parameters = self.run.features, {}
        for name, value in point.items():
            section, _, inner = _ALIASES.get(name, name).partition(".")
            if section == "model" and inner in own_fields:
                model[inner] = value
            elif section == "training":
                training[inner] = value
            elif section == "system" and inner:
                parameters[inner] = value
            elif section == "system":
                system = value
        values = {"model": model, "training": training, "system": _with_parameters(system, parameters)}
        return TrialConfig.from_json({**values, "features": point.get("features")})

    def variants(self) -> tuple[str, ...]:
        """Return the specs of all feature systems with their parameters that the search can reach, in order.

        Raises BitcornError for a continuous parameter, and for too many of them.
        """
        systems = self.space.only(lambda dimension: dimension.name.partition(".")[0] == "system")
        for dimension in systems.dimensions:
            if dimension.options is None:
                raise BitcornError(
                    f"{dimension.name} is searched by {dimension.kind}: features of every variant are computed before "
                    "the trials, so give a choice or an int with a step"
                )
        specs: dict[str, None] = {}
        for point in systems.points():
            specs[self.at(point).system] = None
            if len(specs) > _MOST_VARIANTS:
                raise BitcornError(
                    f"the search reaches more than {_MOST_VARIANTS} variants of features, which are all computed "
                    "before the trials: give fewer values for system and its parameters"
                )
        return tuple(specs)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as in a file."""
        search = {dimension.name: {dimension.kind: list(dimension.values)} for dimension in self.space.dimensions}
        return {**asdict(self.run), "folds": asdict(self.folds), "search": search, "sweep": asdict(self.sweep)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SweepConfig:
        """Return the configuration of `to_json`. Raises BitcornError as `load` does."""
        return cls.load({name: value for name, value in values.items() if value is not None and value != []})

    def _require_variants(self) -> None:
        systems = [find_system(spec) for spec in self.variants()]
        for dimension in self.space.dimensions:
            section, _, parameter = dimension.name.partition(".")
            if section == "system" and parameter and not any(parameter in system.all_parameters for system in systems):
                names = ", ".join(sorted({system.name for system in systems}))
                raise BitcornError(f"search.{dimension.name}: none of the systems {names} has a parameter {parameter}")
            if section == "features":
                known = [] if any(system.context for system in systems) else [system.features for system in systems]
                for subset in dimension.extremes:
                    _require_subset(subset, known)


def read_sections(config: str | Path | Mapping[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of a YAML file, or of its values, without a section, and the fields of that section.

    Raises BitcornError for a missing or malformed file, and if the section is not a mapping.
    """
    values = dict(config) if isinstance(config, Mapping) else read_yaml(config)
    options = values.pop(name, None) or {}
    if not isinstance(options, Mapping):
        raise BitcornError(f"{name} is {options!r}: give fields, as in {name}: {{seed: 1}}")
    return values, dict(options)


def _require_reachable(name: str, kinds: tuple[str, ...]) -> None:
    """Raise BitcornError for an unknown field, or one that cannot be searched. kinds: of the models."""
    full = _ALIASES.get(name, name)
    section, _, inner = full.partition(".")
    owners: dict[str, list[Any]] = {"model": [config_class(kind) for kind in kinds], "training": [TrainingConfig]}
    if full in _FIXED:
        raise BitcornError(f"search.{name} cannot be searched: {_FIXED[full]}")
    if any(inner in {item.name for item in fields(owner)} for owner in owners.get(section, ())):
        return
    if section == "system" or full == "features":
        return
    raise BitcornError(
        f"search.{name} is not a field that can be searched for kind {', '.join(kinds)}: use model.<field>, "
        "training.<field>, seq_len, system, system.<parameter> or features"
    )


def _require_subset(subset: Any, known: list[tuple[str, ...]]) -> None:
    if not isinstance(subset, list | tuple) or not subset or len(set(subset)) < len(subset):
        raise BitcornError(f"search.features has {subset!r}: give lists of feature names, as in [[rsi_14, atr_pct]]")
    if known and not any(set(subset) <= set(names) for names in known):
        absent = sorted(set(subset) - set(max(known, key=lambda names: len(set(subset) & set(names)))))
        raise BitcornError(f"search.features: no system has all of these features, {', '.join(absent)} is missing")


def _with_parameters(spec: Any, parameters: Mapping[str, Any]) -> str:
    """Return the spec of a system with the parameters that it has, of those that are searched."""
    if not isinstance(spec, str):
        raise BitcornError(f"system is {spec!r}: name a feature system, such as v2")
    system = find_system(spec)
    own = {name: value for name, value in parameters.items() if name in system.all_parameters}
    return system.with_parameters(**own).spec if own else spec
