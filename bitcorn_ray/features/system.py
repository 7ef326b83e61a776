"""Feature systems: name, version, requirements and computation of a set of features.

A system is declared on a function of bars:

    @feature_system(name="momentum", version=1, warmup=lambda window: window)
    def momentum(bars, *, window=20):
        past = np.concatenate((np.full(window, np.nan), bars.close[:-window]))
        return {"momentum": bars.close / past - 1}

The keyword arguments of the function are the parameters of the system. With the name, version and code they make up its
identity: `momentum.with_parameters(window=50)` is another system with its own features in the cache.
"""

from __future__ import annotations

import inspect
import json
import operator
import os
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.context import closed_bars, context_name, context_reach, last_closed, require_context
from bitcorn_ray.features.reads import require_declared, resolved_files, watched_reads
from bitcorn_ray.market.bars import BAR_COLUMNS, Bars
from bitcorn_ray.market.simulate import simulate_bars

_SAMPLE_BARS = 256  # of a simulated market, to learn the names of undeclared features


@dataclass(frozen=True, kw_only=True)
class FeatureSystem:
    """A named, versioned set of features.

    name, version: identify the definition; raise the version when a formula changes.
    function: T bars, and the parameters as keywords, to a mapping (or frame) of (T,) arrays by feature name. A value
        at bar t may depend on bars up to t only, and on no more than `warmup` bars before t (but see `halo`).
    warmup: number of first bars without a complete row of features; these rows are dropped. A number, or a function of
        the parameters.
    declared: names of the features in order; None learns them by calling the function on simulated bars.
    parameters: passed to the function; plain JSON values.
    halo: for features with unbounded look-back, a function of bars and a row that returns the first row that the
        features from that row on need. By default `warmup` bars before it.
    context: higher timeframes, such as ("4h", "1d"). The same features are also computed on closed bars of these
        timeframes, as `<feature>_4h`.
    inputs: names of further columns that the function reads as `bars.extra[name]`, such as `trades` (see `Bars`). Bars
        without them are refused, and the function sees no others.
    files: paths of files that the function reads; a relative one is in the folder of its module. Their content is part
        of the identity. env: names of environment variables that it reads; so are their values. A function that reads
        anything else is refused, see `reads`.
    step: distance of the bars in milliseconds; required with `context`, see `on_grid`.
    origin: where it can be imported from, as `module:function`; None for a system of the registry.
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
    files: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
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
                f"feature system {self.name!r} reads {', '.join(self.inputs)}, which bars of a higher timeframe do not "
                "have: leave out the context"
            )
        if self.declared is not None:
            self._require_names(self.declared)

    # Requirements

    @cached_property
    def all_parameters(self) -> dict[str, Any]:
        """Return every parameter with its value, defaults included."""
        return {**_defaults(self.function), **self.parameters}

    @cached_property
    def own_warmup(self) -> int:
        """Return the warm-up without the context, in bars."""
        try:
            return operator.index(self.warmup(**self.all_parameters) if callable(self.warmup) else self.warmup)
        except BitcornError:
            raise
        except Exception as error:
            raise BitcornError(
                f"warm-up of feature system {self.name!r} with {self.all_parameters} must be a whole number of bars: "
                f"{type(error).__name__}: {error}"
            ) from error

    @cached_property
    def warmup_bars(self) -> int:
        """Return the number of first bars without a complete row of features."""
        return max([self.own_warmup, *(context_reach(self.own_warmup, self._grid, name) for name in self.context)])

    @cached_property
    def own_features(self) -> tuple[str, ...]:
        """Return the names of the features without those of the context, in order."""
        if self.declared is not None:
            return self.declared
        bars = simulate_bars(self.own_warmup + _SAMPLE_BARS, seed=0, gaps=0)
        bars = replace(bars, extra={name: bars.volume for name in self.inputs})
        found = tuple(map(str, self._call(bars).keys()))
        self._require_names(found)
        return found

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Return the names of the features in order: the own ones, then those of each context."""
        own = self.own_features
        names = (*own, *(context_name(name, timeframe) for timeframe in self.context for name in own))
        self._require_names(names)
        return names

    @property
    def spec(self) -> str:
        """Return the text that names this system in commands and configurations, `v4:short=12:context=4h+1d`."""
        parameters = [f"{name}={_text(value)}" for name, value in sorted(self.parameters.items())]
        context = [f"context={'+'.join(self.context)}"] if self.context else []
        return ":".join([self.origin or self.name, *parameters, *context])

    def first_needed(self, bars: Bars, row: int) -> int:
        """Return the first row that the features from ``row`` on need: the warm-up back or more, or the first bar."""
        return self.first_rows(bars, [row])[0]

    def first_rows(self, bars: Bars, rows: Sequence[int]) -> list[int]:
        """Return `first_needed` of several rows."""
        first = [row - self.warmup_bars for row in rows]
        if self.halo is not None:
            needed = [[self._halo(bars, row) for row in rows]]
            needed += [self._first_of_context(bars, rows, timeframe) for timeframe in self.context]
            first = [min(candidates) for candidates in zip(first, *needed, strict=True)]
        return [max(0, row) for row in first]

    # Variants

    def with_parameters(self, **changes: Any) -> FeatureSystem:
        """Return this system with other parameters. Raises BitcornError for an unknown parameter."""
        return replace(self, parameters={**self.parameters, **changes})

    def with_context(self, *timeframes: str) -> FeatureSystem:
        """Return this system with the features of closed bars of higher timeframes added to its own."""
        return replace(self, context=timeframes)

    def on_grid(self, step: int) -> FeatureSystem:
        """Return this system for bars that are ``step`` milliseconds apart; only a context depends on it.

        Raises BitcornError where a timeframe of the context is not a multiple of the step.
        """
        return replace(self, step=step) if self.context else self

    # Computing

    def matrix(self, bars: Bars) -> NDArray[np.float32]:
        """Return the features (F, T) of T usable bars, NaN in the first `warmup_bars` rows.

        The function is only called with more bars than the warm-up.

        Raises BitcornError for bars that `Bars.require_usable` refuses, and if the function fails or returns anything
        but one value per bar for each feature.
        """
        bars.require_usable()
        bars = bars.with_extra(self.inputs)
        own_names = self.own_features
        out = np.full((len(self.features), len(bars)), np.nan, np.float32)
        if len(bars) <= self.warmup_bars:
            return out
        self._fill(out[: len(own_names)], own_names, bars)
        for number, timeframe in enumerate(self.context, start=1):
            higher = closed_bars(bars, self._grid, timeframe)
            higher_features = np.empty((len(own_names), len(higher)), np.float32)
            self._fill(higher_features, own_names, higher)
            rows, known = last_closed(bars, higher, self._grid, timeframe)
            out[number * len(own_names) : (number + 1) * len(own_names), known] = higher_features[:, rows[known]]
        out[:, : self.warmup_bars] = np.nan
        return out

    def compute(self, bars: Bars) -> dict[str, NDArray[np.float32]]:
        """Return the features of T usable bars, each (T - warmup_bars,): the warm-up rows are dropped.

        Raises BitcornError as `matrix` does, and for too few bars.
        """
        self.require_enough(bars)
        return dict(zip(self.features, self.matrix(bars)[:, self.warmup_bars :], strict=True))

    def require_enough(self, bars: Bars) -> None:
        """Raise BitcornError if the warm-up would leave no row of features."""
        if len(bars) <= self.warmup_bars:
            raise BitcornError(
                f"{len(bars)} bars are too few for the features {self.name}: they need {self.warmup_bars + 1}"
            )

    def __call__(self, bars: Any, **parameters: Any) -> Mapping[str, Any]:
        """Call the declared function."""
        return self.function(bars, **{**self.parameters, **parameters})

    @property
    def _grid(self) -> int:
        if not self.step:
            raise BitcornError(f"feature system {self.name!r} has a context: give the distance of the bars by on_grid")
        return self.step

    def _halo(self, bars: Bars, row: int) -> int:
        assert self.halo is not None
        try:
            return max(0, operator.index(self.halo(bars, row)))
        except Exception as error:
            raise BitcornError(
                f"halo of feature system {self.name!r} at row {row} must be a row: {type(error).__name__}: {error}"
            ) from error

    def _first_of_context(self, bars: Bars, rows: Sequence[int], timeframe: str) -> list[int]:
        """Return the first own rows that the unbounded features of a higher timeframe need at some rows."""
        bars = bars.take(slice(max(rows) + 1))
        higher = closed_bars(bars, self._grid, timeframe)
        if len(higher) == 0:
            return [0] * len(rows)
        newest, closed = last_closed(bars, higher, self._grid, timeframe)
        first = []
        for row in rows:
            if not closed[row]:
                first.append(0)
                continue
            last = int(newest[row])
            needed = self._halo(higher.take(slice(last + 1)), last)
            # One row more: a higher bar at the very start counts as cut.
            first.append(int(np.searchsorted(bars.timestamp, higher.timestamp[needed])) - 1)
        return first

    def _fill(self, out: NDArray[np.float32], names: Sequence[str], bars: Bars) -> None:
        computed = self._call(bars)
        if set(map(str, computed.keys())) != set(names):
            raise BitcornError(
                f"feature system {self.name!r} declares {', '.join(names)} and computed "
                f"{', '.join(map(str, computed.keys()))}: make them the same"
            )
        for row, name in enumerate(names):
            values = _validated(computed[name], name, self.name, len(bars))
            with np.errstate(over="ignore"):  # the audit reports infinite values
                try:
                    out[row] = values
                except (TypeError, ValueError, OverflowError) as error:
                    raise BitcornError(
                        f"feature {name} of {self.name!r} has values that are not numbers: {error}"
                    ) from error

    def _call(self, bars: Bars) -> Mapping[str, Any]:
        with watched_reads() as reads:
            found = _call_feature_function(self.function, self.name, bars, self.parameters)
        require_declared(reads, self.name, resolved_files(self.function, self.files), self.env)
        return found

    def _require_names(self, names: Sequence[str]) -> None:
        if not all(names) or len(set(names)) < max(len(names), 1):
            raise BitcornError(f"feature system {self.name!r} needs features with different names: got {names}")
        if taken := sorted(set(names) & {*BAR_COLUMNS, "symbol", "timeframe"}):
            raise BitcornError(
                f"feature system {self.name!r}: features {taken} have names of bar columns: return no bar columns"
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
    files: Sequence[str] = (),
    env: Sequence[str] = (),
) -> Callable[[Callable[..., Mapping[str, Any]]], FeatureSystem]:
    """Declare a feature system on a function of bars; see `FeatureSystem` for the arguments.

    The function gets `Bars` (read-only arrays `open`, `high`, `low`, `close`, `volume`, `timestamp`; `to_frame()` for
    pandas) and returns a mapping or DataFrame with one value per bar for each feature.
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
            files=tuple(map(str, files)),
            env=tuple(env),
        )

    return declare


# The user's function: it may expect a DataFrame, fail, or return anything


def _call_feature_function(
    function: Callable[..., Any], system: str, bars: Bars, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the output of a system's function for read-only bars by feature name; values are not validated.

    Raises BitcornError if it fails, or returns anything but a mapping or DataFrame with different names.
    """
    try:
        output = function(bars.read_only(), **parameters)
    except BitcornError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}{_failed_line(function, error)}{_advice(error)}"
        raise BitcornError(f"feature system {system!r} failed: {reason}") from error
    if not isinstance(output, Mapping) and not (hasattr(output, "keys") and hasattr(output, "columns")):
        raise BitcornError(
            f"feature system {system!r} returned {type(output).__name__}: return a mapping of feature names to arrays, "
            "or a DataFrame"
        )
    names = Counter(map(str, output.keys()))
    if repeated := [name for name, count in names.items() if count > 1]:
        raise BitcornError(f"feature system {system!r} returned {', '.join(repeated)} twice: use different names")
    return {str(name): output[name] for name in output.keys()}  # noqa: SIM118 - items of a DataFrame differ


