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

from bitcorn_ray.learning.artifacts import strict_json
from bitcorn_ray.sweeps.config import Setting
from bitcorn_ray.sweeps.folder import SweepFolder
from bitcorn_ray.sweeps.records import FoldRecord, Records, Trial
from bitcorn_ray.sweeps.trial import SweepBars, TrialPlan, fold_keys

__all__ = ["best_of", "fold_records", "parquet_bytes", "stitched", "write_results"]


def write_results(
    folder: SweepFolder, ended: str, trials: Sequence[Trial], folds: Mapping[str, Any], forecasts: pa.Table | None
) -> None:
    """Write the results. folds: as `FoldPlan.to_json` gives them. forecasts: of the best trial, see `stitched`."""
    best = best_of(trials)
    if forecasts is not None:
        folder.write("forecasts.parquet", parquet_bytes(forecasts))
    folder.write("trials.parquet", parquet_bytes(_trials_table(trials, len(folds["folds"]))))
    result = {
        "format": 1,
        "ended": ended,
        "tried": len(trials),
        **{state: sum(each.state == state for each in trials) for state in ("finished", "stopped", "failed")},
        "best": None if best is None else {**asdict(best), "loss": best.loss},
        "folds": folds["folds"],
        "partitions": folds["partitions"],
        "trials": [{**asdict(each), "loss": each.loss} for each in trials],
        "config": folder.plan()["config"],
    }
    folder.write("sweep.json", strict_json(result).encode())


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the lowest mean loss among those that came furthest; None where none has a fold."""
    known = [each for each in trials if each.losses and each.state != "failed"]
    return min(known, key=lambda each: (-len(each.losses), each.loss or 0.0, each.name), default=None)


def fold_records(plan: TrialPlan, trial: Trial) -> list[list[FoldRecord]]:
    """What was recorded of a trial: for each fold, as far as it came, a record for each seed."""
    records, setting, found = Records(plan.records), Setting.from_json(trial.setting), []
    for fold in plan.folds:
        of_fold = [records.load(key) for key in fold_keys(plan, setting, fold)]
        whole = [record for record in of_fold if record is not None]
        if len(whole) < plan.seeds:
            break
        found.append(whole)
    return found


def stitched(plan: TrialPlan, bars: Sequence[SweepBars], trial: Trial, horizons: Sequence[int]) -> pa.Table | None:
    """Forecasts of all test windows of a trial by its first seed, None without any; times in UTC.

    A row a window and horizon: symbol, timeframe, fold, cutoff (opening of the window's last bar), horizon (bars), time
    (opening of the bar forecast), return (log), volatility, price, and what came: realised_return. Where test ranges
    overlap, the later fold counts.
    """
    parts = []
    for fold, of_fold in zip(plan.folds, fold_records(plan, trial), strict=False):
        record = of_fold[0]
        for place, one in enumerate(bars):
            own = record.places == place
            if own.any():
                rows = np.searchsorted(one.timestamp, record.times[own])
                parts.append((fold.number, place, rows, record.returns[own], record.volatilities[own]))
    if not parts:
        return None
    return pa.concat_tables(
        _forecast_rows(bars[place], fold, rows, returns, volatilities, horizons)
        for place, fold, rows, returns, volatilities in _latest(parts)
    )


def _latest(parts: list[tuple[int, int, Any, Any, Any]]) -> list[tuple[int, int, Any, Any, Any]]:
    """Each partition's parts in order, without the windows that a later fold forecasts too."""
    kept = []
    for fold, place, rows, returns, volatilities in parts:
        later = [other[2] for other in parts if other[1] == place and other[0] > fold]
        own = ~np.isin(rows, np.concatenate(later)) if later else np.ones(len(rows), bool)
        if own.any():
            kept.append((place, fold, rows[own], returns[own], volatilities[own]))
    return sorted(kept, key=lambda part: part[:2])


def _forecast_rows(
    one: SweepBars,
    fold: int,
    rows: NDArray[np.int64],
    returns: NDArray[np.float32],
    volatilities: NDArray[np.float32],
    horizons: Sequence[int],
) -> pa.Table:
    every, ahead = len(horizons), np.asarray(horizons, np.int64)
    cutoffs = one.timestamp[rows]
    said = returns.astype(np.float64)
    came = np.log(one.close[rows[:, None] + ahead] / one.close[rows, None])  # a test window's label is known
    count = len(rows) * every
    time = pa.timestamp("ms", "UTC")
    return pa.table(
        {
            "symbol": pa.array([one.symbol] * count, pa.string()),
            "timeframe": pa.array([one.timeframe] * count, pa.string()),
            "fold": pa.array(np.full(count, fold, np.int32)),
            "cutoff": pa.array(np.repeat(cutoffs, every), time),
            "horizon": pa.array(np.tile(ahead, len(rows)).astype(np.int32)),
            "time": pa.array((cutoffs[:, None] + ahead * one.step).ravel(), time),
            "return": said.ravel(),
            "volatility": volatilities.astype(np.float64).ravel(),
            "price": (one.close[rows, None] * np.exp(said)).ravel(),
            "realised_return": came.ravel(),
        }
    )


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
