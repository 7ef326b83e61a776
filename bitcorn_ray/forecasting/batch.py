"""Forecast all partitions of a source, from their last bars or their whole history.

1. Find the partitions on the run's timeframe: the trained ones, or the named ones.
2. For each one, read its bars, compute its features through the cache, and forecast. This is a pure function, the same
   in this process and in an actor.
3. For much work, share it among a pool of Ray actors, each with the model in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bitcorn_ray.cache.store import FeatureCache, open_cache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.compute import Origin, prepare
from bitcorn_ray.features.identity import system_code
from bitcorn_ray.features.plan import FeatureJob, requested_of, requested_partitions
from bitcorn_ray.fingerprint.code import CodeIdentity, require_same_code
from bitcorn_ray.forecasting.forecaster import Forecaster, first_row
from bitcorn_ray.forecasting.forecasts import Forecasts, plain_table
from bitcorn_ray.logging import logged, logger_of
from bitcorn_ray.market.bars import Bars, closed_bars, show_time
from bitcorn_ray.market.partition import Partition, is_requested, normalise_symbol, select_partitions
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.metrics.calibration import SCORE_WINDOW
from bitcorn_ray.models.interpolation import horizon_weights
from bitcorn_ray.sources.loading import load_partition
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.reader import PartitionReader
from bitcorn_ray.sources.source import open_file, open_source, shown_source
from bitcorn_ray.storage.storage import publish_file
from bitcorn_ray.training.run import Run

_WORTH_RAY = 50_000  # windows; fewer take less time than starting Ray
_log = logger_of(__name__)


@dataclass(frozen=True, kw_only=True)
class PartitionForecast:
    """The result for one partition.

    forecasts: None if there are none. bars: the last bars, as many as the plan keeps. filled: mask of those that were
    filled in, None if none is. error: the reason why there are
    no forecasts. note: a remark on existing forecasts.
    """

    partition: Partition
    source: str
    forecasts: Forecasts | None = None
    bars: Bars | None = None
    filled: NDArray[np.bool_] | None = None
    error: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class ForecastPlan:
    """The jobs with their expected numbers of windows, and the options that they share.

    code: identity of the feature system's code. symbols: the requested ones, None for all. cache: its address. last,
    since: the bars to forecast from. keep_bars: number of bars to return. source_options: with the run's policy.
    unfinished: forecast from a bar that is still open, too.
    """

    jobs: list[FeatureJob]
    sizes: list[int]
    forecaster: Forecaster
    code: CodeIdentity
    symbols: tuple[str, ...] | None
    cache: str
    last: int | None
    since: str | None
    horizons: tuple[int, ...] | None
    keep_bars: int
    source_options: SourceOptions
    unfinished: bool = False

    @property
    def worth_ray(self) -> bool:
        """True if the work takes longer than starting Ray."""
        return len(self.jobs) > 1 and sum(self.sizes) > _WORTH_RAY


def plan_forecasts(
    forecaster: Forecaster,
    source: str | Path,
    *,
    symbols: Sequence[str] | None = None,
    last: int | None = None,
    since: str | None = None,
    horizons: Sequence[int] | None = None,
    cache_dir: str | Path | None = None,
    keep_bars: int = 0,
    source_options: SourceOptions | None = None,
    unfinished: bool = False,
) -> ForecastPlan:
    """Return the plan of forecasts; no bars are read.

    source: a SQLite database, a Parquet or CSV file, or a folder of such files. symbols: in any spelling; by default
    the trained ones, or all if the run does not record them. last: number of last bars to forecast from, by default 1.
    since: forecast from the bars that open at this time or later. horizons: between the trained ones. source_options:
    the run's cleaning policy replaces theirs. unfinished: forecast from a bar that is still open, too.
    Raises BitcornError for a source without bars of the run's timeframe, unknown symbols, and invalid values.
    """
    if last is not None and (since is not None or last < 1):
        raise BitcornError(f"last is {last} and since {since}: give one of them, and last at least 1")
    run, last = forecaster.run, 1 if last is None and since is None else last
    if horizons is not None:
        horizon_weights(run.config.horizons, list(horizons))  # raises for horizons that cannot be interpolated
    source_options = forecaster.source_options(source_options)
    requested, jobs = _requested_jobs(run, source, symbols, source_options)
    reach = SCORE_WINDOW + max(run.config.horizons)
    return ForecastPlan(
        jobs=jobs,
        sizes=[job.size if last is None else min(job.size, last + reach) for job in jobs],
        forecaster=forecaster,
        code=system_code(forecaster.system),
        symbols=requested,
        cache=open_cache(cache_dir).storage.address,
        last=last,
        since=since,
        horizons=None if horizons is None else tuple(horizons),
        keep_bars=keep_bars,
        source_options=source_options,
        unfinished=unfinished,
    )


def run_forecasts(
    plan: ForecastPlan,
    on_done: Callable[[PartitionForecast], None] = lambda _: None,
    *,
    on_ray: bool | None = None,
    address: str | None = None,
    gpus: float = 0.0,
) -> list[PartitionForecast]:
    """Run a plan in this process, or on a pool of actors for much work; return the results sorted by partition.

    on_done: called with each result as it arrives. on_ray: overrides the plan's decision. address: of a Ray cluster.
    gpus: for each actor. A partition that fails has its reason in `error` and does not stop the others.
    """
    results = list[PartitionForecast]()

    def add(done: list[PartitionForecast]) -> None:
        for result in done:
            results.append(result)
            on_done(result)

    if plan.worth_ray if on_ray is None else on_ray:
        from bitcorn_ray.on_ray.session import ray_session

        with ray_session(address):
            from bitcorn_ray.forecasting.distribute import map_with_actors

            make = partial(ForecastWorker, _shared_part(plan), "cuda" if gpus else "cpu")
            _, lost = map_with_actors(make, plan.jobs, plan.sizes, plan.code, add, gpus)
        error = "its actor died at every attempt: check Ray's logs for memory or a crashing library"
        add([PartitionForecast(partition=job.label(), source=shown_source(job.path), error=error) for job in lost])
    else:
        worker = ForecastWorker(plan)
        for job in plan.jobs:
            add(worker(job))
    if not results:
        raise BitcornError(f"none of the files holds bars of {', '.join(plan.symbols or ())}: check the names")
    return sorted(results, key=lambda result: (result.partition, result.source))


class ForecastWorker:
    """Run jobs of a plan one after another with one model."""

    def __init__(self, plan: ForecastPlan, device: str = "cpu") -> None:
        self._plan, self._cache = plan, FeatureCache(plan.cache)
        plan.forecaster.run.move_to(device)

    def __call__(self, job: FeatureJob) -> list[PartitionForecast]:
        """Forecast the partitions of a job. Any failure becomes the error of its partition."""
        try:
            require_same_code(self._plan.code)
            with open_file(job.path, self._plan.source_options) as reader:
                timeframe = self._plan.forecaster.run.metadata["timeframe"]
                every = requested_of(reader.partitions, self._plan.symbols, [timeframe])
                return [
                    self._forecast(reader, each, job.path) for each in ([job.partition] if job.partition else every)
                ]
        except Exception as error:  # reported with the partition by the driver
            return [_failed(job.label(), job.path, error)]

    def _forecast(self, reader: PartitionReader, partition: Partition, path: str) -> PartitionForecast:
        plan = self._plan
        try:
            with logged(_log, "forecast", partition=str(partition)):
                loaded = load_partition(reader, partition, plan.source_options.policy)
                bars, filled, remarks = loaded.bars, loaded.filled, list[str]()
                if not plan.unfinished:
                    bars = closed_bars(bars, timeframe_ms(partition.timeframe), int(time.time() * 1000))
                    filled = None if filled is None else filled[: len(bars)]
                    if len(bars) < len(loaded.bars):
                        opened = show_time(int(loaded.bars.timestamp[len(bars)]))
                        remarks.append(f"the bar of {opened} is still open and left out (--unfinished keeps it)")
                first = first_row(bars, plan.since) if plan.last is None else max(len(bars) - plan.last, 0)
                features = self.features(bars, Origin(shown_source(path), partition, complete=True))
                done = plan.forecaster.forecast(
                    bars, partition, first, features=features, horizons=plan.horizons, filled=filled
                )
                tail = slice(max(len(bars) - plan.keep_bars, 0), None)
                kept = bars.take(tail) if plan.keep_bars else None
                kept_filled = None if filled is None or kept is None else filled[tail]
                latest = bool(len(done)) and done.cutoffs[-1] == bars.timestamp[-1]
                why = None if latest else plan.forecaster.explain_missing(bars)
        except Exception as error:  # a failing partition must not stop the others
            return _failed(partition, path, error)
        if len(done) == 0:
            return PartitionForecast(partition=partition, source=shown_source(path), error=why)
        remarks += [] if why is None else [f"no forecast from its last bar: {why}"]
        note = "; ".join(remarks) or None
        return PartitionForecast(
            partition=partition,
            source=shown_source(path),
            forecasts=done,
            bars=kept,
            filled=kept_filled,
            note=note,
        )

    def features(self, bars: Bars, source: Origin) -> NDArray[np.float32]:
        """Return the features (T, F) by the run's columns, through the cache; NaN in the warm-up."""
        system = self._plan.forecaster.system
        prepared = prepare(bars, system, self._cache, source)
        columns = self._plan.forecaster.run.metadata["feature_cols"]
        features = np.full((len(bars), len(columns)), np.nan, np.float32)
        for index, name in enumerate(columns):
            features[system.warmup_bars :, index] = prepared.columns[name]
        if not prepared.hit:
            self._cache.forget(prepared.superseded)
        return features


