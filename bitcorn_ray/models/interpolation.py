"""Forecasts at horizons between the ones that a model was fitted for: the one rule for returns, variances and bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

Floats = NDArray[np.floating]


def horizon_weights(known: Sequence[int], asked: Sequence[float]) -> NDArray[np.float64]:
    """Return the weights (H, J) of linear interpolation from H known horizons to J others.

    At most two weights of a column are not zero. Raises BitcornError for a horizon outside of the known ones.
    """
    outside = [horizon for horizon in asked if not min(known) <= horizon <= max(known)]
    if outside or not len(asked):
        raise BitcornError(
            f"horizons {', '.join(map(str, outside)) or '(none)'} cannot be interpolated: the model was trained on "
            f"{', '.join(map(str, sorted(known)))}; use horizons from {min(known)} to {max(known)}"
        )
    order = np.argsort(known)
    ascending = np.asarray(known)[order]
    unit = np.eye(len(known))[order]
    return np.stack([np.interp(asked, ascending, unit[:, column]) for column in range(len(known))])


def interpolate(returns: Floats, volatilities: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the returns and volatilities (N, J) at other horizons, from (N, H) and `horizon_weights` (H, J).

    The return is linear in the horizon, and so is the variance, as they are for independent steps.
    """
    return returns @ weights, np.sqrt(np.square(volatilities) @ weights)


def interpolate_widths(widths: Floats, weights: Floats) -> Floats:
    """Return the half-widths (N, K, J) of bands at other horizons, from (N, K, H) and `horizon_weights` (H, J).

    They are linear in the horizon, in units of the volatility, and infinite between a horizon without a band and
    another one.
    """
    finite = np.isfinite(widths)
    between: Floats = np.where(finite, widths, 0.0) @ weights
    between[(~finite).astype(np.float64) @ weights > 0] = np.inf
    return between
