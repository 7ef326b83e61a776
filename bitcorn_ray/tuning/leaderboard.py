"""Front door to the leaderboard of a sweep: what its trials are worth on test windows, all of them counted.

1. Take the recorded forecasts of every trial, for each fold the windows that all have which came so far. 2. Put the
baselines of the evaluation beside them, see `baselines`. 3. Ask whether volatility is predictable, and direction, see
`validation.leaderboard`.

A sweep that still runs, or was cut short, can be judged as far as it came.
Shapes: T bars, N windows, H horizons, K trials, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.folds import Fold, FoldRows
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.evaluation.baselines import Baselines
from bitcorn_ray.metrics.comparison import Leaderboard, TrialComparison
from bitcorn_ray.metrics.comparison import leaderboard as judged
from bitcorn_ray.metrics.hac import average_by_instant
from bitcorn_ray.metrics.losses import qlike
from bitcorn_ray.metrics.signal import rank_scores, sign_losses, sign_scores
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.tuning.baselines import SweepBaselines
from bitcorn_ray.tuning.config import TrialConfig
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.records import FoldRecord, Trial
from bitcorn_ray.tuning.results import fold_records
from bitcorn_ray.tuning.stored import read_sweep

Float = NDArray[np.float64]
Rows = NDArray[np.int64]

_ALWAYS = {"always up": 1.0, "always down": -1.0}
_MEASURES = ("volatility loss", "volatility score", "direction loss", "direction score")


@dataclass(frozen=True, kw_only=True)
class SweepJudgement:
    """A sweep judged. trials: what was tried, by name. remarks: on baselines that could not be compared with."""

    sweep: str
    board: Leaderboard
    trials: dict[str, Trial]
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything in plain values."""
        trials = {name: {"state": each.state, "search": dict(each.point)} for name, each in self.trials.items()}
        return {"sweep": self.sweep, **asdict(self.board), "trials": trials, "remarks": list(self.remarks)}


@dataclass(frozen=True)
class _FoldTable:
    """One fold by instant: columns (M, K) by measure, for the trials `there`, and (M,) of each baseline by question.

    remarks: on baselines, by partition and baseline.
    """

    number: int
    there: list[int]
    measures: dict[str, Float]
    baselines: dict[str, dict[str, Float]]
    remarks: dict[tuple[str, str], str]


def leaderboard(
    sweep: str | Path, *, level: float = 0.01, seed: int = 0, cache_dir: str | Path | None = None
) -> SweepJudgement:
    """Compare the trials of a sweep on its test windows with each other and baselines, counting all that were tried.

    sweep: folder or URI that `tune` wrote; the baselines are kept there. level: of the whole verdict. seed: of the
    bootstrap. cache_dir: of features, for the ridge regression.
    Raises BitcornError where the folder holds no sweep, or no trial has a fold, and as the baselines do.
    """
    folder = SweepFolder(sweep)
    read = read_sweep(folder)
    config, bars, trials, plan = read.config, read.bars, read.trials, read.plan
    found = {name: fold_records(plan, each) for name, each in trials.items() if each.setting and each.state != "failed"}
    found = {name: records for name, records in found.items() if records}
    if not found:
        raise BitcornError(
            f"none of the {len(trials)} trials of the sweep in {folder.shown} has a fold: nothing to compare"
        )
    baselines = SweepBaselines(
        folder=folder,
        config=config,
        bars=bars,
        identities=plan.identities,
        setting=TrialConfig.from_json(trials[_best(found)].setting),
        cache_dir=cache_dir,
    )
    tables = list[_FoldTable]()
    for place, fold in enumerate(plan.folds):
        there = [column for column, records in enumerate(found.values()) if len(records) > place]
        if there:
            of_fold = [list(found.values())[column][place] for column in there]
            tables.append(_fold_table(there, of_fold, baselines, fold, _later(plan.folds, place)))
    board = judged(
        _questions(tables, len(found), max(config.run.model.horizons)),
        list(found),
        tried=len(trials),
        level=level,
        seed=seed,
    )
    return SweepJudgement(sweep=shown_uri(sweep), board=board, trials=trials, remarks=tuple(_remarks(tables)))


def _best(found: Mapping[str, Sequence[Sequence[FoldRecord]]]) -> str:
    """Name of the trial with the lowest validation loss among those that came furthest: not all have ended."""
    means = {name: np.mean([record.loss for of_fold in folds for record in of_fold]) for name, folds in found.items()}
    return min(found, key=lambda name: (-len(found[name]), means[name]))


def _later(folds: Sequence[Any], place: int) -> list[Sequence[FoldRows]]:
    return [fold.rows for fold in folds[place + 1 :]]


