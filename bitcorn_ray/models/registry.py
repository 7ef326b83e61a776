"""The models by kind. A model is imported when it is first used, so that a baseline does not load torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.fingerprint.syntax import digest_of

if TYPE_CHECKING:
    from bitcorn_ray.models.base import Model, ModelConfig

# The configuration and the model of each kind, as module:Class.
_KINDS = {
    "lstm": ("neural.config:LSTMConfig", "neural.model:NetworkModel"),
    "gru": ("neural.config:GRUConfig", "neural.model:NetworkModel"),
    "tcn": ("neural.config:TCNConfig", "neural.model:NetworkModel"),
    "boosting": ("boosting:BoostingConfig", "boosting:Boosting"),
    "random_walk": ("baselines.simple:RandomWalkConfig", "baselines.simple:RandomWalk"),
    "constant": ("baselines.simple:ConstantConfig", "baselines.simple:Constant"),
    "ewma": ("baselines.simple:EWMAConfig", "baselines.simple:EWMA"),
    "garch": ("baselines.garch:GARCHConfig", "baselines.garch:GARCH"),
    "har": ("baselines.har:HARConfig", "baselines.har:HAR"),
    "strong_har": ("baselines.har:StrongHARConfig", "baselines.har:StrongHAR"),
    "ridge": ("baselines.ridge:RidgeConfig", "baselines.ridge:Ridge"),
}
KINDS = tuple(_KINDS)


def config_class(kind: str) -> type[ModelConfig]:
    """Return the configuration class of a kind, or of a model given as `module:Class`.

    Raises BitcornError for an unknown kind.
    """
    if kind in _KINDS:
        found: type[ModelConfig] = _load(_KINDS[kind][0])
        return found
    own: type[ModelConfig] = _own_model(kind).Config
    return own


def model_class(kind: str) -> type[Model]:
    """Return the model class of a kind, or of a model given as `module:Class`.

    Raises BitcornError for an unknown kind.
    """
    if kind in _KINDS:
        found: type[Model] = _load(_KINDS[kind][1])
        return found
    return _own_model(kind)


def own_code(kind: str) -> dict[str, str]:
    """Return a digest of the code of a model given as `module:Class`, by the kind; empty for a model of this package.

    Raises BitcornError for a model whose code has no stable identity.
    """
    if kind in _KINDS:
        return {}
    from bitcorn_ray.fingerprint.code import code_identity

    code = code_identity(model_class(kind))
    modules = [item for item in code.modules.items() if item[0].partition(".")[0] != "bitcorn_ray"]
    return {kind: digest_of([f"{name} {digest}" for name, digest in [*modules, *code.values.items()]])}


def model_config(values: Mapping[str, Any], where: str = "model") -> ModelConfig:
    """Return the configuration of plain values, whose fields are checked by the kind.

    values: with `kind`; without it the kind is `lstm`, or the `cell` that older configurations have. where: names the
    values in messages.
    Raises BitcornError for an unknown kind, a field that the kind does not have, and impossible values.
    """
    from pydantic import TypeAdapter, ValidationError

    fields = dict(values)
    cell = fields.pop("cell", None)
    kind = fields.setdefault("kind", cell or "lstm")
    if not isinstance(kind, str):
        raise BitcornError(f"{where}.kind is {kind!r}: use one of {', '.join(KINDS)}, or module:Class")
    if cell is not None and cell != kind:
        raise BitcornError(f"{where} has cell {cell!r} and kind {kind!r}: give kind alone")
    made = config_class(kind)
    known = [item.name for item in dataclass_fields(made)]
    if unknown := [f"{where}.{name}" for name in fields if name not in known]:
        raise BitcornError(f"unknown field {', '.join(unknown)}: kind {kind} has {', '.join(known)}")
    try:
        return TypeAdapter(made).validate_python(fields)
    except ValidationError as error:
        raise BitcornError("; ".join(_explain(where, problem) for problem in error.errors())) from error


def _explain(where: str, problem: Any) -> str:
    names = [str(part) for part in problem["loc"] if not str(part).startswith(("tuple", "literal", "int"))]
    message = problem["msg"].removeprefix("Value error, ")
    return f"{'.'.join([where, *names])}: {message}"


def _own_model(kind: str) -> type[Model]:
    """Return a user's model class."""
    module, colon, name = kind.partition(":")
    if not colon:
        raise BitcornError(f"unknown model kind {kind!r}: use one of {', '.join(KINDS)}, or module:Class")
    try:
        found: type[Model] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BitcornError(f"the model {kind!r} cannot be imported: {error}") from error
    return found


@cache
def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(f"bitcorn_ray.models.{module}"), name)
