"""How work grows: the exponent of a power law through the points of a growth curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Exponent", "fit_exponent"]


@dataclass(frozen=True)
class Exponent:
    """The power of the size that the values grow with. error: its standard error, None of two points."""

    value: float
    error: float | None


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> Exponent:
    """Fit log(value) = exponent x log(size) + constant by least squares.

    The standard error is that of the slope, from the residuals with n - 2 degrees of freedom. Raises ValueError for
    fewer than two different sizes, and for sizes and values that are not above zero.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(values):
        raise ValueError(f"sizes {list(sizes)} with {len(values)} values: give a value for each of two sizes or more")
    if not (min(sizes) > 0 and min(values) > 0):
        raise ValueError(
            f"sizes {list(sizes)} and values {list(values)} must be above zero: they have no logarithm else"
        )
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))
    x -= x.mean()
    slope = float(x @ (y - y.mean()) / (x @ x))
    if len(x) == 2:
        return Exponent(slope, None)
    residuals = y - y.mean() - slope * x
    return Exponent(slope, float(np.sqrt(residuals @ residuals / (len(x) - 2) / (x @ x))))