def write_parquet(results: Sequence[PartitionForecast], path: str | Path) -> int:
    """Write all forecasts to one file atomically; return the number of rows.

    Raises BitcornError if it cannot be written.
    """
    tables = [plain_table(result.forecasts.to_table()) for result in results if result.forecasts is not None]
    table, sink = pa.concat_tables(tables), pa.BufferOutputStream()
    pq.write_table(table, sink)
    publish_file(path, "forecasts", sink.getvalue())
    return int(table.num_rows)


def _requested_jobs(
    run: Run, source: str | Path, symbols: Sequence[str] | None, source_options: SourceOptions
) -> tuple[tuple[str, ...] | None, list[FeatureJob]]:
    """Return the requested symbols, None for all, and a job for each partition or file that may contain them."""
    timeframe = run.metadata["timeframe"]
    found = list(requested_partitions(open_source(source, source_options), {}, None, [timeframe]))
    known = [partition for _, wanted in found for partition, _ in wanted if partition is not None]
    unread = any(partition is None for _, wanted in found for partition, _ in wanted)
    trained = [partition["symbol"] for partition in run.metadata["partitions"]]
    if symbols is None and trained:
        stored = {normalise_symbol(partition.symbol) for partition in known}
        symbols = trained if unread else [symbol for symbol in trained if normalise_symbol(symbol) in stored]
        if not symbols:
            raise BitcornError(
                f"{shown_source(source)} has none of the symbols that the run was trained on "
                f"({', '.join(trained)}): it has {', '.join(sorted({p.symbol for p in known}))}; name the symbols to "
                "forecast"
            )
    if symbols is not None and not unread:
        select_partitions(known, symbols, None)  # raises for unknown symbols
    jobs = [
        FeatureJob(path=file.address, partition=partition, size=size)
        for file, wanted in found
        for partition, size in wanted
        if partition is None or is_requested(partition, symbols, None)
    ]
    return None if symbols is None else tuple(symbols), jobs


def _shared_part(plan: ForecastPlan) -> ForecastPlan:
    """Return the plan without its jobs and cached forecasts, to send to actors."""
    forecaster = Forecaster(plan.forecaster.run, plan.forecaster.system)
    fields: dict[str, Any] = {**vars(plan), "jobs": [], "sizes": [], "forecaster": forecaster}
    return ForecastPlan(**fields)


def _failed(partition: Partition, path: str, error: Exception) -> PartitionForecast:
    text = str(error) if isinstance(error, BitcornError) else f"{type(error).__name__}: {error}"
    return PartitionForecast(partition=partition, source=shown_source(path), error=text)
