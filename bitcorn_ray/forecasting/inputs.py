"""The inputs of forecasts: the bars with a valid window, their features, and their reference volatility.

1. Extend the requested bars into the past until the window of scores is full, or to the first bar.
2. Of these earlier bars keep those whose scores count and are not known yet.
3. Leave out bars without a valid window (`datasets.windows`).

Shapes: T bars, N windows, L seq_len, F features, H horizons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.datasets.scaling import finite_rows, scale
from bitcorn_ray.datasets.windows import gap_before, window_defects
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.forecasting.bands import data_split_of, enough_scores, forecast_scores, is_out_of_sample
from bitcorn_ray.market.bars import Bars, modal_step, show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.reference_volatility import REFERENCE_SPANS, reference_volatility
from bitcorn_ray.market.timeframe import timeframe_ms, timeframe_of_ms
from bitcorn_ray.metrics.calibration import SCORE_WINDOW
from bitcorn_ray.models.base import WindowSet
from bitcorn_ray.training.run import PastScores, Run

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ForecastCache:
    """Forecasts from earlier bars.

    first: row of the first bar that they depend on. bars: from that row on. rows: (M,) of the forecasts, ascending.
    returns, volatilities: (M, H).
    """

    first: int
    bars: Bars
    rows: Rows
    returns: Floats
    volatilities: Floats

    def is_prefix_of(self, bars: Bars) -> bool:
        """Return True if other bars continue the cached ones unchanged."""
        new = bars.take(slice(self.first, self.first + len(self.bars)))
        columns = [*self.bars.columns().items(), *self.bars.extra.items()]
        same = {**new.columns(), **new.extra}
        return all(name in same and np.array_equal(column, same[name]) for name, column in columns)


class FeatureWindows:
    """The windows of features before the bars (T,) of one partition, computed as far back as they are needed.

    columns: names of the run's features. features: (T, F) by these columns if they are known, NaN in warm-up rows.
    filled: (T,) mask of filled bars, which are not forecast from.
    """

    def __init__(
        self,
        run: Run,
        system: FeatureSystem,
        bars: Bars,
        features: Floats | None = None,
        filled: Mask | None = None,
    ) -> None:
        self.system, self.bars, self.times = system, bars, bars.timestamp
        self.seq_len, self.columns = run.config.seq_len, run.metadata["feature_cols"]
        self.step = timeframe_ms(run.metadata["timeframe"])
        self.needed = max(system.warmup_bars + self.seq_len, run.model.history_needed(self.step))
        self._filled = np.zeros(len(bars), bool) if filled is None else filled
        self._features = features
        self._computed, self._computed_from = np.empty((0, len(self.columns)), np.float32), len(bars)

    def valid(self, rows: Rows, first: int) -> tuple[Rows, dict[str, int]]:
        """Return the rows (N,), ascending, that have a valid window, and the number of others by reason.

        first: rows before this one are not counted.
        """
        checks: dict[str, Callable[[Rows], Mask]] = {
            "too few bars before": lambda ends: ends < self.needed - 1,
            "filled": lambda ends: self._filled[ends],
            "bars missing": self._spans_gap,
            "features not finite": self._has_gaps_in_features,
        }
        left_out = dict.fromkeys(checks, 0)
        for reason, check in checks.items():
            if len(rows) == 0:
                break
            defect = check(rows)
            left_out[reason] = int((defect & (rows >= first)).sum())
            rows = rows[~defect]
        return rows, left_out

    def explain(self, row: int) -> str:
        """Return the reason why there is no forecast from a row that has no valid window."""
        _, left_out = self.valid(np.array([row]), row)
        first = row - self.seq_len + 1
        if left_out["too few bars before"]:
            return (
                f"{row + 1} bars are too few to forecast: {self.system.name} and seq_len {self.seq_len} need "
                f"{self.needed}"
            )
        if left_out["filled"]:
            return f"the bar at {self.bars.describe(row)} was filled, not traded: forecast from a later bar"
        if left_out["bars missing"]:
            gap = first + int(np.flatnonzero(gap_before(self.times[first : row + 1], self.step))[-1])
            before, after = (show_time(int(time)) for time in self.times[gap - 1 : gap + 1])
            return (
                f"bars are missing between {before} and {after}, inside the last {self.seq_len} bars: load the missing "
                f"bars, or wait until {self.seq_len} bars follow the gap"
            )
        window = self.matrix(first)[: self.seq_len]
        names = [name for name, column in zip(self.columns, window.T, strict=True) if not np.isfinite(column).all()]
        return f"the last {self.seq_len} bars have no finite {', '.join(names)}: the prices do not move"

    def matrix(self, first: int) -> Floats:
        """Return the unscaled features (T - first, F) of the rows from ``first`` on."""
        if self._features is not None:
            return self._features[first:]
        if first < self._computed_from:
            begin = self.system.first_needed(self.bars, first)
            matrix = self.system.matrix(self.bars.take(slice(begin, None)))[:, first - begin :]
            indexes = [self.system.features.index(name) for name in self.columns]
            self._computed, self._computed_from = np.ascontiguousarray(matrix[indexes].T), first
        return self._computed[first - self._computed_from :]

    def _spans_gap(self, ends: Rows) -> Mask:
        begin = int(ends[0]) - self.seq_len + 1
        gaps = gap_before(self.times[begin:], self.step)
        return window_defects(ends - begin, seq_len=self.seq_len, gaps=gaps)["gap"]

    def _has_gaps_in_features(self, ends: Rows) -> Mask:
        begin = int(ends[0]) - self.seq_len + 1
        finite = finite_rows(self.matrix(begin))
        return window_defects(ends - begin, seq_len=self.seq_len, finite=finite)["non_finite_features"]


class ForecastInputs:
    """The inputs to forecast from the bars (T,) of one partition, from row ``first`` on.

    features, filled: see `FeatureWindows`. cached: forecasts from bars that these continue.
    rows: to forecast from, ascending. requested: those of them from ``first`` on. left_out: number of requested rows
    without a valid window, by reason.
    Raises BitcornError for bars of another timeframe, two bars within one timeframe, and an unknown symbol if the model
    distinguishes symbols.
    """

    def __init__(
        self,
        run: Run,
        system: FeatureSystem,
        bars: Bars,
        partition: Partition,
        first: int,
        features: Floats | None = None,
        cached: ForecastCache | None = None,
        filled: Mask | None = None,
    ) -> None:
        self.run, self.system, self.bars, self.config = run, system, bars, run.config
        self.step, self.times = timeframe_ms(partition.timeframe), bars.timestamp
        self.numbers = self.times // self.step  # of the bars on the timeframe's grid
        self._require_grid(partition)
        self.partition, self.index = partition, run.partition_index(partition.symbol)
        known = run.metadata["partitions"]
        if self.index is None and run.model.needs_known_partition:
            raise BitcornError(
                f"the model distinguishes its partitions and was not trained on {partition.symbol}: it forecasts "
                f"{', '.join(trained['symbol'] for trained in known)}; train it on {partition.symbol}, or without "
                "symbol_embedding"
            )
        self.trained_on = {} if not known else None if self.index is None else known[self.index]
        no_scores = PastScores(np.empty(0, np.int64), np.empty((0, len(self.config.horizons)), np.float32))
        self.past = no_scores if self.index is None or not run.scores else run.scores[self.index]
        self.windows, self.filled = FeatureWindows(run, system, bars, features, filled), filled
        self._cached = cached
        self.rows, self.left_out = self._choose(first)
        self.requested = self.rows[self.rows >= first]

    def forecast(self) -> tuple[Floats, Floats]:
        """Return the returns and volatilities, each (N, H), that the model forecasts from `rows`."""
        rows, shape = self.rows, (len(self.rows), len(self.config.horizons))
        returns, volatilities = np.empty(shape, np.float32), np.empty(shape, np.float32)
        new = np.ones(len(rows), dtype=bool)
        if self._cached is not None:
            indexes = np.searchsorted(self._cached.rows, rows)
            new = ~np.isin(rows, self._cached.rows)
            returns[~new] = self._cached.returns[indexes[~new]]
            volatilities[~new] = self._cached.volatilities[indexes[~new]]
        if new.any():
            returns[new], volatilities[new] = self._predict(rows[new])
        return returns, volatilities

    def to_cache(self, returns: Floats, volatilities: Floats) -> ForecastCache:
        """Return the forecasts from `rows` with a copy of the bars that they depend on."""
        first = len(self.bars)
        if len(self.rows):
            first = self.system.first_needed(self.bars, int(self.rows[0]) - self.config.seq_len + 1)
            first = max(min(first, int(self.rows[0]) - REFERENCE_SPANS * self.config.reference_span - 1), 0)
        return ForecastCache(first, self.bars.take(np.arange(first, len(self.bars))), self.rows, returns, volatilities)

    def scores(self, returns: Floats, volatilities: Floats) -> NDArray[np.float32]:
        """Return the scores (N, H) of the forecasts from `rows`, NaN if the outcome is unknown or does not count."""
        if len(self.rows) == 0:
            return np.empty((0, len(self.config.horizons)), np.float32)
        first = int(self.rows[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            log_close = np.log(self.bars.close[first:])
        scores = forecast_scores(
            self.numbers[first:],
            log_close,
            self.rows - first,
            self.config.horizons,
            returns,
            volatilities,
            None if self.filled is None else self.filled[first:],
        )
        scores[~is_out_of_sample(self.sample(self.rows))] = np.nan
        return scores

    def _has_enough(self, rows: Rows, at: int) -> bool:
        """Return True if the scores of forecasts from some rows (N,) fill the window of scores at a bar."""
        return enough_scores(self.numbers, rows, self.past, self.config.horizons, SCORE_WINDOW, at, self.filled)

    def sample(self, rows: Rows) -> NDArray[np.str_]:
        """Return the data split (N,) that some rows belong to, see `bands.data_split_of`."""
        return data_split_of(self.trained_on, self.times[rows])

    def _require_grid(self, partition: Partition) -> None:
        if (step := modal_step(self.times[-2_048:])) not in (0, self.step):
            raise BitcornError(
                f"the bars are {timeframe_of_ms(step)} apart, but the run forecasts {partition.timeframe}: give it "
                "bars of that timeframe"
            )
        if len(repeated := np.flatnonzero(np.diff(self.numbers) == 0)):
            one, other = (show_time(int(time)) for time in self.times[repeated[0] : repeated[0] + 2])
            raise BitcornError(
                f"the bars at {one} and {other} lie within one {partition.timeframe}: repair the bars "
                "(--clean off-grid=drop when training, which the run records; in Python load them with a policy)"
            )

    def _choose(self, first: int) -> tuple[Rows, dict[str, int]]:
        """Return the rows to forecast from, ascending, and the counts of requested rows that have no window."""
        horizons = self.config.horizons
        reach = SCORE_WINDOW + max(horizons)
        while True:
            start = max(first - reach, 0)
            before = np.arange(start, first)
            counted = is_out_of_sample(self.sample(before)) & ~np.isin(self.numbers[before], self.past.bars)
            rows, left_out = self._with_window(
                np.concatenate([before[counted], np.arange(first, len(self.bars))]), first
            )
            at = int(self.numbers[first])
            if start == 0 or self._has_enough(rows[rows < first], at):
                return rows, left_out
            reach *= 2

    def _with_window(self, rows: Rows, first: int) -> tuple[Rows, dict[str, int]]:
        """Return the rows with a valid window, cached ones included, and the counts of the others from ``first`` on."""
        cached = np.isin(rows, self._cached.rows) if self._cached is not None else np.zeros(len(rows), dtype=bool)
        valid, left_out = self.windows.valid(rows[~cached], first)
        return np.sort(np.concatenate([rows[cached], valid])), left_out

    def _predict(self, rows: Rows) -> tuple[Floats, Floats]:
        first = int(rows[0]) - self.config.seq_len + 1
        with np.errstate(invalid="ignore"):
            scaled = scale(self.windows.matrix(first), self.run.scaler)
        reference = None
        if span := self.config.reference_span:
            begin = max(int(rows[0]) - REFERENCE_SPANS * span - 1, 0)
            reference = reference_volatility(np.log(self.bars.close[begin:]), span).astype(np.float32)
            # As long as the matrix; rows before the end of the first window are not read.
            reference = reference[first - begin :] if begin <= first else np.pad(reference, (begin - first, 0))
        forecast = self.run.model.predict(
            WindowSet(
                matrix=scaled,
                ends=rows - first,
                seq_len=self.config.seq_len,
                reference=reference,
                partitions=np.full(len(rows), -1 if self.index is None else self.index),
                bars=(PartitionBars.of(self.bars, self.partition),),
                bar_rows=rows,
                bar_indexes=np.zeros(len(rows), np.int64),
            )
        )
        return forecast.returns.astype(np.float32), forecast.volatilities.astype(np.float32)
