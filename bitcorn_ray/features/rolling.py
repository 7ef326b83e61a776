"""Rolling windows over arrays of T values; the first n - 1 results of a window of n are NaN.

A window of n is put together from blocks whose lengths are powers of two, each block from two of half its length:
log2(n) vector additions instead of a running sum. So a value depends on the n values of its window and on nothing
else: it is the same bit for bit wherever the series starts, and no rounding error is carried along.

Means and variances of two blocks are merged by the pairwise update of Chan, Golub & LeVeque (1979), which has no
cancellation: the variance of a constant window is exactly zero, whatever the level of the values.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["rolling_mean", "rolling_mean_std", "run_length"]

Array = NDArray[np.float64]


def rolling_mean(x: Array, n: int) -> Array:
    """Mean of the last n values: (T,) -> (T,)."""
    blocks = {1: x}
    for w in _doublings(n):
        blocks[2 * w] = blocks[w][:-w] + blocks[w][w:]
    total: Array | None = None
    for size, rows in _tiles(n, len(x)):
        total = blocks[size][rows] if total is None else total + blocks[size][rows]
    assert total is not None
    return _padded(total / n, len(x))


def rolling_mean_std(x: Array, n: int) -> tuple[Array, Array]:
    """Mean and standard deviation (ddof=1) of the last n values: (T,) -> (T,), (T,). n >= 2."""
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
    return _padded(done[0] / n, len(x)), _padded(np.sqrt(done[1] / (n - 1)), len(x))


def run_length(condition: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many values in a row, ending at each place, are true: (T,) -> (T,).

    >>> run_length(np.array([True, True, False, True]))
    array([1, 2, 0, 1])
    """
    place = np.arange(len(condition))
    last_false = np.maximum.accumulate(np.where(condition, -1, place))
    return place - last_false


def _doublings(n: int) -> Iterator[int]:
    """Yield 1, 2, 4, ...: the lengths of blocks to double, up to the largest block inside n."""
    w = 1
    while 2 * w <= n:
        yield w
        w *= 2


def _tiles(n: int, length: int) -> Iterator[tuple[int, slice]]:
    """Blocks that tile a window of n, largest first, each with the rows it takes for all `length - n + 1` windows."""
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


def _padded(values: Array, length: int) -> Array:
    return np.concatenate((np.full(length - len(values), np.nan), values))
