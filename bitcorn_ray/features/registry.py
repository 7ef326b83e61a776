"""Feature systems by name: what each is called, which version it is, what it needs, and how it is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features import v2
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.columns import BAR_COLUMNS

__all__ = ["SYSTEMS", "FeatureRegistry", "FeatureSystem"]


@dataclass(frozen=True, kw_only=True)
class FeatureSystem:
    """A named, versioned set of features.

    name, version: identify the definition; raise the version when a formula changes.
    features: names in order. inputs: the bar columns that the formulas read.
    warmup: how many first bars have no complete row of features; these rows are dropped.
    function: T bars to (T,) arrays by feature name. A value at bar t may depend on bars up to t only.
    parameters: what the function was made with, as JSON values; part of every cache key.
    """

    name: str
    version: int
    features: tuple[str, ...]
    inputs: tuple[str, ...]
    warmup: int
    function: Callable[[Bars], Mapping[str, NDArray[Any]]]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise BitcornError(f"feature system {self.name!r}: the name must be letters, digits and underscores")
        if self.warmup < 0:
            raise BitcornError(f"feature system {self.name!r}: warmup is {self.warmup}, it must be 0 or more")
        if unknown := set(self.inputs) - set(BAR_COLUMNS):
            raise BitcornError(f"feature system {self.name!r}: unknown inputs {sorted(unknown)}")
        if taken := set(self.features) & set(BAR_COLUMNS):
            raise BitcornError(f"feature system {self.name!r}: features {sorted(taken)} have the names of bar columns")

    def compute(self, bars: Bars) -> dict[str, NDArray[np.float32]]:
        """Features of T usable bars as float32, each (T - warmup,): the warm-up rows are dropped.

        Raises BitcornError for bars that `Bars.require_usable` refuses, and for no more bars than the warm-up.
        """
        bars.require_usable()
        if len(bars) <= self.warmup:
            raise BitcornError(f"{len(bars)} bars are too few for features {self.name}: it needs {self.warmup + 1}")
        computed = self.function(bars)
        return {name: np.asarray(computed[name][self.warmup :], dtype=np.float32) for name in self.features}


class FeatureRegistry:
    """Feature systems by name."""

    def __init__(self, systems: tuple[FeatureSystem, ...] = ()) -> None:
        self._systems = {system.name: system for system in systems}

    def register(self, system: FeatureSystem) -> None:
        """Add a system. Raises BitcornError where another one has its name."""
        if self._systems.get(system.name, system) != system:
            raise BitcornError(f"feature system {system.name!r} is declared already: choose another name")
        self._systems[system.name] = system

    def __getitem__(self, name: str) -> FeatureSystem:
        """Return the system of a name. Raises BitcornError, naming those that exist, for an unknown one."""
        if name not in self._systems:
            raise BitcornError(
                f"unknown feature system {name!r}: there is {', '.join(sorted(self._systems)) or 'none'}"
            )
        return self._systems[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._systems)


SYSTEMS = FeatureRegistry(
    (
        FeatureSystem(
            name="v2",
            version=v2.VERSION,
            features=v2.FEATURES,
            inputs=("high", "low", "close"),
            warmup=v2.WARMUP,
            function=v2.compute,
        ),
    )
)
