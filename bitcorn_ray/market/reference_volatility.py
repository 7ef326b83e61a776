"""The scale that volatility is predicted relative to: what the market's volatility has been of late."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

Array = NDArray[np.float64]

REFERENCE_SPANS = 8
"""How many spans the mean looks back: what lies further off has a weight of exp(-8), 0.03 %."""

_FLOOR = 1e-6  # a hundredth of a basis point: a market that stood still has a scale too


def reference_volatility(log_close: Array, span: int) -> Array:
    """Causal volatility of one bar's log return: (T,) -> (T,).

    The square root of the exponentially weighted mean (weights exp(-i / span), i bars ago) of the squared one-bar
    returns over the last 8 x span bars, or as many as there are: row 0 has none and is NaN. Returns that are not finite
    do not count. It depends on no later bar and on none further back, and is at least 1e-6. span: in bars.
    Raises BitcornError for a span below 1.
    """
    if span < 1:
        raise BitcornError(f"the span of the reference volatility is {span}: it must be at least 1 bar")
    squares = np.square(np.diff(log_close))
    there = np.isfinite(squares)
    total, weight = _decaying_sum(np.where(there, squares, 0.0), span), _decaying_sum(there.astype(np.float64), span)
    out = np.full(len(log_close), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        out[1:] = np.sqrt(total / weight)  # NaN as long as no return was finite
    np.maximum(out, _FLOOR, out=out)
    return out


def _decaying_sum(x: Array, span: int) -> Array:
    """sum_i exp(-i / span) x_{t-i} over the last 8 x span values; what would lie before the first one counts as zero.

    Put together from blocks of power-of-two length as in `rolling`, so that a value is the same bit for bit wherever
    the series starts.
    """
    window = min(REFERENCE_SPANS * span, 1 << max(len(x) - 1, 0).bit_length())
    total, done = np.zeros(len(x)), 0
    block, width = x.copy(), 1
    while True:
        if window & width:
            total[done:] += math.exp(-done / span) * block[: max(len(x) - done, 0)]
            done += width
        if 2 * width > window:
            return total
        older = block
        block = older.copy()
        block[width:] += math.exp(-width / span) * older[:-width]
        width *= 2