def _fold_table(
    there: list[int],
    records: Sequence[Sequence[FoldRecord]],
    baselines: SweepBaselines,
    fold: Fold,
    later: Sequence[Sequence[FoldRows]],
) -> _FoldTable:
    """Losses and scores of some trials in one fold, averaged over partitions at each instant.

    records: of each trial, one a seed. later: the folds after it, whose test windows are theirs.
    """
    times, values, names = list[Rows](), list[Float](), list[str]()
    remarks = dict[tuple[str, str], str]()
    for place, one in enumerate(baselines.bars):
        shared = _shared_windows(records, place)
        rows = np.searchsorted(one.timestamp, shared)
        for after in later:
            shared, rows = (
                kept[(rows < after[place].test.start) | (rows >= after[place].test.stop)] for kept in (shared, rows)
            )
        own = fold.rows[place]
        if not len(rows) or not own.train.length:
            continue
        made = baselines.of(place, own)
        remarks |= {(one.name, name): text for name, text in made.remarks.items()}
        happened, came = (each[rows] for each in one.outcomes(baselines.config.run.model.horizons))
        columns = _measured(records, place, shared, happened, came)
        columns |= _measured_baselines(made, rows - own.test.start, happened, came)
        kept = np.isfinite(np.column_stack(list(columns.values()))).all(1)
        common = [name for name in names if name in columns] if names else list(columns)
        if names and common != names:  # a baseline that could not be fitted here
            keep = [names.index(name) for name in common]
            values = [each[:, keep] for each in values]
        names = common
        times.append(shared[kept])
        values.append(np.column_stack([columns[name][kept] for name in names]))
    if not times or not any(len(each) for each in times):
        raise BitcornError(f"the trials have no test window of fold {fold.number} in common: give longer test ranges")
    averages = average_by_instant(times, values)
    by_name = {name: averages[:, column] for column, name in enumerate(names)}
    return _FoldTable(
        fold.number,
        there,
        {measure: np.column_stack([by_name[f"{measure}/{k}"] for k in range(len(there))]) for measure in _MEASURES},
        {question: _under(question, by_name) for question in ("volatility", "direction")},
        remarks,
    )


def _under(question: str, by_name: dict[str, Float]) -> dict[str, Float]:
    """The baselines of a question, of names such as "volatility/EWMA"."""
    return {name.partition("/")[2]: each for name, each in by_name.items() if name.startswith(f"{question}/")}


def _shared_windows(records: Sequence[Sequence[FoldRecord]], place: int) -> Rows:
    """Times of a partition's windows that all records have, ascending."""
    shared: Rows | None = None
    for record in (each for of_trial in records for each in of_trial):
        own = record.times[record.places == place]
        shared = own if shared is None else np.intersect1d(shared, own)
    return np.empty(0, np.int64) if shared is None else shared


def _measured(
    records: Sequence[Sequence[FoldRecord]], place: int, shared: Rows, happened: Float, came: Float
) -> dict[str, Float]:
    """Each measure of each trial at N windows of one partition: (N,) by name. happened, came: (N, H)."""
    fold, columns = np.zeros(len(shared), np.int64), dict[str, Float]()
    for k, of_trial in enumerate(records):
        at = [np.searchsorted(each.times[each.places == place], shared) for each in of_trial]
        returns = np.stack([r.returns[r.places == place][i] for r, i in zip(of_trial, at, strict=True)], axis=2)
        sigma = np.stack([r.volatilities[r.places == place][i] for r, i in zip(of_trial, at, strict=True)], axis=2)
        variances = np.square(sigma, dtype=np.float64)
        columns[f"volatility loss/{k}"] = qlike(variances, came[..., None]).mean((1, 2))
        columns[f"volatility score/{k}"] = rank_scores(variances, came, fold).mean(1)
        columns[f"direction loss/{k}"] = sign_losses(returns, happened).mean(1)
        columns[f"direction score/{k}"] = sign_scores(returns, happened, fold).mean(1)
    return columns


def _measured_baselines(made: Baselines, rows: Rows, happened: Float, came: Float) -> dict[str, Float]:
    """Each baseline's loss at N windows, rows of its forecasts: (N,) by name, such as "volatility/EWMA"."""
    columns = {f"volatility/{name}": qlike(each[rows], came).mean(1) for name, each in made.variances.items()}
    signs = {name: np.full(happened.shape, sign) for name, sign in _ALWAYS.items()}
    signs |= {name: each[rows] for name, each in made.returns.items() if name != "random walk"}  # which has no sign
    return columns | {f"direction/{name}": sign_losses(each[..., None], happened)[:, 0] for name, each in signs.items()}


def _questions(tables: Sequence[_FoldTable], trials: int, horizon: int) -> list[TrialComparison]:
    """Put the folds one after another; NaN where a trial did not come so far."""

    def stacked(measure: str) -> Float:
        parts = []
        for table in tables:
            part = np.full((len(table.measures[measure]), trials), np.nan)
            part[:, table.there] = table.measures[measure]
            parts.append(part)
        return np.concatenate(parts)

    def baselines(question: str) -> dict[str, Float]:
        common = [name for name in tables[0].baselines[question] if all(name in t.baselines[question] for t in tables)]
        return {name: np.concatenate([table.baselines[question][name] for table in tables]) for name in common}

    folds = np.concatenate([np.full(len(t.measures["volatility loss"]), t.number, np.int64) for t in tables])
    return [
        TrialComparison(
            name="volatility",
            loss="QLIKE",
            losses=stacked("volatility loss"),
            score="rank correlation",
            scores=stacked("volatility score"),
            baselines=baselines("volatility"),
            folds=folds,
            horizon=horizon,
        ),
        TrialComparison(
            name="direction",
            loss="share of wrong signs",
            losses=stacked("direction loss"),
            score="right signs beyond chance",
            scores=stacked("direction score"),
            baselines=baselines("direction"),
            knowing_nothing=tuple(_ALWAYS),
            folds=folds,
            horizon=horizon,
        ),
    ]


def _remarks(tables: Sequence[_FoldTable]) -> list[str]:
    """What to know about baselines: fits that failed, by fold, and those that some fold has and others have not."""
    places = dict[tuple[str, str, str], list[str]]()
    for table in tables:
        for (partition, name), text in table.remarks.items():
            places.setdefault((name, partition, text), []).append(str(table.number))
    told = [
        f"{name} on {partition}, fold{'s' * (len(folds) > 1)} {', '.join(folds)}: {text}"
        for (name, partition, text), folds in places.items()
    ]
    every = {name for table in tables for name in table.baselines["volatility"]}
    lacking = sorted(name for name in every if any(name not in table.baselines["volatility"] for table in tables))
    return [*told, *(f"{name} could not be fitted in every fold, and is left out" for name in lacking)]
