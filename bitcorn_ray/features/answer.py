"""What the function of a feature system answers: one value a bar for each feature, or a clear error.

The function is a user's: it may take bars for a frame, fail, or return anything. Shapes: T bars.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars

__all__ = ["ask", "values_of"]


def ask(function: Callable[..., Any], system: str, bars: Bars, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a system's function gives for read-only bars, by feature name; its values are not looked at.

    Raises BitcornError where it fails, and where it returns anything but a mapping or frame with names that differ.
    """
    try:
        answer = function(bars.read_only(), **parameters)
    except BitcornError:
        raise
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}{_place(function, error)}{_advice(error)}"
        raise BitcornError(f"feature system {system!r} failed: {told}") from error
    if not isinstance(answer, Mapping) and not (hasattr(answer, "keys") and hasattr(answer, "columns")):
        raise BitcornError(
            f"feature system {system!r} returned {type(answer).__name__}: return a mapping of feature names to arrays, "
            "or a frame"
        )
    names = Counter(map(str, answer.keys()))
    if twice := [name for name, count in names.items() if count > 1]:
        raise BitcornError(f"feature system {system!r} returned {', '.join(twice)} twice: give each a name of its own")
    return {str(name): answer[name] for name in answer.keys()}  # noqa: SIM118 - a frame's items are columns too


def values_of(value: Any, feature: str, system: str, count: int) -> NDArray[Any]:
    """Values of a feature at ``count`` bars, (T,) numbers, or objects that may be numbers.

    Raises BitcornError for another shape, for what is no real number, and for rows in another order than the bars'.
    """
    named, values = f"feature {feature} of {system!r}", np.asarray(value)
    if values.shape != (count,):
        raise BitcornError(
            f"{named} has shape {values.shape} for {count} bars: return one value a bar, NaN where there is none"
        )
    if values.dtype.kind in "cmM":
        raise BitcornError(f"{named} holds values that are no numbers: {values.dtype}; return real ones")
    if np.ma.is_masked(value):
        raise BitcornError(f"{named} has masked values: return NaN where there is none")
    index: Any = getattr(value, "index", None)  # of a series of pandas; values are taken row by row, whatever it says
    if hasattr(index, "get_level_values") and not index.get_level_values(-1).is_monotonic_increasing:
        raise BitcornError(
            f"{named} is a series whose index does not rise, so that its rows may not be those of the bars: bring it "
            "into their order (sort_index), or return its values (to_numpy)"
        )
    return values


def _place(function: Callable[..., Any], error: BaseException) -> str:
    """Line of the user's file that failed, where it is known."""
    path = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f" (line {lines[-1]} of {os.path.basename(str(path))})" if lines else ""


def _advice(error: BaseException) -> str:
    """What to do where bars, or one of their arrays, were taken for a frame or series of pandas."""
    is_array = isinstance(error, AttributeError) and isinstance(error.obj, np.ndarray | Bars)
    if is_array or (isinstance(error, TypeError) and f"'{Bars.__name__}' object" in str(error)):
        return (
            "; bars are no frame: bars.open, high, low, close, volume and timestamp are NumPy arrays, and "
            "bars.to_frame() is a frame of pandas"
        )
    return ""
