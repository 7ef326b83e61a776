"""Front door to a sweep's page: everything that its folder tells, put together for `report.sweep_page`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.forecasting.forecasts import band_name
from bitcorn_ray.metrics.calibration import COVERAGES
from bitcorn_ray.metrics.selection import fill_stopped
from bitcorn_ray.report.judgement import Track
from bitcorn_ray.report.sweep_page import SweepReport
from bitcorn_ray.training.artifacts import strict_json
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.leaderboard import leaderboard
from bitcorn_ray.tuning.results import StoredSweep, best_of, read_sweep, stitched, sweep_result
from bitcorn_ray.tuning.search import Trial, search_importance


def sweep_report(place: str | Path, *, level: float = 0.01, cache_dir: str | Path | None = None) -> SweepReport:
    """Read a sweep or an evolution, and judge it on its test windows.

    level, cache_dir: see `leaderboard`. Raises BitcornError where the place holds no sweep, or a damaged one.
    """
    folder = SweepFolder(place)
    sweep = read_sweep(folder)
    every = tuple(sweep.trials.values())
    best = best_of(every)
    evolution = _json(folder, "evolution.json")
    ended = (_json(folder, "sweep.json") or evolution or {}).get("ended", "not yet, or it was cut short")
    forecasts = None if best is None else stitched(sweep.plan, sweep.bars, best, sweep.config.run.model.horizons)
    result = json.loads(strict_json(sweep_result(ended, every, sweep.folds.to_json(), sweep.written)))
    comparable, judgement, why_not = _comparable(every), None, ""
    try:
        judgement = json.loads(strict_json(leaderboard(place, level=level, cache_dir=cache_dir).to_json()))
    except BitcornError as error:
        why_not = str(error)
    return SweepReport(
        name=folder.shown,
        result=result,
        plan=sweep.folds.to_json(),
        logarithmic=[each.name for each in sweep.config.space.dimensions if each.kind == "loguniform"],
        judgement=judgement,
        why_not=why_not,
        comparable=comparable,
        # Of an evolution the features, which are what is searched, are no fields of the space.
        importance={}
        if evolution is not None
        else search_importance(sweep.config.space, [(each.point, comparable.get(each.name)) for each in every]),
        tracks=[] if forecasts is None else _tracks(forecasts, sweep),
        coverage=[] if forecasts is None else _coverage(forecasts, sweep),
        evolution=evolution,
    )


def _comparable(trials: Sequence[Trial]) -> dict[str, float]:
    """Mean loss of each trial over all folds that any did, those that it did not do filled in as on the leaderboard."""
    known = [each for each in trials if each.losses and np.isfinite(each.losses).all()]
    losses = np.full((max((len(each.losses) for each in known), default=0), len(known)), np.nan)
    for column, each in enumerate(known):
        losses[: len(each.losses), column] = each.losses
    means = fill_stopped(losses).mean(0).tolist() if known else []
    return dict(zip((each.name for each in known), means, strict=True))


def _json(folder: SweepFolder, name: str) -> dict[str, Any] | None:
    """A result that is there once the sweep has ended."""
    try:
        read: dict[str, Any] = json.loads(bytes(folder.storage.read(name)))
    except (OSError, ValueError):
        return None
    return read


def _tracks(forecasts: pa.Table, sweep: StoredSweep) -> list[Track]:
    """Volatility as it was forecast and as it came, at the shortest and the longest horizon."""
    horizons = sweep.config.run.model.horizons
    tracks = []
    for one in sweep.bars:
        for horizon in sorted({min(horizons), max(horizons)}):
            own = _of(forecasts, one.symbol, one.timeframe, horizon)
            times = own["cutoff"].cast(pa.int64()).to_numpy()
            _, came = one.outcomes([horizon])
            if own.num_rows:
                tracks.append(
                    Track(
                        name=one.name,
                        horizon=horizon,
                        times=times,
                        forecast=own["volatility"].to_numpy(),
                        realised=np.sqrt(came[np.searchsorted(one.timestamp, times), 0]),
                    )
                )
    return tracks


def _coverage(forecasts: pa.Table, sweep: StoredSweep) -> list[tuple[str, ...]]:
    """A row a partition and horizon: windows, and the share of outcomes inside each band that is bounded."""
    rows = []
    for one in sweep.bars:
        for horizon in sweep.config.run.model.horizons:
            own = _of(forecasts, one.symbol, one.timeframe, horizon)
            came, forecast = own["realised_return"].to_numpy(), own["return"].to_numpy()
            price = own["price"].to_numpy()
            cells = []
            for coverage in COVERAGES:
                half = np.log(own[band_name("hi", coverage)].to_numpy() / price)
                known = np.isfinite(half) & np.isfinite(came)
                inside = np.abs(came - forecast)[known] <= half[known]
                cells.append(f"{100 * inside.mean():.1f} %" if len(inside) else "")
            rows.append((one.name, f"{horizon}", f"{own.num_rows:,}", *cells))
    return rows


def _of(forecasts: pa.Table, symbol: str, timeframe: str, horizon: int) -> pa.Table:
    chosen = pc.and_(pc.equal(forecasts["symbol"], symbol), pc.equal(forecasts["timeframe"], timeframe))
    return forecasts.filter(pc.and_(chosen, pc.equal(forecasts["horizon"], horizon)))
