"""What forecasts are made from: which bars have a window, their features, and the volatility that they are relative to.

1. From the bars that are asked for, go back as far as the bands need scores: to the window's worth of them, or to the
start. 2. Of these bars take those that are asked for, and those whose scores count and that nobody knows yet. 3. Leave
out what has no window: too few bars before it, a bar missing inside, features that are not finite.

Shapes: T bars, N windows, L seq_len, F features, H horizons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.scaling import finite_rows, scale
from bitcorn_ray.datasets.windows import gap_before
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.forecasting.bands import counts, enough_scores, forecast_scores, sample_of
from bitcorn_ray.market.bars import Bars, modal_step, show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.reference_volatility import REFERENCE_SPANS, reference_volatility
from bitcorn_ray.market.timeframe import timeframe_ms, timeframe_of_ms
from bitcorn_ray.metrics.calibration import RollingConformal
from bitcorn_ray.models.neural.predict import predict_windows
from bitcorn_ray.training.run import PastScores, Run

__all__ = ["ForecastInputs", "Seen", "why_not"]

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What was forecast from bars before: rows (M,) of theirs, ascending, returns and volatilities (M, H).

    first, bars: those of the bars, from a row on, that these forecasts depend on.
    """

    first: int
    bars: Bars
    rows: Rows
    returns: Floats
    volatilities: Floats

    def begins(self, bars: Bars) -> bool:
        """Tell whether other bars go on from these."""
        new = bars.take(slice(self.first, self.first + len(self.bars)))
        pairs = [*_pairs(self.bars.columns(), new.columns()), *_pairs(self.bars.extra, new.extra)]
        return all(np.array_equal(old, other) for old, other in pairs)


