"""The recent volatility of the market, the unit of predicted volatilities."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

Array = NDArray[np.float64]

REFERENCE_SPANS = 8
"""Look-back of the mean in spans; older returns would have a weight below exp(-8), 0.03 %."""

_FLOOR = 1e-6  # a hundredth of a basis point, for a market that did not move


def reference_volatility(log_close: Array, span: int) -> Array:
    """Return the causal volatility of one bar's log return: (T,) -> (T,).

    The square root of the exponentially weighted mean (weights exp(-i / span), i bars ago) of the squared one-bar
    returns over the last 8 x span bars, or all earlier ones if there are fewer; row 0 is NaN. Returns that are not
    finite do not count. A value depends on these bars alone, and is at least 1e-6. span: in bars.
    Raises BitcornError for a span below 1.
    """
    if span < 1:
        raise BitcornError(f"the span of the reference volatility is {span}: it must be at least 1 bar")
    squares = np.square(np.diff(log_close))
    known = np.isfinite(squares)
    total, weight = _decaying_sum(np.where(known, squares, 0.0), span), _decaying_sum(known.astype(np.float64), span)
    out = np.full(len(log_close), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        out[1:] = np.sqrt(total / weight)  # NaN until the first finite return
    np.maximum(out, _FLOOR, out=out)
    return out


def _decaying_sum(x: Array, span: int) -> Array:
    """Return sum_i exp(-i / span) x_{t-i} over the last 8 x span values, with zeros before the first one.

    The sum consists of blocks of power-of-two length, so that a value is the same to the bit wherever the series
    starts.
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