def _validated(value: Any, feature: str, system: str, count: int) -> NDArray[Any]:
    """Return the values (T,) of a feature of ``count`` bars: numbers, or objects that may be numbers.

    Raises BitcornError for another shape, for values that are not real numbers, and for rows in another order.
    """
    named, values = f"feature {feature} of {system!r}", np.asarray(value)
    if values.shape != (count,):
        raise BitcornError(
            f"{named} has shape {values.shape} for {count} bars: return one value per bar, NaN if there is none"
        )
    if values.dtype.kind in "cmM":
        raise BitcornError(f"{named} has values that are not real numbers: {values.dtype}; return real ones")
    if np.ma.is_masked(value):
        raise BitcornError(f"{named} has masked values: return NaN instead")
    index: Any = getattr(value, "index", None)  # of a pandas Series; its values are taken by position
    if hasattr(index, "get_level_values") and not index.get_level_values(-1).is_monotonic_increasing:
        raise BitcornError(
            f"{named} is a Series whose index is not increasing, so its rows may not match the bars: sort it "
            "(sort_index), or return its values (to_numpy)"
        )
    return values


def _failed_line(function: Callable[..., Any], error: BaseException) -> str:
    """Return the line of the user's file that failed, if it is known."""
    path = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f" (line {lines[-1]} of {os.path.basename(str(path))})" if lines else ""


