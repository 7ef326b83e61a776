"""RunConfig: everything about one training in one YAML file, composed of the configurations that the rooms own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.models.neural.config import ModelConfig, TrainingConfig
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.storage.location import Location, recorded_uri, shown_uri
from bitcorn_ray.storage.nodes import on_a_node, require_lasting

__all__ = ["RunConfig", "read_yaml", "recorded_config", "validated"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training.

    db: database of bars, or any other source of them (see `load_market_data`). symbol: of the partition, or symbols: of
    several that train one model. timeframe: of all. features: name of the feature system. out: folder for the run.
    workers: Ray workers; (least, most) for as many as Ray can give; 0 trains in this process, without Ray. gpus: for
    each worker. table, mapping: how the source is to be read, where its names do not say it. clean: how bars are
    repaired; None repairs nothing but rows of one time. mlflow: address of the MLflow server or folder to log to as
    well, by default MLFLOW_TRACKING_URI where that is set.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    db: str
    timeframe: str
    out: str
    symbol: str | None = None
    symbols: tuple[str, ...] = ()
    features: str = "v2"
    workers: int | tuple[int, int] = 1
    gpus: float = 0
    mlflow: str | None = None
    table: str | None = None
    mapping: dict[str, str] = field(default_factory=dict)
    clean: CleaningPolicy | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if (self.symbol is None) == (not self.symbols):
            told = f"symbol {self.symbol} and symbols {', '.join(self.symbols)}" if self.symbol else "no symbol"
            raise BitcornError(f"the configuration names {told}: give symbol, or symbols for several")
        if isinstance(self.workers, int):
            if self.workers < 0:
                raise BitcornError(f"workers is {self.workers}: it must be at least 1, or 0 to train without Ray")
        elif not 1 <= self.workers[0] <= self.workers[1]:
            raise BitcornError(f"workers is {list(self.workers)}: give the least, at least 1, and then the most")
        require_lasting(self.out, "the folder", "give out a URI or a folder that all nodes share, such as /shared/run")
        if self.gpus < 0:
            raise BitcornError(f"gpus is {self.gpus}: it must be 0 or more")

    @property
    def all_symbols(self) -> tuple[str, ...]:
        """Every symbol that trains the model."""
        return (self.symbol,) if self.symbol is not None else self.symbols

    @property
    def reading(self) -> Reading:
        """How the source is to be read."""
        return Reading.of(self.table, self.mapping, policy=self.clean)

    def to_json(self) -> dict[str, Any]:
        """The same in plain values, as a file would say it."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # tuples are lists there
        return plain

    @classmethod
    def load(cls, path: str | Path | None, overrides: Mapping[str, Any]) -> RunConfig:
        """Read a YAML file, if any, and put ``overrides`` over it; None among these leaves the file's value.

        overrides: nested like the file, `{"db": ..., "model": {"seq_len": ...}}`; a symbol there goes before symbols in
        the file, and the other way round.
        Raises BitcornError for a missing or malformed file, unknown or missing fields, and impossible values.
        """
        values = read_yaml(path) if path else {}
        for one, other in (("symbol", "symbols"), ("symbols", "symbol")):
            if overrides.get(one):
                values.pop(other, None)
        before = f"{shown_uri(path)}: " if path else ""
        made: RunConfig = _made(cls, _merged(values, overrides), each="", before=before)
        return made


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the fields of a YAML file, at a path or URI.

    Raises BitcornError where it is missing, is no YAML or holds no fields.
    """
    import yaml

    shown = shown_uri(path)
    try:
        with Location.of(path).opened() as file:
            values = yaml.safe_load(bytes(file.read())) or {}
    except BitcornError as error:
        ignored = ", or left out by .gitignore or .rayignore of the submitted folder" if on_a_node() else ""
        raise BitcornError(f"no configuration at {shown}: {error}{ignored}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BitcornError(f"{shown} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BitcornError(
            f"{shown_uri(path)} holds {type(values).__name__}, not fields with values such as `db: market.db`"
        )
    return values


def recorded_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in plain values as it may be kept: without the secrets of places, see `recorded_uri`."""
    places = {name: values[name] for name in ("db", "out", "mlflow") if isinstance(values.get(name), str)}
    return {**values, **{name: recorded_uri(place) for name, place in places.items()}}


def validated(kind: Any, values: Any, where: str) -> Any:
    """Make a configuration, or any other type, of plain values. where: names these, for messages.

    Raises BitcornError for unknown or missing fields and impossible values.
    """
    return _made(kind, values, each=f"{where}: ")


def _made(kind: Any, values: Any, each: str, before: str = "") -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise BitcornError(before + "; ".join(each + _explain(problem) for problem in error.errors())) from error


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        if isinstance(value, Mapping):
            inner = merged.get(name) or {}
            merged[name] = _merged(inner, value) if isinstance(inner, Mapping) else inner
        elif value is not None:
            merged[name] = value
    return merged


def _explain(problem: Any) -> str:
    """Say in a line what pydantic found wrong with a field, one of `ValidationError.errors()`."""
    # Which of the types that a field may have did not fit is of no use to anyone.
    place = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("tuple", "literal", "int")))
    if problem["type"] == "missing":
        return f"{place} is missing: give it in the file or as an option"
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown field {place}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