class ForecastInputs:
    """Bars (T,) of one partition, and what a run needs of them to forecast from row `first` on.

    features: (T, F) by the run's columns where they are known; by default they are computed as far as they are needed.
    seen: of bars that these begin with. filled: (T,) bars that were never traded: these are no cutoffs.
    rows: that forecasts are made from; asked: those of them from `first` on. left_out: how many from there on have no
    window, by the reason.
    Raises BitcornError for bars of another timeframe, and a symbol that the model cannot tell from others.
    """

    def __init__(
        self,
        run: Run,
        system: FeatureSystem,
        bars: Bars,
        partition: Partition,
        first: int,
        features: Floats | None = None,
        seen: Seen | None = None,
        filled: Mask | None = None,
    ) -> None:
        assert bars.timestamp is not None
        self.run, self.system, self.bars, self.config = run, system, bars, run.config
        self.step, self.times = timeframe_ms(partition.timeframe), bars.timestamp
        if (step := modal_step(self.times[-2_048:])) not in (0, self.step):
            raise BitcornError(
                f"the bars are {timeframe_of_ms(step)} apart, but the run forecasts {partition.timeframe}: give it "
                "bars of that timeframe"
            )
        self.numbers = self.times // self.step
        if len(twice := np.flatnonzero(np.diff(self.numbers) == 0)):
            one, other = (show_time(int(t)) for t in self.times[twice[0] : twice[0] + 2])
            raise BitcornError(
                f"the bars at {one} and {other} lie within one {partition.timeframe}: repair the bars "
                "(--clean off-grid=drop when training, which the run remembers; in Python load them with a policy)"
            )
        known, place = run.metadata["partitions"], run.place_of(partition.symbol)
        if place is None and self.config.symbol_embedding:
            raise BitcornError(
                f"the model tells its partitions apart and was not trained on {partition.symbol}: it forecasts "
                f"{', '.join(each['symbol'] for each in known)}; train one without symbol_embedding for others"
            )
        self.place = place
        self.facts = {} if not known else None if place is None else known[place]
        no_scores = PastScores(np.empty(0, np.int64), np.empty((0, len(self.config.horizons)), np.float32))
        self.past = no_scores if place is None or not run.scores else run.scores[place]
        self._features, self._seen = features, seen
        self._filled = np.zeros(len(bars), bool) if filled is None else filled
        self._window, self._window_first = np.empty((0, 0), np.float32), len(bars)
        self.rows, self.left_out = self._choose(first)
        self.asked = self.rows[self.rows >= first]

    def forecast(self) -> tuple[Floats, Floats]:
        """Let the model forecast from `rows`: returns and volatilities, each (N, H)."""
        rows, shape = self.rows, (len(self.rows), len(self.config.horizons))
        returns, volatilities = np.empty(shape, np.float32), np.empty(shape, np.float32)
        new = np.ones(len(rows), dtype=bool)
        if self._seen is not None:
            places = np.searchsorted(self._seen.rows, rows)
            new = ~np.isin(rows, self._seen.rows)
            returns[~new] = self._seen.returns[places[~new]]
            volatilities[~new] = self._seen.volatilities[places[~new]]
        if new.any():
            returns[new], volatilities[new] = self._predict(rows[new])
        return returns, volatilities

    def seen(self, returns: Floats, volatilities: Floats) -> Seen:
        """Keep the forecasts from `rows`, with a copy of the bars that they depend on."""
        first = len(self.bars)
        if len(self.rows):
            first = self.system.first_needed(self.bars, int(self.rows[0]) - self.config.seq_len + 1)
            first = max(min(first, int(self.rows[0]) - REFERENCE_SPANS * self.config.reference_span - 1), 0)
        return Seen(first, self.bars.take(np.arange(first, len(self.bars))), self.rows, returns, volatilities)

    def scores(self, returns: Floats, volatilities: Floats) -> NDArray[np.float32]:
        """Scores (N, H) of the forecasts from `rows`, NaN where the outcome is not known or they do not count."""
        if len(self.rows) == 0:
            return np.empty((0, len(self.config.horizons)), np.float32)
        first = int(self.rows[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            log_close = np.log(self.bars.close[first:])
        scores = forecast_scores(
            self.numbers[first:], log_close, self.rows - first, self.config.horizons, returns, volatilities
        )
        scores[~counts(self.sample(self.rows))] = np.nan
        return scores

    def sample(self, rows: Rows) -> NDArray[np.str_]:
        """What the training knew of some rows (N,), see `learning.bands.sample_of`."""
        return sample_of(self.facts, self.times[rows])

    def _choose(self, first: int) -> tuple[Rows, dict[str, int]]:
        """Rows to forecast from, ascending, and the counts of those that were asked for and cannot be."""
        horizons, window = self.config.horizons, RollingConformal(self.config.horizons).window
        reach = window + max(horizons)
        while True:
            start = max(first - reach, 0)
            before = np.arange(start, first)
            counted = counts(self.sample(before)) & ~np.isin(self.numbers[before], self.past.bars)
            rows = np.concatenate([before[counted], np.arange(first, len(self.bars))])
            good, left_out = self._with_window(rows, first)
            at = int(self.numbers[first])
            if start == 0 or enough_scores(self.numbers, good[good < first], self.past, horizons, window, at):
                return good, left_out
            reach *= 2

    def _with_window(self, rows: Rows, first: int) -> tuple[Rows, dict[str, int]]:
        """Rows that have a window; of those from ``first`` on that have none, the reasons and how many."""
        seq_len = self.config.seq_len
        seen = np.isin(rows, self._seen.rows) if self._seen is not None else np.zeros(len(rows), dtype=bool)
        left_out = dict.fromkeys(("too few bars before", "filled", "bars missing", "features not finite"), 0)

        def keep(marked: Mask, reason: str) -> None:
            nonlocal rows, seen
            left_out[reason] = int((marked & ~seen & (rows >= first)).sum())
            rows, seen = rows[~marked | seen], seen[~marked | seen]

        keep(rows < self.system.warmup_bars + seq_len - 1, "too few bars before")
        keep(self._filled[rows], "filled")
        if len(rows) and not seen.all():
            begin = int(rows[0]) - seq_len + 1
            keep(_inside(gap_before(self.times[begin:], self.step), rows - begin, seq_len - 1), "bars missing")
        if len(rows) and not seen.all():
            begin = int(rows[~seen][0]) - seq_len + 1
            unfit = ~finite_rows(self._matrix(begin))
            keep(_inside(unfit, np.maximum(rows - begin, seq_len - 1), seq_len), "features not finite")
        return rows, left_out

    def _matrix(self, first: int) -> Floats:
        """Features (T - first, F) of the rows from ``first`` on, as they are before scaling."""
        if self._features is not None:
            return self._features[first:]
        if first < self._window_first:
            columns = self.run.metadata["feature_cols"]
            self._window, self._window_first = _features(self.system, columns, self.bars, first), first
        return self._window[first - self._window_first :]

    def _predict(self, rows: Rows) -> tuple[Floats, Floats]:
        first = int(rows[0]) - self.config.seq_len + 1
        with np.errstate(invalid="ignore"):
            scaled = scale(self._matrix(first), self.run.scaler)
        reference = None
        if span := self.config.reference_span:
            begin = max(int(rows[0]) - REFERENCE_SPANS * span - 1, 0)
            reference = reference_volatility(np.log(self.bars.close[begin:]), span).astype(np.float32)
            # As long as the matrix; what lies before the first window's end is not looked at.
            reference = reference[first - begin :] if begin <= first else np.pad(reference, (begin - first, 0))
        symbols = np.full(len(rows), self.place) if self.config.symbol_embedding else None
        return predict_windows(self.run.model, scaled, reference, rows - first, self.config.seq_len, symbols)


def why_not(run: Run, system: FeatureSystem, bars: Bars, row: int) -> str:
    """Say why there is no forecast from a row that has no window."""
    seq_len, columns, step = run.config.seq_len, run.metadata["feature_cols"], timeframe_ms(run.metadata["timeframe"])
    need = system.warmup_bars + seq_len
    assert bars.timestamp is not None
    if row + 1 < need:
        return f"{row + 1} bars are too few to forecast: {system.name} and seq_len {seq_len} need {need}"
    first = row - seq_len + 1
    gaps = np.flatnonzero(gap_before(bars.timestamp[first : row + 1], step))
    if len(gaps):
        before, after = (show_time(int(t)) for t in bars.timestamp[first + gaps[-1] - 1 : first + gaps[-1] + 1])
        return (
            f"bars are missing between {before} and {after}, inside the last {seq_len} bars: load what is missing, or "
            f"wait until {seq_len} bars follow the gap"
        )
    window = _features(system, columns, bars.take(slice(row + 1)), first)
    names = [name for name, column in zip(columns, window.T, strict=True) if not np.isfinite(column).all()]
    return f"the last {seq_len} bars have no finite {', '.join(names)}: the prices do not move"


def _pairs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    return [(column, new.get(name)) for name, column in old.items()]


def _features(system: FeatureSystem, columns: list[str], bars: Bars, first: int) -> Floats:
    """Features (T - first, F) of the rows from ``first`` on, computed from these and what they look back on."""
    begin = system.first_needed(bars, first)
    matrix = system.matrix(bars.take(slice(begin, None)))[:, first - begin :]
    places = [system.features.index(name) for name in columns]
    return np.ascontiguousarray(matrix[places].T)


def _inside(mask: Mask, rows: Rows, length: int) -> Mask:
    """Tell whether any of the ``length`` values of a mask up to each row is true; the mask reaches back far enough."""
    count = np.concatenate(([0], np.cumsum(mask)))
    inside: Mask = count[rows + 1] > count[rows + 1 - length]
    return inside