def _advice(error: BaseException) -> str:
    """Return a remedy if bars or their arrays were used as a DataFrame or Series."""
    is_array = isinstance(error, AttributeError) and isinstance(error.obj, np.ndarray | Bars)
    if is_array or (isinstance(error, TypeError) and f"'{Bars.__name__}' object" in str(error)):
        return (
            "; bars are not a DataFrame: bars.open, high, low, close, volume and timestamp are NumPy arrays, and "
            "bars.to_frame() returns a DataFrame"
        )
    return ""


def _text(value: Any) -> str:
    """Return a parameter's value as `find_system` parses it: JSON, or a string without quotes."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters of a system's function with their defaults: all arguments after the bars.

    Raises BitcornError for a parameter without a default or with a reserved name.
    """
    arguments = list(inspect.signature(function).parameters.values())
    if not arguments:
        raise BitcornError(f"{function.__qualname__} takes no argument: a feature system is a function of bars")
    without = [parameter.name for parameter in arguments[1:] if parameter.default is parameter.empty]
    if without:
        raise BitcornError(f"parameter {', '.join(without)} of {function.__qualname__} has no default: give it one")
    if any(parameter.name == "context" for parameter in arguments[1:]):
        raise BitcornError(f"{function.__qualname__} has a parameter named context, a reserved name: rename it")
    return {parameter.name: parameter.default for parameter in arguments[1:]}
