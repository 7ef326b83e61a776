"""What a sweep comes to, as files in its folder.

    sweep.json          all trials, the best one, the folds
    trials.parquet      a row a trial: state, losses, and each field that was searched
    forecasts.parquet   out-of-sample forecasts of the best trial, the test windows of all folds stitched together

Shapes: N windows, H horizons.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.forecasting.bands import roll_bands
from bitcorn_ray.forecasting.forecasts import Forecasts, plain_table
from bitcorn_ray.market.outcomes import known_returns
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.metrics.calibration import RollingConformal, conformal_scores
from bitcorn_ray.training.artifacts import strict_json
from bitcorn_ray.training.run import PastScores
from bitcorn_ray.tuning.config import TrialConfig
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.records import FoldRecord, Trial
from bitcorn_ray.tuning.trial import TrialPlan, fold_keys


def write_results(
    folder: SweepFolder, ended: str, trials: Sequence[Trial], folds: Mapping[str, Any], forecasts: pa.Table | None
) -> None:
    """Write the results. folds: as `FoldPlan.to_json` gives them. forecasts: of the best trial, see `stitched`."""
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
        **{state: sum(each.state == state for each in trials) for state in ("finished", "stopped", "failed")},
        "best": None if best is None else {**asdict(best), "loss": best.loss},
        "folds": folds["folds"],
        "partitions": folds["partitions"],
        "trials": [{**asdict(each), "loss": each.loss} for each in trials],
        "config": config,
    }


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the lowest mean loss among those with the most folds; None if no trial has one."""
    known = [each for each in trials if each.losses and each.state != "failed"]
    return min(known, key=lambda each: (-len(each.losses), each.loss or 0.0, each.name), default=None)


def fold_records(plan: TrialPlan, trial: Trial) -> list[list[FoldRecord]]:
    """Return the records of a trial: for each finished fold, one per seed."""
    records, setting, found = plan.records, TrialConfig.from_json(trial.setting), []
    for fold in plan.folds:
        of_fold = [records.load(key) for key in fold_keys(plan, setting, fold)]
        whole = [record for record in of_fold if record is not None]
        if len(whole) < plan.seeds:
            break
        found.append(whole)
    return found


def stitched(plan: TrialPlan, bars: Sequence[PartitionBars], trial: Trial, horizons: Sequence[int]) -> pa.Table | None:
    """Forecasts of all test windows of a trial by its first seed, None without any.

    The columns of `Forecasts.to_table`, and fold and realised_return (log, of the horizon), in time order for each
    partition. Where test ranges overlap, the later fold counts. A fold's bands begin on the scores of its validation
    windows, and go on with those of its test windows, each once its horizon has passed.
    """
    made = list[tuple[int, int, Forecasts]]()
    for fold, of_fold in zip(plan.folds, fold_records(plan, trial), strict=False):
        for place, one in enumerate(bars):
            forecasts = _forecasts(of_fold[0], place, one, horizons)
            if len(forecasts):
                made.append((place, fold.number, forecasts))
    tables = [
        _with_outcome(forecasts, number, bars[place], _last_said(forecasts, place, number, made))
        for place, number, forecasts in sorted(made, key=lambda each: each[:2])
    ]
    return pa.concat_tables(tables) if tables else None


def _forecasts(record: FoldRecord, place: int, one: PartitionBars, horizons: Sequence[int]) -> Forecasts:
    """Return the forecasts of a fold for the test windows of one partition, with bands."""
    own, past = record.places == place, record.past_places == place
    cutoffs, returns, volatilities = record.times[own], record.returns[own], record.volatilities[own]
    rows = np.searchsorted(one.timestamp, cutoffs)
    scores = conformal_scores(returns, volatilities, _realised_returns(one, rows, horizons))
    conformal, asked = RollingConformal(horizons), cutoffs // one.step
    validated = PastScores(record.past_times[past] // one.step, record.past_scores[past])
    return Forecasts(
        partition=Partition(one.symbol, one.timeframe),
        horizons=tuple(horizons),
        coverages=conformal.coverages,
        cutoffs=cutoffs,
        close=one.close[rows],
        returns=returns,
        volatilities=volatilities,
        widths=roll_bands(conformal, validated, asked, scores.astype(np.float32), asked),
        sample=np.full(len(rows), "test"),
    )


def _last_said(
    forecasts: Forecasts, place: int, number: int, made: Sequence[tuple[int, int, Forecasts]]
) -> NDArray[np.bool_]:
    """Which of a fold's windows (N,) no later fold forecasts too."""
    later = [each.cutoffs for other, fold, each in made if other == place and fold > number]
    return ~np.isin(forecasts.cutoffs, np.concatenate(later)) if later else np.ones(len(forecasts), bool)


def _with_outcome(forecasts: Forecasts, number: int, one: PartitionBars, kept: NDArray[np.bool_]) -> pa.Table:
    """Some windows (N,) as rows, with the fold and what came."""
    came = _realised_returns(one, np.searchsorted(one.timestamp, forecasts.cutoffs), forecasts.horizons)
    table = plain_table(forecasts.to_table())
    table = table.append_column("fold", pa.array(np.full(table.num_rows, number, np.int32)))
    table = table.append_column("realised_return", pa.array(came.ravel()))
    return table.filter(pa.array(np.repeat(kept, len(forecasts.horizons))))


def _realised_returns(bars: PartitionBars, rows: NDArray[np.int64], horizons: Sequence[int]) -> NDArray[np.float64]:
    """Return the log returns (N, H) after some rows (N,)."""
    return known_returns(np.log(bars.close), bars.timestamp // bars.step, rows, horizons)


def _trials_table(trials: Sequence[Trial], folds: int) -> pa.Table:
    columns: dict[str, Any] = {
        "trial": [each.name for each in trials],
        "state": [each.state for each in trials],
        "loss": pa.array([each.loss for each in trials], pa.float64()),
        "folds": pa.array([len(each.losses) for each in trials], pa.int32()),
        "seconds": pa.array([each.seconds for each in trials], pa.float64()),
        "error": pa.array([each.error for each in trials], pa.string()),
    }
    for fold in range(folds):
        values = [each.losses[fold] if fold < len(each.losses) else None for each in trials]
        columns[f"loss_fold_{fold}"] = pa.array(values, pa.float64())
    for name in dict.fromkeys(name for each in trials for name in each.point):
        columns[f"search.{name}"] = _column([each.point.get(name) for each in trials])
    return pa.table(columns)


def _column(values: list[Any]) -> pa.Array:
    """Values of one kind as they are, others as JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([json.dumps(value) for value in values], pa.string())


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a compressed Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
