"""Intervals that hold what they promise: conformal prediction (Vovk et al. 2005; Lei et al. 2018).

A score is how far off a forecast was in units of its own volatility, |return - forecast| / volatility, on windows that
the weights were not fitted on. The finite-sample quantile of n scores at level c covers a new exchangeable score with a
probability of at least c.

A market is not exchangeable with its past, so `RollingConformal` goes along with it:

1. A forecast made at bar t for horizon h is scored when bar t + h has closed: only then is its score mature. Bars are
   numbers on the grid of the timeframe, so that missing bars are time that has passed.
2. The bands of the forecast made at bar t come from the last `window` scores mature at t, each horizon its own.
3. The state is what is needed to go on: the last mature scores and those that are not mature yet. Going on from a state
   gives what going through in one piece gives, number by number.

Each partition has a state of its own, begun on the scores of its validation windows.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

COVERAGES = (0.5, 0.8, 0.95)

Array = NDArray[np.floating]
Rows = NDArray[np.int64]


def conformal_scores(forecast: Array, volatility: Array, outcome: Array) -> Array:
    """Absolute errors in units of the predicted volatility; same shape as the inputs, NaN where the outcome is."""
    return np.abs(outcome - forecast) / volatility


def conformal_quantile(scores: Array, coverage: float) -> Array:
    """Half-width of the band, in units of volatility: the ceil((n + 1) coverage)-th smallest of (n, H) scores -> (H,).

    With too few scores for the level the band is infinite, as nothing narrower could be promised.
    """
    _require_coverage(coverage)
    rank = _rank(len(scores), coverage)
    if rank > len(scores):
        return np.full(scores.shape[1:], np.inf)
    quantile: Array = np.partition(scores, rank - 1, axis=0)[rank - 1]
    return quantile


@dataclass
class _Horizon:
    """Scores of one horizon, in time order: mature ones, and the later ones with the bars they were forecast at."""

    mature: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    waiting: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    waiting_bars: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    last_bar: int | None = None  # of the latest score, mature or not


class RollingConformal:
    """Bands of successive forecasts of one partition from the scores that were mature when each was made.

    horizons: bars ahead (H). coverages: the levels (K), each above 0 and below 1. window: mature scores that count, the
    last ones, of each horizon.
    """

    def __init__(self, horizons: Sequence[int], coverages: Sequence[float] = COVERAGES, window: int = 4_000):
        self.horizons = tuple(int(horizon) for horizon in horizons)
        self.coverages = tuple(float(coverage) for coverage in coverages)
        self.window = int(window)
        if not self.horizons or min(self.horizons) < 1 or self.window < 1:
            raise BitcornError(f"horizons {self.horizons} and window {window}: one horizon at least, all 1 or more")
        for coverage in self.coverages:
            _require_coverage(coverage)
        self.now: int | None = None
        self._states = [_Horizon() for _ in self.horizons]

    @property
    def counts(self) -> tuple[int, ...]:
        """Mature scores that the next bands come from, of each horizon."""
        return tuple(len(state.mature) for state in self._states)

    def extend(self, bars: Rows, scores: Array) -> None:
        """Add the scores (N, H) of forecasts made at bars (N,), ascending numbers on the timeframe's grid.

        NaN is a score that is not known (yet): it never counts, and may be given later, as long as each horizon's
        scores come in time order. Scores given before they are mature wait.
        Raises BitcornError where scores are negative, infinite, of another shape, or come twice or out of order.
        """
        bars, scores = self._checked(bars, scores)
        self._add(bars, scores)
        if len(bars):
            self.now = int(bars[-1]) if self.now is None else max(self.now, int(bars[-1]))
            for state, horizon in zip(self._states, self.horizons, strict=True):
                _ripen(state, horizon, self.now, self.window)

    def bands(self, bars: Rows, scores: Array | None = None) -> NDArray[np.float32]:
        """Half-widths (N, K, H), in units of the forecast volatility, of successive forecasts made at bars (N,).

        The band of a forecast made at bar t and horizon h is the conformal quantile of the last `window` scores of
        forecasts made no later than bar t - h. It is infinite as long as these are too few for the level.
        scores: of these very forecasts (N, H), where they are known already, as in a test over history: each counts for
        the forecasts of this call, and of later ones, that are made after it is mature, and for none before.
        Raises BitcornError as `extend` does, and where bars lie before an earlier call's.
        """
        bars, checked = self._checked(bars, scores)
        if len(bars) and self.now is not None and bars[0] < self.now:
            raise BitcornError(f"bands at bar {bars[0]} are asked for after bar {self.now}: go on in time order")
        self._add(bars, checked)
        widths = np.empty((len(bars), len(self.coverages), len(self.horizons)), np.float32)
        for j, (state, horizon) in enumerate(zip(self._states, self.horizons, strict=True)):
            widths[:, :, j] = self._rolled(state, horizon, bars)
        if len(bars):
            self.now = int(bars[-1])
        return widths

    def to_json(self) -> dict[str, Any]:
        """The whole state in plain JSON values, the same numbers when read back."""
        return {
            "horizons": list(self.horizons),
            "coverages": list(self.coverages),
            "window": self.window,
            "now": self.now,
            "scores": [
                {
                    "mature": _short(state.mature),
                    "waiting": _short(state.waiting),
                    "waiting_bars": state.waiting_bars.tolist(),
                    "last_bar": state.last_bar,
                }
                for state in self._states
            ],
        }

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> RollingConformal:
        """The state that `to_json` gave. Raises BitcornError where it is none."""
        try:
            conformal = cls(state["horizons"], state["coverages"], state["window"])
            conformal.now = None if state["now"] is None else int(state["now"])
            conformal._states = [
                _Horizon(
                    np.array(one["mature"], np.float32),
                    np.array(one["waiting"], np.float32),
                    np.array(one["waiting_bars"], np.int64),
                    None if one["last_bar"] is None else int(one["last_bar"]),
                )
                for one in state["scores"]
            ]
            whole = all(one.waiting.shape == one.waiting_bars.shape for one in conformal._states)
            if not whole or len(conformal._states) != len(conformal.horizons):
                raise ValueError("scores, bars and horizons differ in number")
        except (KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise BitcornError(f"the calibration state is damaged ({what}): calibrate anew") from error
        return conformal

    def _checked(self, bars: Rows, scores: Array | None) -> tuple[Rows, NDArray[np.float32]]:
        bars = np.asarray(bars)
        whole = len(bars) == 0 or np.issubdtype(bars.dtype, np.integer)
        if bars.ndim != 1 or not whole or (np.diff(bars) <= 0).any():
            raise BitcornError(f"bars are {bars.dtype} of shape {bars.shape}: give ascending whole numbers, each once")
        shape = (len(bars), len(self.horizons))
        given = np.full(shape, np.nan, np.float32) if scores is None else np.asarray(scores, np.float32)
        if given.shape != shape:
            raise BitcornError(f"scores have shape {given.shape}, not {shape}: one row a bar, one column a horizon")
        if np.isinf(given).any() or (given < 0).any():
            raise BitcornError(
                f"{np.count_nonzero(np.isinf(given) | (given < 0))} scores are infinite or negative: a score is "
                "|return - forecast| / volatility with a volatility above 0, or NaN where the return is not known"
            )
        return bars.astype(np.int64), given

    def _add(self, bars: Rows, scores: NDArray[np.float32]) -> None:
        known = ~np.isnan(scores)
        for state, horizon, column in zip(self._states, self.horizons, known.T, strict=True):
            if column.any() and state.last_bar is not None and bars[column][0] <= state.last_bar:
                raise BitcornError(
                    f"scores of horizon {horizon} at bar {bars[column][0]} come after those of bar {state.last_bar}: "
                    "give them in time order, each once"
                )
        for j, state in enumerate(self._states):
            if known[:, j].any():
                state.waiting = np.concatenate([state.waiting, scores[known[:, j], j]])
                state.waiting_bars = np.concatenate([state.waiting_bars, bars[known[:, j]]])
                state.last_bar = int(state.waiting_bars[-1])

    def _rolled(self, state: _Horizon, horizon: int, bars: Rows) -> NDArray[np.float32]:
        """Bands (N, K) of one horizon; the state goes along to the last bar."""
        begun = len(state.mature)
        # Scores as Python floats: a list of them is kept sorted faster than an array, by bisection.
        queue: list[float] = np.concatenate([state.mature, state.waiting]).tolist()
        ripe = begun + np.searchsorted(state.waiting_bars + horizon, bars, side="right")
        ordered: list[float] = np.sort(state.mature).tolist()
        widths = np.full((len(bars), len(self.coverages)), np.inf, np.float32)
        ranks = self._ranks(begun)
        added = begun
        for i, until in enumerate(ripe.tolist()):
            for position in range(added, until):
                insort(ordered, queue[position])
                if len(ordered) > self.window:
                    del ordered[bisect_left(ordered, queue[position - self.window])]
                else:
                    ranks = self._ranks(len(ordered))
            added = until
            for k, rank in ranks:
                widths[i, k] = ordered[rank]
        if len(bars):
            _ripen(state, horizon, int(bars[-1]), self.window)
        return widths

    def _ranks(self, count: int) -> list[tuple[int, int]]:
        """Of the levels that `count` scores suffice for: their numbers, and the place of their quantile in order."""
        ranks = [(k, _rank(count, coverage)) for k, coverage in enumerate(self.coverages)]
        return [(k, rank - 1) for k, rank in ranks if rank <= count]


def _ripen(state: _Horizon, horizon: int, now: int, window: int) -> None:
    """Move the scores that are mature at bar `now` to the mature ones, of which the last `window` are kept."""
    ripe = int(np.searchsorted(state.waiting_bars + horizon, now, side="right"))
    state.mature = np.concatenate([state.mature, state.waiting[:ripe]])[-window:]
    state.waiting, state.waiting_bars = state.waiting[ripe:], state.waiting_bars[ripe:]


def _rank(count: int, coverage: float) -> int:
    # Rounded, as 100 x 0.55 is a little more than 55 in floating point.
    return math.ceil(round((count + 1) * coverage, 9))


def _require_coverage(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise BitcornError(f"coverage is {coverage}: it must lie between 0 and 1")


def _short(scores: NDArray[np.float32]) -> list[float]:
    """The shortest decimals that read back as the same float32: half the text of a double's."""
    return [float(str(score)) for score in scores]
