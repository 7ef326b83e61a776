"""Feature systems by name, and by the text that names one in commands and configurations."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.combined import is_combined, parse_combined
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.features.systems import v2, v4, vol

SYSTEMS: dict[str, FeatureSystem] = {
    "v2": FeatureSystem(
        name="v2", version=v2.VERSION, function=v2.compute, warmup=v2.WARMUP, declared=v2.FEATURES, halo=v2.halo
    ),
    "v4": FeatureSystem(name="v4", version=v4.VERSION, function=v4.compute, warmup=v4.warmup, declared=v4.FEATURES),
    "vol": FeatureSystem(name="vol", version=vol.VERSION, function=vol.compute, warmup=vol.warmup),
}
"""The feature systems of this package by name."""


def find_system(spec: str | FeatureSystem, registry: Mapping[str, FeatureSystem] | None = None) -> FeatureSystem:
    """Return the system that a text names: a name or `module:function`, then parameters, `v4:short=12:context=4h+1d`.

    Features of several systems are `v2[rsi_14]+v4:short=12[adx]`, or a JSON file with such a text, see `combined`.
    registry: systems by name, by default `SYSTEMS`.
    Raises BitcornError for an unknown name, a module that cannot be imported, and unknown parameters.
    """
    if isinstance(spec, FeatureSystem):
        return spec
    if is_combined(spec):
        return parse_combined(spec, lambda parent: find_system(parent, registry))
    registry = SYSTEMS if registry is None else registry
    named, parameters = _parse(spec)
    first = named.partition(":")[0]
    if ":" in named and first in registry:
        raise BitcornError(f"feature system {spec!r} is invalid: write a parameter of {first} as {first}:name=value")
    if ":" not in named and named not in registry:
        known = ", ".join(sorted(registry)) or "none"
        raise BitcornError(f"unknown feature system {named!r}: choose {known}, or module:function for your own")
    system = _imported(named) if ":" in named else registry[named]
    context = parameters.pop("context", None)
    if parameters:
        system = system.with_parameters(**parameters)
    return system if context is None else system.with_context(*str(context).split("+"))


def _parse(spec: str) -> tuple[str, dict[str, Any]]:
    parts = spec.split(":")
    names = [part for part in parts if "=" not in part]
    assigned = [part.partition("=") for part in parts if "=" in part]
    repeated = len({name for name, _, _ in assigned}) < len(assigned)
    if parts[: len(names)] != names or len(names) not in (1, 2) or not all(names) or repeated:
        raise BitcornError(f"feature system {spec!r} is invalid: write it as v4:short=12 or module:function")
    return ":".join(names), {name.strip(): _value(text) for name, _, text in assigned}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _imported(origin: str) -> FeatureSystem:
    module_name, _, attribute = origin.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise BitcornError(
            f"module {module_name!r} of feature system {origin!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    system = getattr(module, attribute, None)
    if system is None:
        raise BitcornError(f"module {module_name!r} has no {attribute!r}")
    if not isinstance(system, FeatureSystem):
        raise BitcornError(f"{origin} is not a feature system: declare the function with @feature_system")
    return replace(system, origin=origin)
