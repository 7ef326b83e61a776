"""Targets: what happens in the h bars after bar t, from closes alone.

return_h = ln p_{t+h} - ln p_t. With r the h one-bar log returns after t: realised volatility = sqrt(sum r^2), and the
return deviation = std(r) with ddof=0, which is zero at h = 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def forward_return(log_close: Array, ends: Rows, horizon: int) -> Array:
    """Log return over the ``horizon`` bars after each row of ``ends``: (N,)."""
    return log_close[ends + horizon] - log_close[ends]


def realised_volatility(log_close: Array, ends: Rows, horizon: int) -> Array:
    """Square root of the sum of the squared one-bar log returns after each row of ``ends``: (N,)."""
    squares = np.zeros(len(ends))
    for k in range(1, horizon + 1):
        squares += (log_close[ends + k] - log_close[ends + k - 1]) ** 2
    return np.sqrt(squares)


def return_deviation(log_close: Array, ends: Rows, horizon: int) -> Array:
    """Standard deviation (ddof=0) of the one-bar log returns after each row of ``ends``: (N,)."""
    if horizon == 1:
        return np.zeros(len(ends))
    mean = forward_return(log_close, ends, horizon) / horizon
    squares = np.zeros(len(ends))
    for k in range(1, horizon + 1):
        squares += (log_close[ends + k] - log_close[ends + k - 1] - mean) ** 2
    return np.sqrt(squares / horizon)
