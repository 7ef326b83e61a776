"""Changes of the level of prices between two bars: splits, changes of unit, and markets that are mixed.

A market goes on from its last price, also after a pause. A step is a change of level if the open differs from the close
before by a factor of more than 1.4 and by more than 20 times the usual return, and if the price stays near the new
level: the median close of the next bars differs from that of the bars before by the factor of the step, within 15 %.

- Several such steps, up and down, are two markets that are mixed.
- A factor near n or 1/n, n a small number, is that of a split; near a power of ten, of a change of unit.

Real crashes happen within bars, and the open of the next bar is where they ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.bars import Bars

_LEAST, _TIMES, _AROUND, _STAYS = np.log(1.4), 20, 5, np.log(1.15)
_SPLITS = (1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 20, 25, 30, 40, 50)
_NEAR = np.log(1.03)
_MIXED = 3


@dataclass(frozen=True)
class LevelChange:
    """A change of level. row: of the first bar at the new level. factor: of the prices. what: in words."""

    row: int
    factor: float
    what: str


def level_changes(bars: Bars) -> list[LevelChange]:
    """Return the changes of level of bars (T,), ascending in time."""
    with np.errstate(invalid="ignore", divide="ignore"):
        opened, closed = np.log(bars.open), np.log(bars.close)
    steps = np.append(0.0, opened[1:] - closed[:-1])
    moved = np.abs(closed - opened)
    usual = float(np.median(moved[np.isfinite(moved)])) if np.isfinite(moved).any() else 0.0
    candidates = np.flatnonzero(np.isfinite(steps) & (np.abs(steps) > max(_LEAST, _TIMES * usual)))
    if len(candidates) >= _MIXED and (steps[candidates] > 0).any() and (steps[candidates] < 0).any():
        what = f"two markets may be mixed: the price jumps up and down between levels {len(candidates):,} times"
        return [LevelChange(int(row), float(np.exp(steps[row])), what) for row in candidates]
    found = [row for row in candidates.tolist() if _stays(closed, row, float(steps[row]))]
    return [LevelChange(row, float(np.exp(steps[row])), _described(float(steps[row]))) for row in found]


def _stays(closed: NDArray[np.float64], row: int, step: float) -> bool:
    before, after = closed[max(row - _AROUND, 0) : row], closed[row : row + _AROUND]
    return bool(abs(np.nanmedian(after) - np.nanmedian(before) - step) < _STAYS)


def _described(step: float) -> str:
    size, direction = abs(step), "up" if step > 0 else "down"
    powers = size / np.log(10)
    if round(powers) >= 1 and abs(size - round(powers) * np.log(10)) < _NEAR:
        return f"looks like a change of unit: the price goes {direction} by a factor of {10 ** round(powers):,}"
    near = min(_SPLITS, key=lambda split: abs(size - np.log(split)))
    if abs(size - np.log(near)) < _NEAR:
        ratio = f"{near:g}:1" if step < 0 else f"1:{near:g}"
        return f"looks like a split of {ratio} that prices are not adjusted for"
    return f"the price goes {direction} by a factor of {np.exp(size):.3g} between two bars, and stays"
