"""Feature systems: what each is called, which version it is, what it needs, and how it is computed.

A system is declared on a function of bars:

    @feature_system(name="momentum", version=1, warmup=lambda window: window)
    def momentum(bars, *, window=20):
        past = np.concatenate((np.full(window, np.nan), bars.close[:-window]))
        return {"momentum": bars.close / past - 1}

The keyword arguments of the function are the parameters of the system. Together with name, version and code they are
its identity: `momentum.with_parameters(window=50)` is another system with features of its own in the cache.
"""

from __future__ import annotations

import inspect
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.answer import ask, values_of
from bitcorn_ray.features.context import closed_bars, context_name, context_reach, last_closed, require_context
from bitcorn_ray.market.bars import BAR_COLUMNS, Bars
from bitcorn_ray.market.simulate import simulate_bars

__all__ = ["FeatureSystem", "feature_system"]

_SAMPLE_BARS = 256  # of a simulated market, to learn the names of features that are not declared


@dataclass(frozen=True, kw_only=True)
class FeatureSystem:
    """A named, versioned set of features.

    name, version: identify the definition; raise the version when a formula changes.
    function: T bars, and the parameters as keywords, to a mapping (or frame) of (T,) arrays by feature name. A value
        at bar t may depend on bars up to t only, and on no more than `warmup` bars before t (but see `halo`).
    warmup: how many first bars have no complete row of features; these rows are dropped. A number, or a function of
        the parameters.
    declared: names of the features in order; None asks the function, on simulated bars.
    parameters: passed to the function; plain JSON values.
    halo: for features that look back without a bound: bars and a row to the first row that the features from there on
        need. By default `warmup` bars.
    context: higher timeframes, such as ("4h", "1d"). The same features, computed on bars of these timeframes that have
        closed, stand beside the own ones as `<feature>_4h`.
    inputs: names of further columns of the bars that the function reads as `bars.extra[name]`, such as `trades` (see
        `Bars`). Bars without them are refused; it sees no others.
    step: distance of the bars in milliseconds; needed with `context`, see `on_grid`.
    origin: where it can be imported from, as `module:function`; None for a system that is known by its name.
    """

    name: str
    version: int
    function: Callable[..., Mapping[str, Any]]
    warmup: int | Callable[..., int]
    declared: tuple[str, ...] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    halo: Callable[[Bars, int], int] | None = None
    context: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    step: int | None = None
    origin: str | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise BitcornError(f"feature system {self.name!r}: the name must be letters, digits and underscores")
        if unknown := sorted(set(self.parameters) - set(_defaults(self.function))):
            known = ", ".join(_defaults(self.function)) or "none"
            raise BitcornError(f"feature system {self.name!r} has no parameter {', '.join(unknown)}: it has {known}")
        if self.own_warmup < 0:
            raise BitcornError(f"feature system {self.name!r}: warmup is {self.own_warmup}, it must be 0 or more")
        require_context(self.context, self.step)
        if self.context and self.inputs:
            raise BitcornError(
                f"feature system {self.name!r} reads {', '.join(self.inputs)}, of which bars of a higher timeframe are "
                "not known: leave out the context"
            )
        if self.declared is not None:
            self._require_names(self.declared)

    # What it needs

    @cached_property
    def all_parameters(self) -> dict[str, Any]:
        """Every parameter with its value, defaults included."""
        return {**_defaults(self.function), **self.parameters}

    @cached_property
    def own_warmup(self) -> int:
        """The warm-up without the context, in bars."""
        try:
            return operator.index(self.warmup(**self.all_parameters) if callable(self.warmup) else self.warmup)
        except BitcornError:
            raise
        except Exception as error:
            raise BitcornError(
                f"warm-up of feature system {self.name!r} with {self.all_parameters} is no whole number of bars: "
                f"{type(error).__name__}: {error}"
            ) from error

    @cached_property
    def warmup_bars(self) -> int:
        """How many first bars have no complete row of features."""
        return max([self.own_warmup, *(context_reach(self.own_warmup, self._grid, name) for name in self.context)])

    @cached_property
    def own_features(self) -> tuple[str, ...]:
        """Names of the features without those of the context, in order."""
        if self.declared is not None:
            return self.declared
        bars = simulate_bars(self.own_warmup + _SAMPLE_BARS, seed=0, gaps=0)
        bars = replace(bars, extra={name: bars.volume for name in self.inputs})
        found = tuple(map(str, self._call(bars).keys()))
        self._require_names(found)
        return found

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of the features in order: the own ones, then those of each context."""
        own = self.own_features
        names = (*own, *(context_name(name, timeframe) for timeframe in self.context for name in own))
        self._require_names(names)
        return names

    @property
    def spec(self) -> str:
        """The text that names this system in commands and configurations, `v4:short=12:context=4h+1d`."""
        given = [f"{name}={_text(value)}" for name, value in sorted(self.parameters.items())]
        context = [f"context={'+'.join(self.context)}"] if self.context else []
        return ":".join([self.origin or self.name, *given, *context])

    def first_needed(self, bars: Bars, row: int) -> int:
        """First row that the features from ``row`` on need: at least the warm-up back, or the start of the bars."""
        return self.first_rows(bars, [row])[0]

    def first_rows(self, bars: Bars, rows: Sequence[int]) -> list[int]:
        """Return `first_needed` of several rows."""
        first = [row - self.warmup_bars for row in rows]
        if self.halo is not None:
            looked_back = [[self._halo(bars, row) for row in rows]]
            looked_back += [self._first_of_context(bars, rows, timeframe) for timeframe in self.context]
            first = [min(each) for each in zip(first, *looked_back, strict=True)]
        return [max(0, row) for row in first]

    # Variants

    def with_parameters(self, **changes: Any) -> FeatureSystem:
        """Return this system with other parameters. Raises BitcornError for one that it does not have."""
        return replace(self, parameters={**self.parameters, **changes})

    def with_context(self, *timeframes: str) -> FeatureSystem:
        """Return this system with the features of closed bars of higher timeframes beside its own."""
        return replace(self, context=timeframes)

    def on_grid(self, step: int) -> FeatureSystem:
        """Return this system for bars that are ``step`` milliseconds apart; only a context depends on it.

        Raises BitcornError where a timeframe of the context is no multiple of the step.
        """
        return replace(self, step=step) if self.context else self

    # Computing

    def matrix(self, bars: Bars) -> NDArray[np.float32]:
        """Features (F, T) of T usable bars, NaN in the first `warmup_bars` rows.

        The function is called with more bars than these, or not at all.

        Raises BitcornError for bars that `Bars.require_usable` refuses, and where the function fails or returns
        anything but one value a bar for each feature.
        """
        bars.require_usable()
        bars = bars.with_extra(self.inputs)
        own_names = self.own_features
        out = np.full((len(self.features), len(bars)), np.nan, np.float32)
        if len(bars) <= self.warmup_bars:
            return out  # the function never sees fewer bars than it declared to need
        self._fill(out[: len(own_names)], own_names, bars)
        for place, timeframe in enumerate(self.context, start=1):
            higher = closed_bars(bars, self._grid, timeframe)
            of_higher = np.empty((len(own_names), len(higher)), np.float32)
            self._fill(of_higher, own_names, higher)
            rows, known = last_closed(bars, higher, self._grid, timeframe)
            out[place * len(own_names) : (place + 1) * len(own_names), known] = of_higher[:, rows[known]]
        out[:, : self.warmup_bars] = np.nan
        return out

    def compute(self, bars: Bars) -> dict[str, NDArray[np.float32]]:
        """Features of T usable bars, each (T - warmup_bars,): the warm-up rows are dropped.

        Raises BitcornError as `matrix` does, and for no more bars than the warm-up.
        """
        self.require_enough(bars)
        return dict(zip(self.features, self.matrix(bars)[:, self.warmup_bars :], strict=True))

    def require_enough(self, bars: Bars) -> None:
        """Raise BitcornError for bars of which no row of features would be left."""
        if len(bars) <= self.warmup_bars:
            raise BitcornError(
                f"{len(bars)} bars are too few for features {self.name}: it needs {self.warmup_bars + 1}"
            )

    def __call__(self, bars: Any, **parameters: Any) -> Mapping[str, Any]:
        """Call the declared function."""
        return self.function(bars, **{**self.parameters, **parameters})

    @property
    def _grid(self) -> int:
        if not self.step:
            raise BitcornError(f"feature system {self.name!r} has a context: say the distance of the bars by on_grid")
        return self.step

    def _halo(self, bars: Bars, row: int) -> int:
        assert self.halo is not None
        try:
            return max(0, operator.index(self.halo(bars, row)))
        except Exception as error:
            raise BitcornError(
                f"halo of feature system {self.name!r} at row {row} is no row: {type(error).__name__}: {error}"
            ) from error

    def _first_of_context(self, bars: Bars, rows: Sequence[int], timeframe: str) -> list[int]:
        """First own rows that the unbounded features of a higher timeframe need at some rows."""
        bars = bars.take(slice(max(rows) + 1))
        higher = closed_bars(bars, self._grid, timeframe)
        if len(higher) == 0:
            return [0] * len(rows)
        assert bars.timestamp is not None
        assert higher.timestamp is not None
        newest, closed = last_closed(bars, higher, self._grid, timeframe)
        first = []
        for row in rows:
            place = int(newest[row])
            # One row more: the bar in front would be cut by where the bars begin.
            reach = self._halo(higher.take(slice(place + 1)), place) if closed[row] else None
            first.append(0 if reach is None else int(np.searchsorted(bars.timestamp, higher.timestamp[reach])) - 1)
        return first

    def _fill(self, out: NDArray[np.float32], names: Sequence[str], bars: Bars) -> None:
        computed = self._call(bars)
        if set(map(str, computed.keys())) != set(names):
            raise BitcornError(
                f"feature system {self.name!r} declares {', '.join(names)} and computed "
                f"{', '.join(map(str, computed.keys()))}: make them the same"
            )
        for place, name in enumerate(names):
            values = values_of(computed[name], name, self.name, len(bars))
            with np.errstate(over="ignore"):  # an infinite value is told by the audit
                try:
                    out[place] = values
                except (TypeError, ValueError, OverflowError) as error:
                    raise BitcornError(
                        f"feature {name} of {self.name!r} holds values that are no numbers: {error}"
                    ) from error

    def _call(self, bars: Bars) -> Mapping[str, Any]:
        return ask(self.function, self.name, bars, self.parameters)

    def _require_names(self, names: Sequence[str]) -> None:
        if not all(names) or len(set(names)) < max(len(names), 1):
            raise BitcornError(f"feature system {self.name!r} needs features with names of their own: got {names}")
        if taken := sorted(set(names) & {*BAR_COLUMNS, "symbol", "timeframe"}):
            raise BitcornError(
                f"feature system {self.name!r}: features {taken} have the names of bar columns; return no bar columns"
            )


def feature_system(
    *,
    name: str,
    version: int = 1,
    warmup: int | Callable[..., int],
    features: Sequence[str] | None = None,
    context: Sequence[str] = (),
    halo: Callable[[Bars, int], int] | None = None,
    inputs: Sequence[str] = (),
) -> Callable[[Callable[..., Mapping[str, Any]]], FeatureSystem]:
    """Declare a feature system on a function of bars; see `FeatureSystem` for what is declared.

    The function gets `Bars` (read-only arrays `open`, `high`, `low`, `close`, `volume`, `timestamp`; `to_frame()` for
    pandas) and returns a mapping or a frame of one value a bar for each feature.
    """

    def declare(function: Callable[..., Mapping[str, Any]]) -> FeatureSystem:
        return FeatureSystem(
            name=name,
            version=version,
            function=function,
            warmup=warmup,
            declared=None if features is None else tuple(features),
            context=tuple(context),
            halo=halo,
            inputs=tuple(inputs),
        )

    return declare


def _text(value: Any) -> str:
    """A parameter's value as `find_system` reads it back: JSON, and plain text as it is."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Parameters of a system's function: all after the bars; each has a default."""
    given = list(inspect.signature(function).parameters.values())
    if not given:
        raise BitcornError(f"{function.__qualname__} takes no argument: a feature system is a function of bars")
    without = [parameter.name for parameter in given[1:] if parameter.default is parameter.empty]
    if without:
        raise BitcornError(f"parameter {', '.join(without)} of {function.__qualname__} has no default: give it one")
    if any(parameter.name == "context" for parameter in given[1:]):
        raise BitcornError(f"{function.__qualname__} has a parameter named context, which means higher timeframes here")
    return {parameter.name: parameter.default for parameter in given[1:]}
