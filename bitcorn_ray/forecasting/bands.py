"""The bands of a partition's forecasts: rolling conformal intervals that start on the scores of the run.

1. The score of a forecast is known once its horizon has passed, and only if no bar is missing before it.
2. Scores count only for forecasts on data that the weights were not fitted on: validation and later windows, and
   partitions that were not trained on. If a run does not record its training data, all scores count.
3. The band of a forecast comes from the last scores that are mature when it is made, those of the run and those of
   the given bars together.

A bar's number is its open time divided by the timeframe. Shapes: T bars, N forecasts, M scores, H horizons, K levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.outcomes import known_returns, outcome_known
from bitcorn_ray.metrics.calibration import COVERAGES, SCORE_WINDOW, conformal_scores, rolling_widths
from bitcorn_ray.training.run import PastScores

Rows = NDArray[np.int64]
Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


def is_out_of_sample(splits: NDArray[np.str_]) -> Mask:
    """Return True for the data splits (N,) whose scores count: all but training data and what precedes it."""
    counted: Mask = (splits != "train") & (splits != "before training")
    return counted


def data_split_of(partition: Mapping[str, Any] | None, cutoffs: Rows) -> NDArray[np.str_]:
    """Return the data split that each cutoff (N,), in ms, belongs to, as text.

    "train": the weights were fitted there (the purge after it included). "validation": the epoch was chosen there.
    "test": held out. "out of sample": after all of these. "before training": before the first training window.
    "other symbol": the run was not trained on this symbol (partition None). "unknown": the run does not record it.
    """
    if partition is None:
        return np.full(len(cutoffs), "other symbol", "<U16")
    marks = np.full(len(cutoffs), "out of sample", "<U16")
    spans = {part: partition[part] for part in ("train", "validation", "test") if partition.get(part)}
    if not spans:
        known_until = partition.get("last")
        marks[slice(None) if known_until is None else cutoffs <= _milliseconds(known_until)] = "unknown"
        return marks
    # From the latest part to the earliest: a part includes the purge that follows it.
    starts = [_milliseconds(span[0]) for span in spans.values()]
    ends = [*starts[1:], _milliseconds(list(spans.values())[-1][1]) + 1]
    for part, end in reversed(list(zip(spans, ends, strict=True))):
        marks[cutoffs < end] = part
    marks[cutoffs < starts[0]] = "before training"
    return marks


def forecast_scores(
    bars: Rows,
    log_close: NDArray[np.float64],
    rows: Rows,
    horizons: Sequence[int],
    returns: Floats,
    volatilities: Floats,
    filled: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Return the scores (N, H) of forecasts (N, H) made at rows (N,) of bars (T,), NaN for unknown outcomes.

    filled: (T,) bars that were filled in.
    """
    outcome = known_returns(log_close, bars, rows, horizons, filled)
    return conformal_scores(returns, volatilities, outcome).astype(np.float32)


def enough_scores(
    bars: Rows,
    rows: Rows,
    past: PastScores,
    horizons: Sequence[int],
    window: int,
    at: int,
    filled: NDArray[np.bool_] | None = None,
) -> bool:
    """Return True if past scores and those of forecasts at rows (N,) of bars (T,) fill the window at bar ``at``.

    Scores that are not mature by then do not count. No row is among the bars of the past scores.
    """
    ahead = np.asarray(horizons)
    mature = outcome_known(bars, rows, horizons, filled) & (bars[rows][:, None] + ahead <= at)
    count = mature.sum(0) + (np.isfinite(past.scores) & (past.bars[:, None] + ahead <= at)).sum(0)
    return bool((count >= window).all())


def roll_bands(
    past: PastScores,
    bars: Rows,
    scores: NDArray[np.float32],
    requested: Rows,
    horizons: Sequence[int],
    coverages: Sequence[float] = COVERAGES,
    window: int = SCORE_WINDOW,
) -> NDArray[np.float32]:
    """Return the half-widths (N, K, H), in units of volatility, of the forecasts made at the requested bars (N,).

    past: scores of the run; the given scores (M, H) of bars (M,) replace those of the same bar. See `rolling_widths`.
    """
    kept = ~np.isin(past.bars, bars)
    bars, scores = np.concatenate([past.bars[kept], bars]), np.concatenate([past.scores[kept], scores])
    order = np.argsort(bars)
    return rolling_widths(bars[order], scores[order], requested, horizons, coverages, window)


def _milliseconds(time: str) -> int:
    return int(np.datetime64(time.removesuffix("Z"), "ms").astype(np.int64))
