"""Front door to evaluation: how much better a run is, out of sample, than what a professional would compare it with.

1. Forecast every bar that no part of the training has seen: the test windows, and all that came after. 2. Fit the
baselines on the bars before the first validation window, and let them forecast the same bars. 3. Score the run, and
test the differences, on each partition and on all together. The weights were fitted before the same instant; the
validation windows chose the epoch and began the bands, and no baseline is fitted on them either.

A symbol that was not trained on is judged from where the others are, as their bars tell of the same market.
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
from bitcorn_ray.metrics.skill import HorizonSkill, JudgedWindows, judge
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import shown_source
from bitcorn_ray.storage.location import shown_uri

_ALL_BARS = 2**62


@dataclass(frozen=True, kw_only=True)
class PartitionEvaluation:
    """One partition: windows from `first` to `last` (openings of their last bars), scored horizon by horizon.

    sample: what the training knew of them. fitted_until: when what baselines were fitted on ended.
    remarks: on baselines, by their name. left_out: bars without a window, by the reason.
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
    """A run judged out of sample.

    skill: of all partitions together, averaged at each instant; of one, that one's. errors: partitions that could not
    be judged, and why. notes: what to know about using this run here. judged: the windows themselves, by partition.
    """

    run: str
    source: str
    horizons: tuple[int, ...]
    partitions: tuple[PartitionEvaluation, ...]
    skill: tuple[HorizonSkill, ...]
    errors: dict[str, str]
    notes: tuple[str, ...]
    judged: tuple[JudgedWindows, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything in plain values, without the windows themselves."""
        told = asdict(replace(self, judged=()))
        del told["judged"]
        return told


def evaluate(
    run: str | Path,
    source: str | Path,
    *,
    symbols: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    on_done: Callable[[str], None] = lambda _: None,
    address: str | None = None,
    allow_changed_code: bool = False,
    reading: Reading | None = None,
) -> Evaluation:
    """Judge a run on the bars of a source that its training has not seen.

    source, symbols, reading: see `plan_forecasts`. on_done: called with each partition's name when it has been judged.
    address: of a Ray cluster, used where there is much to forecast. allow_changed_code: see `Forecaster.load`.
    Raises BitcornError where nothing is out of sample, and as `Forecaster.load` and `plan_forecasts` do.
    """
    forecaster = Forecaster.load(run, allow_changed_code=allow_changed_code)
    unseen = _unseen_from(forecaster.run.metadata, shown_uri(run))
    plan = plan_forecasts(
        forecaster,
        source,
        symbols=symbols,
        since=show_time(min(unseen)),
        cache_dir=cache_dir,
        keep_bars=_ALL_BARS,
        reading=reading,
    )
    worker = ForecastWorker(plan)
    judged, told, errors, there = list[JudgedWindows](), list[PartitionEvaluation](), dict[str, str](), set[str]()
    for done in run_forecasts(plan, address=address):
        name = f"{done.partition}"
        there.add(normalise_symbol(done.partition.symbol))
        if done.forecasts is None or done.bars is None:
            errors[name] = done.error or ""
            continue
        try:
            facts, fitted, cutoffs = _ranges(forecaster, done.partition, unseen)
            features = worker.features(done.bars, Origin(done.source, done.partition, complete=True))
            one, remarks, rows = judged_from(done.bars, done.partition, done.forecasts, fitted, cutoffs, features)
            told.append(_told(done.partition, done.forecasts, one, remarks, rows, show_time(fitted - 1), facts))
            judged.append(one)
        except BitcornError as error:
            errors[name] = str(error)
        on_done(name)
    if not judged:
        raise BitcornError("; ".join(f"{name}: {why}" for name, why in errors.items()))
    return Evaluation(
        run=shown_uri(run),
        source=shown_source(source),
        horizons=forecaster.run.config.horizons,
        partitions=tuple(told),
        skill=told[0].skill if len(told) == 1 else tuple(judge(forecaster.run.config.horizons, judged)),
        errors=errors,
        notes=(*forecaster.notes, *(_absent(forecaster, there, source) if symbols is None else ())),
        judged=tuple(judged),
    )


def judged_from(
    bars: Bars,
    partition: Partition,
    forecasts: Forecasts,
    fitted_before: int,
    unseen_from: int,
    features: NDArray[np.floating] | None,
    *,
    over_gaps: bool = False,
) -> tuple[JudgedWindows, dict[str, str], NDArray[np.int64]]:
    """Put forecasts of one partition beside what happened and what baselines say.

    bars: (T,), all that there are. fitted_before: instant in ms; baselines are fitted on bars that open earlier, with
    labels that end there. unseen_from: forecasts whose last bar opens earlier are passed over. features: (T, F), for
    the ridge regression. Outcomes over missing bars are not known, unless `over_gaps` takes rows as they follow.
    Returns them, remarks on the baselines, and the places of the judged windows among the forecasts.
    Raises BitcornError where nothing is left to judge, or to fit on.
    """
    step, horizons = timeframe_ms(partition.timeframe), forecasts.horizons
    kept = np.flatnonzero(forecasts.cutoffs >= unseen_from)
    if len(kept) == 0:
        seen = bars.describe(max(int(np.searchsorted(bars.timestamp, unseen_from)) - 1, 0))
        raise BitcornError(
            f"no window is out of sample: the training has seen the bars of {partition} up to {seen}, and no later one "
            "can be forecast from: hold bars out (bitcorn train --test-frac 0.1), or wait for newer ones"
        )
    outcome, realised = outcomes(bars.close, horizons, None if over_gaps else bars.timestamp // step)
    rows = np.searchsorted(bars.timestamp, forecasts.cutoffs[kept])
    fit = np.flatnonzero(bars.timestamp < fitted_before)
    own = PartitionBars.of(bars, partition)
    baselines = baseline_forecasts(own, outcome, realised, horizons, fit, rows, features)
    one = JudgedWindows(
        times=forecasts.cutoffs[kept],
        returns=forecasts.returns[kept],
        volatilities=forecasts.volatilities[kept],
        outcome=outcome[rows],
        realised=realised[rows],
        baseline_returns=baselines.returns,
        baseline_variances=baselines.variances,
    )
    return one, baselines.remarks, kept


def _told(
    partition: Partition,
    forecasts: Forecasts,
    one: JudgedWindows,
    remarks: dict[str, str],
    kept: NDArray[np.int64],
    fitted_until: str,
    sample: str,
) -> PartitionEvaluation:
    return PartitionEvaluation(
        symbol=partition.symbol,
        timeframe=partition.timeframe,
        sample=sample,
        windows=len(kept),
        first=show_time(int(one.times[0])),
        last=show_time(int(one.times[-1])),
        fitted_until=fitted_until,
        metrics=tuple(
            forecast_metrics(
                forecasts.horizons,
                one.returns,
                one.volatilities,
                one.outcome,
                one.realised,
                forecasts.close[kept],
                forecasts.coverages,
                forecasts.widths[kept],
            )
        ),
        skill=tuple(judge(forecasts.horizons, [one])),
        remarks=remarks,
        left_out=forecasts.left_out,
    )


def _absent(forecaster: Forecaster, there: Collection[str], source: str | Path) -> Iterator[str]:
    """Say which symbols the run was trained on and the source lacks. there: those that it has, normalised."""
    for each in forecaster.run.metadata["partitions"]:
        if normalise_symbol(each["symbol"]) not in there:
            yield f"the run was trained on {each['symbol']} too, of which {shown_source(source)} has no bars"


def _unseen_from(metadata: dict[str, Any], run: str) -> list[int]:
    """For each partition of a run the opening, in ms, of the first bar that its training has not seen."""
    unseen = []
    for partition in metadata["partitions"]:
        if partition.get("test"):
            unseen.append(milliseconds_of(partition["test"][0]))
        elif partition.get("last"):
            unseen.append(milliseconds_of(partition["last"]) + 1)
    if not unseen or len(unseen) < len(metadata["partitions"]):
        raise BitcornError(
            f"the run in {run} does not say which bars it was trained on, so that none is known to be out of sample: "
            "train one on bars with timestamps"
        )
    return unseen


def _ranges(forecaster: Forecaster, partition: Partition, unseen: list[int]) -> tuple[str, int, int]:
    """What the training knew of a partition's judged bars, until when baselines are fitted, and from when it is judged.

    Of a symbol that was not trained on, or has no validation windows: as the most cautious of those that have.
    """
    known = forecaster.run.metadata["partitions"]
    starts = [milliseconds_of(each["validation"][0]) if each.get("validation") else None for each in known]
    there = [start for start in starts if start is not None]
    if not there:
        raise BitcornError("the run does not say where its validation began, so that no baseline can be fitted before")
    place = forecaster.run.partition_index(partition.symbol)
    if place is None:
        return "other symbol", min(there), max(unseen)
    sample = "test" if known[place].get("test") else "out of sample"
    return sample, starts[place] or min(there), unseen[place]
