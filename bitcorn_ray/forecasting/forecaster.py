"""Forecast with a trained run: from bars to one row for each cutoff and horizon, without Ray.

A forecast depends on no bar after its cutoff, and neither do its bands (see `bands`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.load import feature_identity
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.explain import library_changes, system_changes
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.forecasting.bands import roll_bands
from bitcorn_ray.forecasting.forecasts import Forecasts
from bitcorn_ray.forecasting.inputs import FeatureWindows, Floats, ForecastCache, ForecastInputs
from bitcorn_ray.market.bars import Bars, closed_bars, milliseconds_of, require_chronology
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.metrics.calibration import COVERAGES
from bitcorn_ray.models.interpolation import horizon_weights, interpolate, interpolate_widths
from bitcorn_ray.sources.frames import key_of_frame, read_frame
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.training.run import Run, load_run

if TYPE_CHECKING:
    import pandas as pd


class Forecaster:
    """A trained run that is ready to forecast.

    notes: warnings about this environment, such as libraries of other versions.
    """

    def __init__(self, run: Run, system: FeatureSystem, notes: Sequence[str] = ()) -> None:
        self.run, self.system, self.notes = run, system, tuple(notes)
        self.step = timeframe_ms(run.metadata["timeframe"])
        self._cached: dict[Partition, ForecastCache] = {}

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        system: FeatureSystem | None = None,
        allow_changed_code: bool = False,
        device: str = "cpu",
    ) -> Forecaster:
        """Load a run from its folder, or from a URI such as `s3://bucket/run`.

        system: the feature system, if it cannot be found by its name (one of a notebook). allow_changed_code: forecast
        although the code of the features has changed since the training; the notes then contain the changes. device: of
        the model.
        Raises BitcornError if there is no run, or if its features differ from those here, naming the differences.
        """
        run, shown = load_run(folder, device), shown_uri(folder)
        name = run.metadata["feature_system"]
        if name is None and system is None:
            raise BitcornError(f"the run in {shown} does not name its feature system: train it with feature_system set")
        found = (system or find_system(name)).on_grid(timeframe_ms(run.metadata["timeframe"]))
        return cls(run, found, _compare_features(run.metadata, found, shown, allow_changed_code))

    def predict(
        self,
        bars: pd.DataFrame,
        *,
        last: int = 1,
        horizons: Sequence[int] | None = None,
        unfinished: bool = False,
    ) -> pd.DataFrame:
        """Forecast from the last bar, or from each of the ``last`` bars.

        bars: ascending bars of one partition on the run's timeframe, at least warm-up + seq_len of them. The symbol
        comes from a column, else from the frame's attributes (`load_market_data` sets them), else it is the first
        trained symbol. Bars that a column `filled` marks are not forecast from. horizons: other horizons, between the
        trained ones. unfinished: keep bars that are still open by the clock, which are left out otherwise.
        Returns the columns of `Forecasts.columns`; a band is infinite while there are too few scores. Bars that
        continue those of the previous call cost only the new ones.
        Raises BitcornError if there is no forecast: too few bars, missing bars inside the last window, features that
        are not finite. With several cutoffs, those without a forecast are left out and counted in the frame's
        attribute "left_out".
        """
        if last < 1:
            raise BitcornError(f"last is {last}: it must be at least 1")
        given, partition, filled = self._parse_frame(bars, unfinished)
        return self._require_forecasts(given, partition, max(len(given) - last, 0), horizons, filled).to_frame()

    def history(self, bars: pd.DataFrame, *, since: Any = None, horizons: Sequence[int] | None = None) -> pd.DataFrame:
        """Forecast from every bar, or from those that open at ``since`` or later; see `predict`.

        since: a time that pandas parses; without a zone it is UTC. Raises BitcornError if no bar is that late.
        """
        given, partition, filled = self._parse_frame(bars)
        return self._require_forecasts(given, partition, first_row(given, since), horizons, filled).to_frame()

    def forecast(
        self,
        bars: Bars,
        partition: Partition,
        first: int,
        *,
        features: Floats | None = None,
        horizons: Sequence[int] | None = None,
        remember: bool = False,
        filled: NDArray[np.bool_] | None = None,
    ) -> Forecasts:
        """Forecast from every row of usable bars (T,) from ``first`` on; rows without a window are counted.

        features: (T, F) by the run's columns, NaN in warm-up rows; by default they are computed as far as needed.
        remember: cache the forecasts for bars that continue these. filled: (T,) mask of filled bars, which are
        not forecast from.
        Raises BitcornError for bars of another timeframe, horizons that cannot be interpolated, and a symbol that the
        model cannot tell from others.
        """
        trained = self.run.config.horizons
        weights = None if horizons is None else horizon_weights(trained, list(horizons))
        cached = self._cached.get(partition) if remember else None
        cached = cached if cached is not None and cached.is_prefix_of(bars) else None
        inputs = ForecastInputs(self.run, self.system, bars, partition, first, features, cached, filled)
        returns, volatilities = inputs.forecast()
        if remember:
            self._cached[partition] = inputs.to_cache(returns, volatilities)
        requested, indexes = inputs.requested, np.searchsorted(inputs.rows, inputs.requested)
        widths = roll_bands(
            inputs.past,
            inputs.numbers[inputs.rows],
            inputs.scores(returns, volatilities),
            inputs.numbers[requested],
            trained,
        )
        returns, volatilities = returns[indexes], volatilities[indexes]
        if horizons is not None and weights is not None:
            returns, volatilities = interpolate(returns, volatilities, weights)
            widths = interpolate_widths(widths, weights)
        return Forecasts(
            partition=partition,
            horizons=trained if horizons is None else tuple(horizons),
            coverages=COVERAGES,
            cutoffs=inputs.times[requested],
            close=bars.close[requested],
            returns=returns,
            volatilities=volatilities,
            widths=widths,
            sample=inputs.sample(requested),
            left_out={reason: count for reason, count in inputs.left_out.items() if count},
        )

    def explain_missing(self, bars: Bars) -> str:
        """Return the reason why there is no forecast from the last bar, if it has no valid window."""
        return FeatureWindows(self.run, self.system, bars).explain(len(bars) - 1)

    def source_options(self, options: SourceOptions | None = None) -> SourceOptions:
        """Return the options to read a source for this run: its features' inputs, and the policy of its training."""
        cleaning = self.run.metadata.get("cleaning")
        policy = CleaningPolicy(**cleaning["policy"]) if cleaning else None
        return replace((options or SourceOptions()).with_columns(self.system.inputs), policy=policy)

    def _parse_frame(
        self, frame: pd.DataFrame, unfinished: bool = False
    ) -> tuple[Bars, Partition, NDArray[np.bool_] | None]:
        """Return the bars of a frame, their partition, and a mask of filled bars if there is a column `filled`."""
        bars = read_frame(frame, self.system.inputs)
        if not bars.timed:
            raise BitcornError("the bars have no timestamp: add one")
        if len(bars) == 0:
            raise BitcornError("there are no bars to forecast from: the frame is empty")
        require_chronology(bars.timestamp)
        symbol, known = key_of_frame(frame, "symbol"), self.run.metadata["partitions"]
        if symbol is None:
            symbol = known[0]["symbol"] if known else "bars"
        filled = frame["filled"].to_numpy(dtype=bool) if "filled" in frame.columns else None
        if not unfinished:
            step = timeframe_ms(self.run.metadata["timeframe"])
            bars = closed_bars(bars, step, int(time.time() * 1000))
            filled = None if filled is None else filled[: len(bars)]
        return bars, Partition(symbol, self.run.metadata["timeframe"]), filled

    def _require_forecasts(
        self,
        bars: Bars,
        partition: Partition,
        first: int,
        horizons: Sequence[int] | None,
        filled: NDArray[np.bool_] | None,
    ) -> Forecasts:
        done = self.forecast(bars, partition, first, horizons=horizons, remember=True, filled=filled)
        if len(done) == 0:
            raise BitcornError(self.explain_missing(bars))
        return done


