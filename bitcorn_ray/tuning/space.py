"""The search space of a sweep: dimensions by the dotted names of fields, and the points that they span.

    choice, grid         one of some values, of any kind: {choice: [16, 32]}
    int                  an integer: {int: [8, 64]}, or with a step {int: [8, 64, 8]}; both ends are included
    uniform, loguniform  a number between two: {loguniform: [1e-4, 1e-2]}

A point is a plain mapping from names to values, which JSON can hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from bitcorn_ray.errors import BitcornError

Point = dict[str, Any]

SEQ_LEN = ("seq_len", "model.seq_len")  # names of the window length
KINDS = ("choice", "grid", "int", "uniform", "loguniform")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """A field that is searched.

    name: of the field, such as "model.hidden_size". kind: one of `KINDS`. values: the values of a choice or grid;
    otherwise the minimum, the maximum, and for an int optionally a step.
    Raises BitcornError for values that make no range.
    """

    name: str
    kind: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        shown = f"{self.name} is searched by {self.kind} over {list(self.values)}"
        if self.kind not in KINDS:
            raise BitcornError(f"{shown}: use one of {', '.join(KINDS)}")
        if self.is_choice:
            if not self.values or len({point_key({"": value}) for value in self.values}) < len(self.values):
                raise BitcornError(f"{shown}: give at least one value, and different values")
            return
        number = int if self.kind == "int" else (int, float)
        lengths = (2, 3) if self.kind == "int" else (2,)
        if len(self.values) not in lengths or not all(
            isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value) for value in self.values
        ):
            kind = "integers" if self.kind == "int" else "numbers"
            raise BitcornError(f"{shown}: give the minimum and the maximum as {kind}")
        low, high, *step = self.values
        if low >= high or (self.kind == "loguniform" and low <= 0) or (step and step[0] < 1):
            above = ", above 0" if self.kind == "loguniform" else ""
            raise BitcornError(f"{shown}: give the minimum{above}, then a greater maximum")

    @classmethod
    def parse(cls, name: str, given: Any) -> Dimension:
        """Return the dimension of `{choice: [...]}`. Raises BitcornError for anything else."""
        if not isinstance(given, Mapping) or len(given) != 1:
            raise BitcornError(
                f"search.{name} is {given!r}: give one of {', '.join(KINDS)}, as in {{choice: [16, 32]}}"
            )
        ((kind, values),) = given.items()
        if not isinstance(values, list | tuple):
            raise BitcornError(f"search.{name}.{kind} is {values!r}: give a list, as in {{choice: [16, 32]}}")
        # YAML reads 1e-4, without a point, as text.
        numbers = [_number(value) if kind in ("int", "uniform", "loguniform") else value for value in values]
        return cls(name=name, kind=str(kind), values=tuple(numbers))

    @property
    def is_choice(self) -> bool:
        """Return True if the values are listed."""
        return self.kind in ("choice", "grid")

    @property
    def options(self) -> Sequence[Any] | None:
        """Return all values in order, None for a continuous range."""
        if self.kind == "int":
            low, high, *step = self.values
            return range(low, high + 1, *step)
        return self.values if self.is_choice else None

    @property
    def extremes(self) -> Sequence[Any]:
        """Return the values to check: all of a choice, otherwise both ends."""
        return self.values if self.is_choice else self.values[:2]


@dataclass(frozen=True)
class Space:
    """The product of dimensions. Without any it has one point, the configuration itself."""

    dimensions: tuple[Dimension, ...] = ()

    @classmethod
    def parse(cls, given: Any) -> Space:
        """Return the space of a mapping from names to dimensions. Raises BitcornError for anything else."""
        if not isinstance(given or {}, Mapping):
            raise BitcornError(f"search is {given!r}: give fields, as in `model.hidden_size: {{choice: [16, 32]}}`")
        return cls(tuple(Dimension.parse(str(name), values) for name, values in (given or {}).items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the fields, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def size(self) -> int | None:
        """Return the number of points, None for a continuous space."""
        counts = [None if dimension.options is None else len(dimension.options) for dimension in self.dimensions]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def only(self, condition: Callable[[Dimension], bool]) -> Space:
        """Return the space of the dimensions for which a condition is true."""
        return Space(tuple(filter(condition, self.dimensions)))

    def maximum(self, names: Sequence[str], default: int) -> int:
        """Return the greatest value of an integer field with one of these names, or a default if none is searched."""
        searched = [value for dimension in self.dimensions if dimension.name in names for value in dimension.extremes]
        return max(searched, default=default)

    def points(self, most: int | None = None) -> Iterator[Point]:
        """Yield all points, the last dimension fastest. most: how many at most.

        Raises BitcornError for a continuous space.
        """
        options = []
        for dimension in self.dimensions:
            if dimension.options is None:
                raise BitcornError(
                    f"{dimension.name} is searched by {dimension.kind}, which no grid can cover: use choice or int, "
                    "or another search"
                )
            options.append(dimension.options)
        return islice((dict(zip(self.names, values, strict=True)) for values in product(*options)), most)


def point_key(point: Mapping[str, Any]) -> str:
    """Return a text that is the same for equal points.

    >>> point_key({"b": (1, 2), "a": 0.5})
    '{"a": 0.5, "b": [1, 2]}'
    """
    return json.dumps(point, sort_keys=True, default=str)


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
