"""The configuration of one training, in one YAML file, composed of the configurations of its parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.models.base import ModelConfig
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.models.registry import model_config
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.storage.location import Location, recorded_uri, require_persistent, shown_uri, under_ray


def _parse_model(value: Any) -> Any:
    return model_config(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training.

    db: database or other source of bars (see `load_market_data`). symbol: of the partition, or symbols: of several that
    train one model. timeframe: of all. features: name of the feature system. out: folder for the run. workers: Ray
    workers; (least, most) for as many as Ray can give; 0 trains in this process, without Ray. gpus: for each worker.
    table, mapping, time_format, timezone: options for reading the source, see `SourceOptions.of`. clean: how to repair
    bars; None only keeps the last of rows with equal times. mlflow: address of the MLflow server or folder to log to as
    well, by default MLFLOW_TRACKING_URI. model: its `kind` decides its fields, see `models.registry`.
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
    time_format: str | None = None
    timezone: str | None = None
    clean: CleaningPolicy | None = None
    model: Annotated[ModelConfig, BeforeValidator(_parse_model)] = field(default_factory=LSTMConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if (self.symbol is None) == (not self.symbols):
            given = f"symbol {self.symbol} and symbols {', '.join(self.symbols)}" if self.symbol else "no symbol"
            raise BitcornError(f"the configuration has {given}: give symbol, or symbols for several")
        if isinstance(self.workers, int):
            if self.workers < 0:
                raise BitcornError(f"workers is {self.workers}: it must be at least 1, or 0 to train without Ray")
        elif not 1 <= self.workers[0] <= self.workers[1]:
            raise BitcornError(f"workers is {list(self.workers)}: give the least, at least 1, and then the most")
        require_persistent(
            self.out, "the folder", "give out a URI or a folder that all nodes share, such as /shared/run"
        )
        if self.gpus < 0:
            raise BitcornError(f"gpus is {self.gpus}: it must be 0 or more")

    @property
    def all_symbols(self) -> tuple[str, ...]:
        """Return all symbols that train the model."""
        return (self.symbol,) if self.symbol is not None else self.symbols

    @property
    def source_options(self) -> SourceOptions:
        """Return the options for reading the source."""
        return SourceOptions.of(
            self.table, self.mapping, policy=self.clean, time_format=self.time_format, timezone=self.timezone
        )

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain values, as in a file."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # tuples are lists there
        return plain

    @classmethod
    def load(cls, path: str | Path | None, overrides: Mapping[str, Any]) -> RunConfig:
        """Return the configuration of a YAML file, if any, with ``overrides``; None keeps the file's value.

        overrides: nested like the file, `{"db": ..., "model": {"seq_len": ...}}`; a symbol there replaces symbols in
        the file, and the other way round.
        Raises BitcornError for a missing or malformed file, unknown or missing fields, and impossible values.
        """
        values = read_yaml(path) if path else {}
        for one, other in (("symbol", "symbols"), ("symbols", "symbol")):
            if overrides.get(one):
                values.pop(other, None)
        config: RunConfig = _validated(cls, _merged(values, overrides), f"{shown_uri(path)}: " if path else "")
        return config


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the fields of a YAML file at a path or URI.

    Raises BitcornError if it is missing, not valid YAML or has no fields.
    """
    import yaml

    shown = shown_uri(path)
    try:
        with Location.of(path).opened() as file:
            values = yaml.safe_load(bytes(file.read())) or {}
    except BitcornError as error:
        ignored = ", or left out by .gitignore or .rayignore of the submitted folder" if under_ray() else ""
        raise BitcornError(f"no configuration at {shown}: {error}{ignored}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BitcornError(f"{shown} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BitcornError(
            f"{shown_uri(path)} holds {type(values).__name__}, not fields with values such as `db: market.db`"
        )
    return values


def recorded_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in plain values without the secrets of its URIs, see `recorded_uri`."""
    uris = {name: values[name] for name in ("db", "out", "mlflow") if isinstance(values.get(name), str)}
    return {**values, **{name: recorded_uri(uri) for name, uri in uris.items()}}


def validated(kind: Any, values: Any, where: str) -> Any:
    """Return a configuration, or another type, made of plain values. where: names the values in messages.

    Raises BitcornError for unknown or missing fields and impossible values.
    """
    return _validated(kind, values, "", f"{where}: ")


def _validated(kind: Any, values: Any, prefix: str, problem_prefix: str = "") -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problems = "; ".join(problem_prefix + _explain(problem) for problem in error.errors())
        raise BitcornError(prefix + problems) from error


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
    """Return one line about an error of pydantic, one of `ValidationError.errors()`."""
    # The alternatives of a union are noise in a message.
    name = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("tuple", "literal", "int")))
    if problem["type"] == "missing":
        return f"{name} is missing: give it in the file or as an option"
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown field {name}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name and f"{name}." not in message else message
