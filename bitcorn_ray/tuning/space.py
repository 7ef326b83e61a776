"""What a sweep searches: dimensions by the dotted names of fields, and the points of the space that they span.

    choice, grid        one of some values, of any kind: {choice: [16, 32]}
    int                 a whole number: {int: [8, 64]}, or with a step {int: [8, 64, 8]}; both ends belong to it
    uniform, loguniform a number between two: {loguniform: [1e-4, 1e-2]}

A point is a plain mapping from names to values, so that it goes into JSON as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from bitcorn_ray.errors import BitcornError

Point = dict[str, Any]

SEQ_LEN = ("seq_len", "model.seq_len")  # names of the length of windows
KINDS = ("choice", "grid", "int", "uniform", "loguniform")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One field that is searched.

    name: of the field, such as "model.hidden_size". kind: one of `KINDS`. values: the values of a choice or grid; else
    the least and the greatest, and for an int its step.
    Raises BitcornError for values that make no range.
    """

    name: str
    kind: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        shown = f"{self.name} is searched by {self.kind} over {list(self.values)}"
        if self.kind not in KINDS:
            raise BitcornError(f"{shown}: use one of {', '.join(KINDS)}")
        if self.kind in ("choice", "grid"):
            if not self.values or len({point_key({"": value}) for value in self.values}) < len(self.values):
                raise BitcornError(f"{shown}: give different values, at least one")
            return
        number = int if self.kind == "int" else (int, float)
        lengths = (2, 3) if self.kind == "int" else (2,)
        if len(self.values) not in lengths or not all(
            isinstance(value, number) and not isinstance(value, bool) and math.isfinite(value) for value in self.values
        ):
            raise BitcornError(f"{shown}: give the least and the greatest{' whole' * (number is int)} number")
        low, high, *step = self.values
        if low >= high or (self.kind == "loguniform" and low <= 0) or (step and step[0] < 1):
            above = ", above 0" if self.kind == "loguniform" else ""
            raise BitcornError(f"{shown}: the least{above} must come first, and below the greatest")

    @classmethod
    def parse(cls, name: str, given: Any) -> Dimension:
        """Read `{choice: [...]}`. Raises BitcornError for anything else."""
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
    def options(self) -> Sequence[Any] | None:
        """All values that it may have, in order; None where they are a continuum."""
        if self.kind in ("choice", "grid"):
            return self.values
        if self.kind == "int":
            low, high, *step = self.values
            return range(low, high + 1, *step)
        return None

    @property
    def corners(self) -> Sequence[Any]:
        """Values that stand for all: each of a choice, or both ends."""
        return self.values if self.kind in ("choice", "grid") else self.values[:2]


@dataclass(frozen=True)
class Space:
    """The product of some dimensions; of none, it has one point: the configuration as it is."""

    dimensions: tuple[Dimension, ...] = ()

    @classmethod
    def parse(cls, given: Any) -> Space:
        """Read a mapping from names to dimensions. Raises BitcornError for anything else."""
        if not isinstance(given or {}, Mapping):
            raise BitcornError(f"search is {given!r}: give fields, as in `model.hidden_size: {{choice: [16, 32]}}`")
        return cls(tuple(Dimension.parse(str(name), values) for name, values in (given or {}).items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def size(self) -> int | None:
        """How many points there are; None for a continuum."""
        counts = [None if each.options is None else len(each.options) for each in self.dimensions]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def greatest(self, names: Sequence[str], otherwise: int) -> int:
        """The greatest value that a whole number of one of these names may have, or another where none is searched."""
        return max(
            (value for each in self.dimensions if each.name in names for value in each.corners), default=otherwise
        )

    def points(self, most: int | None = None) -> Iterator[Point]:
        """All points of a space that has `size`, the last dimension fastest; at most so many.

        Raises BitcornError for a continuum.
        """
        options = []
        for dimension in self.dimensions:
            if dimension.options is None:
                raise BitcornError(
                    f"{dimension.name} is searched by {dimension.kind}, which no grid can cover: give a choice or int, "
                    "or another search"
                )
            options.append(dimension.options)
        return islice((dict(zip(self.names, values, strict=True)) for values in product(*options)), most)


def point_key(point: Mapping[str, Any]) -> str:
    """Text that is the same for equal points.

    >>> point_key({"b": (1, 2), "a": 0.5})
    '{"a": 0.5, "b": [1, 2]}'
    """
    return json.dumps(point, sort_keys=True, default=str)


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
