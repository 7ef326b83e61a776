"""Splitting windows in time, with a purge so that no label of the earlier part sees the later one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

__all__ = ["holdout"]

Rows = NDArray[np.int64]


def holdout(ends: Rows, val_frac: float, purge: int) -> tuple[Rows, Rows]:
    """Split windows, named by their end rows (N,) ascending, into earlier training and later validation windows.

    val_frac: share of the windows that validate, above 0 and below 1: the last ones.
    purge: bars between the last training window's end and the first validation window's end; with the longest horizon,
    no training label reaches past the bar at which the first validation window ends. (Validation windows may hold bars
    that training labels were made of: these are inputs, known at their time.)
    Raises BitcornError where a part would be empty.
    """
    if not 0 < val_frac < 1:
        raise BitcornError(f"val_frac is {val_frac}: it must lie between 0 and 1")
    count = round(len(ends) * val_frac)
    validation = ends[len(ends) - count :]
    train = ends[ends + purge <= validation[0]] if count else ends[:0]
    if len(train) == 0 or len(validation) == 0:
        raise BitcornError(
            f"{len(ends)} windows with val_frac {val_frac} and a purge of {purge} bars leave {len(train)} for training "
            f"and {len(validation)} for validation: give more bars"
        )
    return train, validation