def first_row(bars: Bars, since: Any) -> int:
    """Return the first row that opens at a time or later; None for the first row.

    Raises BitcornError if the time cannot be parsed, and if no bar is that late.
    """
    first = 0 if since is None else int(np.searchsorted(bars.timestamp, milliseconds_of(since)))
    if first == len(bars):
        raise BitcornError(f"no bar opens at {since} or later: the last one opens at {bars.describe(len(bars) - 1)}")
    return first


def _compare_features(
    metadata: Mapping[str, Any], system: FeatureSystem, folder: str, allow_changed_code: bool
) -> list[str]:
    """Return notes on harmless differences between a feature system and the one that a run was trained on.

    Raises BitcornError if they compute other features, naming the differences.
    """
    columns, version = metadata["feature_cols"], metadata["feature_version"]
    absent = [name for name in columns if name not in system.features]
    if version not in (None, system.version) or absent:
        differences = [f"version: {version} became {system.version}"] if version not in (None, system.version) else []
        differences += [f"features {', '.join(absent)} no longer exist"] if absent else []
        raise BitcornError(
            f"the run in {folder} was trained on other features than {system.name} has here "
            f"({'; '.join(differences)}): train it anew"
        )
    trained = metadata.get("features")
    if trained is None:
        return [f"the run does not record the code of its features: it uses the current {system.name}"]
    now = feature_identity(system)
    notes = list(library_changes(trained, now))
    changes = list(system_changes({**trained, "format": None}, {**now, "format": None}))
    code = [change for change in changes if change.startswith(("code of ", "a value in ", "function "))]
    functions = [known.get("code", {}).get("function", "") for known in (trained, now)]
    if functions[0] != functions[1] and all(function.startswith("bitcorn_ray.") for function in functions):
        # A built-in system that has moved: its version says whether its features are the same.
        code = []
        notes.append(f"an older version of bitcorn_ray identified the code of {system.name}: its version decides")
    if others := [change for change in changes if change not in code]:
        raise BitcornError(
            f"the run in {folder} was trained on other features than {system.spec} computes here "
            f"({_shortened(others)}): name the system as it was trained, or train it anew"
        )
    if code and not allow_changed_code:
        raise BitcornError(
            f"the code of {system.spec} is not what the run in {folder} was trained on ({_shortened(code)}): train it "
            "anew, or allow changed code if the features are the same"
        )
    return [*notes, *code]


def _shortened(changes: Sequence[str], most: int = 6) -> str:
    more = f"; and {len(changes) - most} more" if len(changes) > most else ""
    return "; ".join(changes[:most]) + more
