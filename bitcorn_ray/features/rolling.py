"""Rolling windows over arrays of T values; the first n - 1 results of a window of n are NaN.

A window of n is the sum of blocks whose lengths are powers of two, and each block is the sum of two half as long:
log2(n) vector additions instead of a running sum. So a value depends on the n values of its window only: it is equal
bit for bit wherever the series starts, and rounding errors do not accumulate.

Means and variances of two blocks are merged by the pairwise update of Chan, Golub & LeVeque (1979), which has no
cancellation: the variance of a constant window is exactly zero at any level of the values. An exponentially weighted
mean is cut off where its weights become negligible, so it has a finite window too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import talib
from numpy.typing import NDArray

from bitcorn_ray.market.bars import Bars

Array = NDArray[np.float64]

_NEGLIGIBLE = 1.5e-4  # largest share of the weights that an exponential mean leaves out


def lagged(x: Array, k: int) -> Array:
    """Return x_{t-k}: (T,) -> (T,), the first k are NaN."""
    out = np.empty(len(x))
    out[:k] = np.nan
    out[k:] = x[: max(len(x) - k, 0)]
    return out


def change(x: Array, k: int) -> Array:
    """Return x_t - x_{t-k}: (T,) -> (T,), the first k are NaN."""
    out = np.empty(len(x))
    out[:k] = np.nan
    np.subtract(x[k:], x[: max(len(x) - k, 0)], out=out[k:])
    return out


def true_range(bars: Bars) -> Array:
    """Return Wilder's (1978) true range, max(high, last close) - min(low, last close): (T,); first high - low."""
    out: Array = talib.TRANGE(bars.high, bars.low, bars.close)
    out[:1] = bars.high[:1] - bars.low[:1]
    return out


def rolling_mean(x: Array, n: int) -> Array:
    """Return the mean of the last n values: (T,) -> (T,)."""
    return rolling_means(x, n)[0]


def rolling_means(x: Array, *windows: int) -> list[Array]:
    """Return the means over several windows, which share their blocks: (T,) -> (T,) for each window."""
    block, w, totals = x, 1, dict.fromkeys(windows, (0, x))
    # From the newest value backwards: a window of 6 = 4 + 2 is its 2 newest values and the 4 before these.
    while True:
        for n in totals:
            if n & w:
                done, total = totals[n]
                totals[n] = (done + w, block if done == 0 else total[w:] + block[: max(len(total) - w, 0)])
        if 2 * w > max(windows):
            break
        block, w = block[:-w] + block[w:], 2 * w
    return [_padded(np.divide, totals[n][1], n, len(x)) for n in windows]


def rolling_mean_std(x: Array, n: int) -> tuple[Array, Array]:
    """Return the mean and standard deviation (ddof=1) of the last n values: (T,) -> (T,), (T,). n >= 2."""
    # (sum, sum of squared deviations from the block's own mean) for each block length
    blocks = {1: (x, np.zeros(len(x)))}
    for w in _doublings(n):
        total, scatter = blocks[w]
        blocks[2 * w] = _merged(total[:-w], scatter[:-w], w, total[w:], scatter[w:], w)
    done: tuple[Array, Array] | None = None
    counted = 0
    for size, rows in _tiles(n, len(x)):
        total, scatter = (part[rows] for part in blocks[size])
        done = (total, scatter) if done is None else _merged(*done, counted, total, scatter, size)
        counted += size
    assert done is not None
    mean, variance = _padded(np.divide, done[0], n, len(x)), _padded(np.divide, done[1], n - 1, len(x))
    return mean, np.sqrt(variance, out=variance)


def decaying_span(decay: float) -> int:
    """Return the window of `decaying_mean`: the power of two beyond which less than 0.015 % of the weight lies."""
    return 1 << int(np.ceil(np.log2(np.log(_NEGLIGIBLE) / np.log(decay))))


def decaying_mean(x: Array, decay: float) -> Array:
    """Return the exponentially weighted mean over `decaying_span` values: (T,) -> (T,).

    It is sum_i decay^i x_{t-i} / sum_i decay^i. Wilder's smoothing of n has a decay of 1 - 1/n, an EMA of n has one of
    1 - 2/(n+1).
    """
    block, w, span = x, 1, decaying_span(decay)
    while w < span:
        older = block[:-w] * decay**w
        older += block[w:]
        block, w = older, 2 * w
    return _padded(np.multiply, block, (1.0 - decay) / (1.0 - decay**span), len(x))


def run_length(condition: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many consecutive values, ending at each one, are true: (T,) -> (T,).

    >>> run_length(np.array([True, True, False, True]))
    array([1, 2, 0, 1])
    """
    number = np.arange(len(condition))
    last_false = np.maximum.accumulate(np.where(condition, -1, number))
    return number - last_false


def _doublings(n: int) -> Iterator[int]:
    """Yield 1, 2, 4, ...: the lengths of blocks to double, up to the largest block inside n."""
    w = 1
    while 2 * w <= n:
        yield w
        w *= 2


def _tiles(n: int, length: int) -> Iterator[tuple[int, slice]]:
    """Yield the blocks that tile a window of n, largest first, with their rows for all `length - n + 1` windows."""
    offset = 0
    for bit in reversed(range(n.bit_length())):
        size = 1 << bit
        if n & size:
            yield size, slice(offset, offset + max(length - n + 1, 0))
            offset += size


def _merged(total_a: Array, scatter_a: Array, a: int, total_b: Array, scatter_b: Array, b: int) -> tuple[Array, Array]:
    difference = total_b / b
    difference -= total_a / a
    difference *= difference
    difference *= a * b / (a + b)
    difference += scatter_a
    difference += scatter_b
    return total_a + total_b, difference


def _padded(function: np.ufunc, values: Array, by: float, length: int) -> Array:
    """Return NaN for incomplete windows, then `function(values, by)`."""
    out = np.empty(length)
    out[: length - len(values)] = np.nan
    function(values, by, out=out[length - len(values) :])
    return out
