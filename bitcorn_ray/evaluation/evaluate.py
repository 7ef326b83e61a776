"""Evaluate a run out of sample against baselines.

1. Forecast every bar that the training has not seen: the test windows, and all later bars.
2. Fit the baselines on the bars before the first validation window, and forecast the same bars with them. The weights
   were fitted before the same time. The validation windows chose the epoch and started the bands; no baseline is fitted
   on them.
3. Score the run, and test the differences, on each partition and on all together.

A symbol that was not trained on is evaluated from the same time as the others, whose bars inform about its market.
Shapes: T bars, N windows, H horizons, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.evaluation.baselines import baseline_forecasts
from bitcorn_ray.features.compute import Origin
from bitcorn_ray.forecasting.batch import ForecastWorker, plan_forecasts, run_forecasts
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.forecasting.forecasts import Forecasts
from bitcorn_ray.market.bars import Bars, milliseconds_of, show_time
from bitcorn_ray.market.outcomes import outcomes
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.metrics.losses import HorizonMetrics, forecast_metrics
from bitcorn_ray.metrics.skill import EvaluatedWindows, HorizonSkill, evaluate_skill
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import shown_source
from bitcorn_ray.storage.location import shown_uri

_ALL_BARS = 2**62


@dataclass(frozen=True, kw_only=True)
class PartitionEvaluation:
    """The evaluation of one partition, by horizon, on windows whose last bars open from `first` to `last`.

    sample: "test", "out of sample" or "other symbol". fitted_until: last time of the bars that baselines were fitted
    on. remarks: on baselines, by name. left_out: number of bars without a window, by reason.
    """

    symbol: str
    timeframe: str
    sample: str
    windows: int
    first: str
    last: str
    fitted_until: str
    metrics: tuple[HorizonMetrics, ...]
    skill: tuple[HorizonSkill, ...]
    remarks: dict[str, str]
    left_out: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation of a run out of sample.

    skill: of all partitions together, averaged at each instant, or of the only one. errors: reasons why partitions were
    not evaluated. notes: warnings about this run and source. windows: by partition.
    """

    run: str
    source: str
    horizons: tuple[int, ...]
    partitions: tuple[PartitionEvaluation, ...]
    skill: tuple[HorizonSkill, ...]
    errors: dict[str, str]
    notes: tuple[str, ...]
    windows: tuple[EvaluatedWindows, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the windows as plain values."""
        values = asdict(replace(self, windows=()))
        del values["windows"]
        return values


def evaluate(
    run: str | Path,
    source: str | Path,
    *,
    symbols: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    on_done: Callable[[str], None] = lambda _: None,
    address: str | None = None,
    allow_changed_code: bool = False,
    source_options: SourceOptions | None = None,
) -> Evaluation:
    """Evaluate a run on the bars of a source that its training has not seen.

    source, symbols, source_options: see `plan_forecasts`. on_done: called with the name of each evaluated partition.
    address: of a Ray cluster, used for many forecasts. allow_changed_code: see `Forecaster.load`.
    Raises BitcornError if nothing is out of sample, and as `Forecaster.load` and `plan_forecasts` do.
    """
    forecaster = Forecaster.load(run, allow_changed_code=allow_changed_code)
    horizons, unseen = forecaster.run.config.horizons, _unseen_from(forecaster.run.metadata, shown_uri(run))
    plan = plan_forecasts(
        forecaster,
        source,
        symbols=symbols,
        since=show_time(min(unseen)),
        cache_dir=cache_dir,
        keep_bars=_ALL_BARS,
        source_options=source_options,
    )
    worker = ForecastWorker(plan)
    windows, partitions = list[EvaluatedWindows](), list[PartitionEvaluation]()
    errors, stored = dict[str, str](), set[str]()
    for done in run_forecasts(plan, address=address):
        name = str(done.partition)
        stored.add(normalise_symbol(done.partition.symbol))
        if done.forecasts is None or done.bars is None:
            errors[name] = done.error or ""
            continue
        try:
            sample, fitted_before, unseen_from = _ranges(forecaster, done.partition, unseen)
            features = worker.features(done.bars, Origin(done.source, done.partition, complete=True))
            own, remarks, rows = evaluated_windows(
                done.bars, done.partition, done.forecasts, fitted_before, unseen_from, features, filled=done.filled
            )
            fitted_until = show_time(fitted_before - 1)
            partitions.append(_evaluation(done.partition, done.forecasts, own, remarks, rows, fitted_until, sample))
            windows.append(own)
        except BitcornError as error:
            errors[name] = str(error)
        on_done(name)
    if not windows:
        raise BitcornError("; ".join(f"{name}: {error}" for name, error in errors.items()))
    return Evaluation(
        run=shown_uri(run),
        source=shown_source(source),
        horizons=horizons,
        partitions=tuple(partitions),
        skill=partitions[0].skill if len(partitions) == 1 else tuple(evaluate_skill(horizons, windows)),
        errors=errors,
        notes=(*forecaster.notes, *(_missing_symbols(forecaster, stored, source) if symbols is None else ())),
        windows=tuple(windows),
    )


def evaluated_windows(
    bars: Bars,
    partition: Partition,
    forecasts: Forecasts,
    fitted_before: int,
    unseen_from: int,
    features: NDArray[np.floating] | None,
    *,
    over_gaps: bool = False,
    filled: NDArray[np.bool_] | None = None,
) -> tuple[EvaluatedWindows, dict[str, str], NDArray[np.int64]]:
    """Return the forecasts of one partition with their outcomes and those of the baselines.

    bars: (T,), all of them. fitted_before: time in ms; baselines are fitted on bars that open earlier, with labels that
    end there. unseen_from: earlier forecasts are ignored. features: (T, F), for the ridge regression. over_gaps: treat
    rows as consecutive bars; otherwise outcomes across missing bars are unknown. filled: (T,) bars that were filled in,
    which are no outcomes.
    Also returns remarks on the baselines, and the indexes of the windows among the forecasts.
    Raises BitcornError if no window is left to evaluate, or to fit on.
    """
    horizons = forecasts.horizons
    kept = np.flatnonzero(forecasts.cutoffs >= unseen_from)
    if len(kept) == 0:
        seen = bars.describe(max(int(np.searchsorted(bars.timestamp, unseen_from)) - 1, 0))
        raise BitcornError(
            f"no window is out of sample: the training has seen the bars of {partition} up to {seen}, and no later one "
            "can be forecast from: hold bars out (bitcorn train --test-frac 0.1), or wait for newer ones"
        )
    numbers = None if over_gaps else bars.timestamp // timeframe_ms(partition.timeframe)
    outcome, realised = outcomes(bars.close, horizons, numbers, filled)
    rows = np.searchsorted(bars.timestamp, forecasts.cutoffs[kept])
    fit = np.flatnonzero(bars.timestamp < fitted_before)
    own = PartitionBars.of(bars, partition, filled)
    baselines = baseline_forecasts(own, outcome, realised, horizons, fit, rows, features)
    windows = EvaluatedWindows(
        times=forecasts.cutoffs[kept],
        returns=forecasts.returns[kept],
        volatilities=forecasts.volatilities[kept],
        outcome=outcome[rows],
        realised=realised[rows],
        baseline_returns=baselines.returns,
        baseline_variances=baselines.variances,
    )
    return windows, baselines.remarks, kept


def _evaluation(
    partition: Partition,
    forecasts: Forecasts,
    windows: EvaluatedWindows,
    remarks: dict[str, str],
    kept: NDArray[np.int64],
    fitted_until: str,
    sample: str,
) -> PartitionEvaluation:
    metrics = forecast_metrics(
        forecasts.horizons,
        windows.returns,
        windows.volatilities,
        windows.outcome,
        windows.realised,
        forecasts.close[kept],
        forecasts.coverages,
        forecasts.widths[kept],
    )
    return PartitionEvaluation(
        symbol=partition.symbol,
        timeframe=partition.timeframe,
        sample=sample,
        windows=len(kept),
        first=show_time(int(windows.times[0])),
        last=show_time(int(windows.times[-1])),
        fitted_until=fitted_until,
        metrics=tuple(metrics),
        skill=tuple(evaluate_skill(forecasts.horizons, [windows])),
        remarks=remarks,
        left_out=forecasts.left_out,
    )


def _missing_symbols(forecaster: Forecaster, stored: Collection[str], source: str | Path) -> Iterator[str]:
    """Yield a note for each trained symbol that is not among the stored ones, which are normalised."""
    for partition in forecaster.run.metadata["partitions"]:
        if normalise_symbol(partition["symbol"]) not in stored:
            yield f"the run was trained on {partition['symbol']} too, of which {shown_source(source)} has no bars"


def _unseen_from(metadata: dict[str, Any], run: str) -> list[int]:
    """Return for each partition of a run the opening, in ms, of the first bar that its training has not seen."""
    unseen = []
    for partition in metadata["partitions"]:
        if partition.get("test"):
            unseen.append(milliseconds_of(partition["test"][0]))
        elif partition.get("last"):
            unseen.append(milliseconds_of(partition["last"]) + 1)
    if not unseen or len(unseen) < len(metadata["partitions"]):
        raise BitcornError(
            f"the run in {run} does not record which bars it was trained on, so that none is known to be out of "
            "sample: train one on bars with timestamps"
        )
    return unseen


def _ranges(forecaster: Forecaster, partition: Partition, unseen: list[int]) -> tuple[str, int, int]:
    """Return the sample of a partition, the end of the baselines' fit, and the start of its evaluation, in ms.

    A symbol without training or validation windows gets the most cautious times of the others.
    """
    known = forecaster.run.metadata["partitions"]
    starts = [milliseconds_of(each["validation"][0]) if each.get("validation") else None for each in known]
    recorded = [start for start in starts if start is not None]
    if not recorded:
        raise BitcornError("the run does not record the start of its validation, which ends the fit of the baselines")
    index = forecaster.run.partition_index(partition.symbol)
    if index is None:
        return "other symbol", min(recorded), max(unseen)
    sample = "test" if known[index].get("test") else "out of sample"
    return sample, starts[index] or min(recorded), unseen[index]
