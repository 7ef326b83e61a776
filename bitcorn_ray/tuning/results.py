"""The results of a sweep as files in its folder, and a sweep read back from its folder.

    sweep.json          all trials, the best one, the folds
    trials.parquet      a row per trial: state, losses, and each field that was searched
    forecasts.parquet   out-of-sample forecasts of the best trial, the test windows of all folds stitched together

Shapes: N windows, H horizons.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.forecasting.bands import roll_bands
from bitcorn_ray.forecasting.forecasts import Forecasts, plain_table
from bitcorn_ray.market.outcomes import known_returns
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.metrics.calibration import COVERAGES, conformal_scores
from bitcorn_ray.training.artifacts import strict_json
from bitcorn_ray.training.run import PastScores
from bitcorn_ray.tuning.config import SweepConfig, TrialConfig
from bitcorn_ray.tuning.data import FoldPlan
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.records import FoldRecord
from bitcorn_ray.tuning.search import Trial
from bitcorn_ray.tuning.space import Point
from bitcorn_ray.tuning.trial import TrialPlan, fold_keys


@dataclass(frozen=True, kw_only=True)
class StoredSweep:
    """A sweep or an evolution read from its folder, complete or not.

    trials: by name. plan: what they share. folds: the folds for display. written: the recorded configuration in plain
    values.
    """

    config: SweepConfig
    bars: tuple[PartitionBars, ...]
    trials: dict[str, Trial]
    plan: TrialPlan
    folds: FoldPlan
    written: Mapping[str, Any]


def read_sweep(folder: SweepFolder) -> StoredSweep:
    """Return a sweep, or an evolution as one. Raises BitcornError if the folder holds none, or a damaged one."""
    written, bars = folder.plan(), folder.bars()
    config = SweepConfig.from_json(written["config"])
    folds = FoldPlan.of_sweep(config, bars)
    return StoredSweep(
        config=config,
        bars=bars,
        trials=folder.journal.read(),
        plan=TrialPlan.of(config, folds.folds, written["identities"], folder.records, written["code"]),
        folds=folds,
        written=written["config"],
    )


def write_results(
    folder: SweepFolder, ended: str, trials: Sequence[Trial], folds: Mapping[str, Any], forecasts: pa.Table | None
) -> None:
    """Write the results. folds: of `FoldPlan.to_json`. forecasts: of the best trial, see `stitched`."""
    if forecasts is not None:
        folder.storage.publish("forecasts.parquet", parquet_bytes(forecasts))
    folder.storage.publish("trials.parquet", parquet_bytes(_trials_table(trials, len(folds["folds"]))))
    result = sweep_result(ended, trials, folds, folder.plan()["config"])
    folder.storage.publish("sweep.json", strict_json(result).encode())


def sweep_result(
    ended: str, trials: Sequence[Trial], folds: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of sweep.json. ended: "done", "time", "interrupted" or "failures"."""
    best = best_of(trials)
    return {
        "format": 1,
        "ended": ended,
        "tried": len(trials),
        **{state: sum(trial.state == state for trial in trials) for state in ("finished", "stopped", "failed")},
        "best": None if best is None else {**asdict(best), "loss": best.loss},
        "folds": folds["folds"],
        "partitions": folds["partitions"],
        "trials": [{**asdict(trial), "loss": trial.loss} for trial in trials],
        "config": config,
    }


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the lowest mean loss among those with the most folds; None if no trial has one."""
    known = [trial for trial in trials if trial.losses and trial.state != "failed"]
    return min(known, key=lambda trial: (-len(trial.losses), trial.loss or 0.0, trial.name), default=None)


def fold_records(plan: TrialPlan, trial: Trial) -> list[list[FoldRecord]]:
    """Return the records of a trial: for each finished fold, one per seed."""
    setting, found = TrialConfig.from_json(trial.setting), []
    for fold in plan.folds:
        records = [plan.records.load(key) for key in fold_keys(plan, setting, fold)]
        complete = [record for record in records if record is not None]
        if len(complete) < plan.seeds:
            break
        found.append(complete)
    return found


def stitched(plan: TrialPlan, bars: Sequence[PartitionBars], trial: Trial, horizons: Sequence[int]) -> pa.Table | None:
    """Return the forecasts of all test windows of a trial by its first seed, None without any.

    The columns are those of `Forecasts.to_table`, `fold` and `realised_return` (log, of the horizon). Rows are in time
    order for each partition. Where test ranges overlap, the later fold counts. The bands of a fold start from the
    scores of its validation windows and take in those of its test windows, each once its horizon has passed.
    """
    tables = list[pa.Table]()
    folds = [(fold.number, records[0]) for fold, records in zip(plan.folds, fold_records(plan, trial), strict=False)]
    for index, own in enumerate(bars):
        for position, (number, record) in enumerate(folds):
            cutoffs = record.times[record.partitions == index]
            later = [after.times[after.partitions == index] for _, after in folds[position + 1 :]]
            superseded = np.isin(cutoffs, np.concatenate(later)) if later else np.zeros(len(cutoffs), bool)
            if len(cutoffs):
                table = _forecasts_table(record, number, index, own, horizons)
                tables.append(table.filter(pa.array(np.repeat(~superseded, len(horizons)))))
    return pa.concat_tables(tables) if tables else None


def _forecasts_table(
    record: FoldRecord, fold: int, index: int, bars: PartitionBars, horizons: Sequence[int]
) -> pa.Table:
    """Return the forecasts of a fold for the test windows of one partition, with bands and realised returns."""
    tested, validated = record.partitions == index, record.validation_partitions == index
    cutoffs, returns, volatilities = record.times[tested], record.returns[tested], record.volatilities[tested]
    rows, ends = np.searchsorted(bars.timestamp, cutoffs), cutoffs // bars.step
    realised = known_returns(np.log(bars.close), bars.timestamp // bars.step, rows, horizons, bars.filled)
    scores = conformal_scores(returns, volatilities, realised).astype(np.float32)
    past = PastScores(record.validation_times[validated] // bars.step, record.validation_scores[validated])
    forecasts = Forecasts(
        partition=Partition(bars.symbol, bars.timeframe),
        horizons=tuple(horizons),
        coverages=COVERAGES,
        cutoffs=cutoffs,
        close=bars.close[rows],
        returns=returns,
        volatilities=volatilities,
        widths=roll_bands(past, ends, scores, ends, horizons),
        sample=np.full(len(rows), "test"),
    )
    table = plain_table(forecasts.to_table())
    table = table.append_column("fold", pa.array(np.full(table.num_rows, fold, np.int32)))
    return table.append_column("realised_return", pa.array(realised.ravel()))


def _trials_table(trials: Sequence[Trial], folds: int) -> pa.Table:
    columns: dict[str, Any] = {
        "trial": [trial.name for trial in trials],
        "state": [trial.state for trial in trials],
        "loss": pa.array([trial.loss for trial in trials], pa.float64()),
        "folds": pa.array([len(trial.losses) for trial in trials], pa.int32()),
        "seconds": pa.array([trial.seconds for trial in trials], pa.float64()),
        "error": pa.array([trial.error for trial in trials], pa.string()),
        **loss_columns([trial.losses for trial in trials], folds),
        **point_columns([trial.point for trial in trials]),
    }
    return pa.table(columns)


def loss_columns(losses: Sequence[Sequence[float]], folds: int) -> dict[str, pa.Array]:
    """Return a column per fold of the losses of trials, null where a trial has not finished the fold."""
    return {
        f"loss_fold_{fold}": pa.array([own[fold] if fold < len(own) else None for own in losses], pa.float64())
        for fold in range(folds)
    }


def point_columns(points: Sequence[Point]) -> dict[str, pa.Array]:
    """Return a column per searched field, as JSON if its values have several types."""
    columns = {}
    for name in dict.fromkeys(name for point in points for name in point):
        values = [point.get(name) for point in points]
        try:
            columns[f"search.{name}"] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[f"search.{name}"] = pa.array([json.dumps(value) for value in values], pa.string())
    return columns


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a compressed Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
