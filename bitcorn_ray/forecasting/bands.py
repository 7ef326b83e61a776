"""The bands of a partition's forecasts: rolling conformal, begun on the run's scores and going on over new bars.

1. A forecast's score is known when its horizon has passed, and only where no bar is missing on the way.
2. Scores count only of forecasts that the weights were not fitted on: of validation and later windows, and of
   partitions that were not trained on. Where a run does not know what it was trained on, all count.
3. The band of a forecast comes from the last scores that are mature when it is made, those of the run and those that
   the bars tell together.

A bar's number is its opening divided by the timeframe. Shapes: T bars, N forecasts, M scores, H horizons, K levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.metrics.calibration import RollingConformal, conformal_scores
from bitcorn_ray.training.run import PastScores

__all__ = [
    "between_widths", "counts", "enough_scores", "forecast_scores", "outcome_known", "roll_bands", "sample_of",
]  # fmt: skip

Rows = NDArray[np.int64]
Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


def counts(sample: NDArray[np.str_]) -> Mask:
    """Tell of which kinds of forecasts (N,) the scores count: not of those on bars that were trained on, or earlier."""
    counted: Mask = (sample != "train") & (sample != "before training")
    return counted


def sample_of(partition: Mapping[str, Any] | None, cutoffs: Rows) -> NDArray[np.str_]:
    """Say what the training knew of the bars that forecasts are made at: (N,) ms -> (N,) text.

    "train": the weights were fitted there (the purge behind it included). "validation": the epoch was chosen there.
    "test": held out. "out of sample": after all of these. "before training": earlier than the first training window.
    "other symbol": the run was not trained on this symbol (partition None). "unknown": the run does not know.
    """
    if partition is None:
        return np.full(len(cutoffs), "other symbol", "<U16")
    marks = np.full(len(cutoffs), "out of sample", "<U16")
    spans = {part: partition[part] for part in ("train", "validation", "test") if partition.get(part)}
    if not spans:
        known_until = partition.get("last")
        marks[slice(None) if known_until is None else cutoffs <= _milliseconds(known_until)] = "unknown"
        return marks
    # From the latest part to the earliest: behind each lies a purge, which belongs to it.
    starts = [_milliseconds(span[0]) for span in spans.values()]
    ends = [*starts[1:], _milliseconds(list(spans.values())[-1][1]) + 1]
    for part, end in reversed(list(zip(spans, ends, strict=True))):
        marks[cutoffs < end] = part
    marks[cutoffs < starts[0]] = "before training"
    return marks


def outcome_known(bars: Rows, rows: Rows, horizons: Sequence[int]) -> Mask:
    """Tell whether the outcome of forecasts at rows (N,) is among bars (T,) numbered on the grid: (N, H).

    It is where the horizon's bar is there and none is missing on the way.
    """
    last = len(bars) - 1
    ahead = np.minimum(rows[:, None] + np.asarray(horizons), last)
    known: Mask = bars[ahead] - bars[rows][:, None] == np.asarray(horizons)
    return known


def forecast_scores(
    bars: Rows, log_close: Floats, rows: Rows, horizons: Sequence[int], returns: Floats, volatilities: Floats
) -> NDArray[np.float32]:
    """Scores (N, H) of forecasts (N, H) made at rows (N,) of bars (T,); NaN where the outcome is not known."""
    ahead = np.minimum(rows[:, None] + np.asarray(horizons), len(bars) - 1)
    scores = conformal_scores(returns, volatilities, log_close[ahead] - log_close[rows][:, None])
    return np.where(outcome_known(bars, rows, horizons), scores, np.nan).astype(np.float32)


def enough_scores(bars: Rows, rows: Rows, past: PastScores, horizons: Sequence[int], window: int, at: int) -> bool:
    """Tell whether past scores and those of forecasts at rows (N,) of bars (T,) fill the window at bar number ``at``.

    Those that are not mature by then do not count. The rows are none of the past's bars.
    """
    ahead = np.asarray(horizons)
    mature = outcome_known(bars, rows, horizons) & (bars[rows][:, None] + ahead <= at)
    count = mature.sum(0) + (np.isfinite(past.scores) & (past.bars[:, None] + ahead <= at)).sum(0)
    return bool((count >= window).all())


def between_widths(widths: Floats, weights: Floats) -> Floats:
    """Half-widths (N, K, H) at other horizons, by the weights (H, J) of `horizon_weights`: (N, K, J).

    They are linear in the horizon, in units of the volatility; infinite where one that they lie between is.
    """
    finite = np.isfinite(widths)
    between: Floats = np.where(finite, widths, 0.0) @ weights
    between[(~finite).astype(np.float64) @ weights > 0] = np.inf
    return between


def roll_bands(
    conformal: RollingConformal, past: PastScores, bars: Rows, scores: NDArray[np.float32], asked: Rows
) -> NDArray[np.float32]:
    """Half-widths (N, K, H), in units of volatility, of the forecasts made at bars ``asked`` (N,), ascending.

    conformal: empty. past: the run's scores; where a bar is among those given too, the given scores count.
    bars: (M,) numbers, ascending, with their scores (M, H), NaN where not known. Bars after the last asked one are of
    no use, and do no harm.
    """
    if len(past.bars):
        kept = ~np.isin(past.bars, bars)
        bars, scores = np.concatenate([past.bars[kept], bars]), np.concatenate([past.scores[kept], scores])
        order = np.argsort(bars)
        bars, scores = bars[order], scores[order]
    if len(asked) == 0:
        return np.empty((0, len(conformal.coverages), len(conformal.horizons)), np.float32)
    begun = int(np.searchsorted(bars, asked[0]))
    conformal.extend(bars[:begun], scores[:begun])
    later, later_scores = bars[begun:], scores[begun:]
    every = np.union1d(later, asked)
    known = np.full((len(every), scores.shape[1]), np.nan, np.float32)
    known[np.searchsorted(every, later)] = later_scores
    return conformal.bands(every, known)[np.searchsorted(every, asked)]


def _milliseconds(time: str) -> int:
    return int(np.datetime64(time.removesuffix("Z"), "ms").astype(np.int64))
