"""The leaderboard of a sweep: the skill of its trials on test windows, with all trials counted.

1. For each fold, take the recorded forecasts at the windows that all its trials share. 2. Add the baselines of the
evaluation, see `baselines`. 3. Test whether volatility and direction are predictable, see `metrics.comparison`.

A sweep that runs or was interrupted is compared on the folds that it finished.
Shapes: T bars, N windows of a partition, M instants, H horizons, K trials, S seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.folds import FoldRows
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.evaluation.baselines import Baselines
from bitcorn_ray.metrics.comparison import Leaderboard, TrialComparison
from bitcorn_ray.metrics.comparison import leaderboard as compare_trials
from bitcorn_ray.metrics.hac import average_by_instant
from bitcorn_ray.metrics.losses import qlike
from bitcorn_ray.metrics.signal import rank_scores, sign_losses, sign_scores
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.tuning.baselines import SweepBaselines
from bitcorn_ray.tuning.config import TrialConfig
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.records import FoldRecord
from bitcorn_ray.tuning.results import fold_records, read_sweep
from bitcorn_ray.tuning.search import Trial

Float = NDArray[np.float64]
Rows = NDArray[np.int64]

_CONSTANT_SIGNS = {"always up": 1.0, "always down": -1.0}
# Name, loss, score and uninformed baselines, in the order of `_measures`.
_QUESTIONS = (
    ("volatility", "QLIKE", "rank correlation", ()),
    ("direction", "share of wrong signs", "right signs beyond chance", tuple(_CONSTANT_SIGNS)),
)


@dataclass(frozen=True, kw_only=True)
class SweepLeaderboard:
    """The leaderboard of a sweep. trials: all of them, by name. remarks: on baselines that are left out."""

    sweep: str
    board: Leaderboard
    trials: dict[str, Trial]
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        trials = {name: {"state": trial.state, "search": dict(trial.point)} for name, trial in self.trials.items()}
        return {"sweep": self.sweep, **asdict(self.board), "trials": trials, "remarks": list(self.remarks)}


@dataclass(frozen=True)
class _FoldTable:
    """One fold by instant.

    measures: (4, M, K) loss and score of volatility, then of direction, NaN for trials without the fold. baselines:
    losses (M,) by question and title. remarks: on baselines, by partition and title.
    """

    number: int
    measures: Float
    baselines: dict[tuple[str, str], Float]
    remarks: dict[tuple[str, str], str]


def leaderboard(
    sweep: str | Path, *, level: float = 0.01, seed: int = 0, cache_dir: str | Path | None = None
) -> SweepLeaderboard:
    """Compare the trials of a sweep on its test windows with each other and with baselines, all trials counted.

    sweep: folder or URI that `tune` wrote; the baselines are stored there. level: significance level of the whole
    verdict. seed: of the bootstrap. cache_dir: of features, for the ridge regression.
    Raises BitcornError if the folder holds no sweep, or no trial has a fold, and as the baselines do.
    """
    folder = SweepFolder(sweep)
    stored = read_sweep(folder)
    trials, folds = stored.trials, stored.plan.folds
    known = [trial for trial in trials.values() if trial.setting and trial.state != "failed"]
    records = {trial.name: found for trial in known if (found := fold_records(stored.plan, trial))}
    if not records:
        raise BitcornError(
            f"none of the {len(trials)} trials of the sweep in {folder.shown} has a fold: nothing to compare"
        )
    baselines = SweepBaselines(
        folder=folder,
        config=stored.config,
        bars=stored.bars,
        identities=stored.plan.identities,
        setting=TrialConfig.from_json(trials[_best_by_validation(records)].setting),
        cache_dir=cache_dir,
    )
    tables = list[_FoldTable]()
    for index, fold in enumerate(folds):
        of_fold = [own[index] if len(own) > index else None for own in records.values()]
        if any(of_fold):
            later = [after.rows for after in folds[index + 1 :]]
            tables.append(_fold_table(of_fold, baselines, fold.number, fold.rows, later))
    board = compare_trials(
        _questions(tables, max(stored.config.run.model.horizons)),
        list(records),
        tried=len(trials),
        level=level,
        seed=seed,
    )
    return SweepLeaderboard(sweep=shown_uri(sweep), board=board, trials=trials, remarks=tuple(_remarks(tables)))


def _best_by_validation(records: Mapping[str, Sequence[Sequence[FoldRecord]]]) -> str:
    """Return the name of the trial with the lowest validation loss among those with the most folds."""
    means = {name: np.mean([record.loss for of_fold in folds for record in of_fold]) for name, folds in records.items()}
    return min(records, key=lambda name: (-len(records[name]), means[name]))


def _fold_table(
    records: Sequence[Sequence[FoldRecord] | None],
    baselines: SweepBaselines,
    number: int,
    fold: Sequence[FoldRows],
    later: Sequence[Sequence[FoldRows]],
) -> _FoldTable:
    """Return the losses and scores of the trials in one fold, averaged over partitions at each instant.

    records: of each trial, one per seed; None without the fold. later: the following folds, to which the windows in
    their test ranges belong.
    """
    present = [column for column, of_trial in enumerate(records) if of_trial]
    trials = [of_trial for of_trial in records if of_trial]
    times, tables = list[Rows](), list[dict[Any, Float]]()
    remarks = dict[tuple[str, str], str]()
    for index, bars in enumerate(baselines.bars):
        shared = _shared_windows(trials, index)
        rows = np.searchsorted(bars.timestamp, shared)
        for after in later:
            own_rows = (rows < after[index].test.start) | (rows >= after[index].test.stop)
            shared, rows = shared[own_rows], rows[own_rows]
        own = fold[index]
        if not len(rows) or not own.train.length:
            continue
        made = baselines.forecasts(index, own)
        remarks |= {(bars.name, name): text for name, text in made.remarks.items()}
        returns, variances = (values[rows] for values in bars.outcomes(baselines.config.run.model.horizons))
        columns: dict[Any, Float] = dict(enumerate(_measures(trials, index, shared, returns, variances).T))
        columns |= _baseline_losses(made, rows - own.test.start, returns, variances)
        known = np.isfinite(np.column_stack(list(columns.values()))).all(1)
        times.append(shared[known])
        tables.append({name: values[known] for name, values in columns.items()})
    if not sum(map(len, times)):
        raise BitcornError(f"the trials have no test window of fold {number} in common: give longer test ranges")
    # A baseline that could not be fitted on every partition is left out.
    names = [name for name in tables[0] if all(name in table for table in tables)]
    averages = average_by_instant(times, [np.column_stack([table[name] for name in names]) for table in tables])
    measures = np.full((4, len(averages), len(records)), np.nan)
    measures[:, :, present] = averages[:, : 4 * len(trials)].reshape(len(averages), 4, -1).transpose(1, 0, 2)
    losses = {name: averages[:, column] for column, name in enumerate(names) if isinstance(name, tuple)}
    return _FoldTable(number, measures, losses, remarks)


def _shared_windows(trials: Sequence[Sequence[FoldRecord]], index: int) -> Rows:
    """Return the times of a partition's windows that all records have, ascending."""
    shared: Rows | None = None
    for record in chain.from_iterable(trials):
        own = record.times[record.partitions == index]
        shared = own if shared is None else np.intersect1d(shared, own)
    return np.empty(0, np.int64) if shared is None else shared


def _measures(
    trials: Sequence[Sequence[FoldRecord]], index: int, shared: Rows, returns: Float, variances: Float
) -> Float:
    """Return the measures (N, 4 * K) of the trials at windows of one partition, those of one kind side by side.

    returns, variances: (N, H), realised.
    """
    fold, measures = np.zeros(len(shared), np.int64), np.empty((len(shared), 4, len(trials)))
    for k, of_trial in enumerate(trials):
        forecasts = []
        for record in of_trial:
            own = np.flatnonzero(record.partitions == index)
            rows = own[np.searchsorted(record.times[own], shared)]
            forecasts.append((record.returns[rows], record.volatilities[rows]))
        expected, sigma = (np.stack(values, axis=2) for values in zip(*forecasts, strict=True))
        forecast = np.square(sigma, dtype=np.float64)
        measures[:, 0, k] = qlike(forecast, variances[..., None]).mean((1, 2))
        measures[:, 1, k] = rank_scores(forecast, variances, fold).mean(1)
        measures[:, 2, k] = sign_losses(expected, returns).mean(1)
        measures[:, 3, k] = sign_scores(expected, returns, fold).mean(1)
    return measures.reshape(len(shared), -1)


def _baseline_losses(made: Baselines, rows: Rows, returns: Float, variances: Float) -> dict[tuple[str, str], Float]:
    """Return the loss (N,) of each baseline by question and title. rows: of the windows among its forecasts."""
    losses = {("volatility", name): qlike(values[rows], variances).mean(1) for name, values in made.variances.items()}
    signs = {name: np.full(returns.shape, sign) for name, sign in _CONSTANT_SIGNS.items()}
    # The random walk has no sign: its return is zero.
    signs |= {name: values[rows] for name, values in made.returns.items() if name != "random walk"}
    for name, sign in signs.items():
        losses["direction", name] = sign_losses(sign[..., None], returns)[:, 0]
    return losses


def _questions(tables: Sequence[_FoldTable], horizon: int) -> list[TrialComparison]:
    """Return the questions over all folds, one after another."""
    measures = np.concatenate([table.measures for table in tables], axis=1)
    folds = np.concatenate([np.full(table.measures.shape[1], table.number, np.int64) for table in tables])
    common = [name for name in tables[0].baselines if all(name in table.baselines for table in tables)]
    losses = {name: np.concatenate([table.baselines[name] for table in tables]) for name in common}

    return [
        TrialComparison(
            name=name,
            loss=loss,
            losses=measures[2 * question],
            score=score,
            scores=measures[2 * question + 1],
            baselines={title: values for (of, title), values in losses.items() if of == name},
            naive_baselines=uninformed,
            folds=folds,
            horizon=horizon,
        )
        for question, (name, loss, score, uninformed) in enumerate(_QUESTIONS)
    ]


def _remarks(tables: Sequence[_FoldTable]) -> list[str]:
    """Return remarks on baselines: failed fits by fold, and baselines that some folds lack."""
    folds = defaultdict[tuple[str, str, str], list[str]](list)
    for table in tables:
        for (partition, name), text in table.remarks.items():
            folds[name, partition, text].append(str(table.number))
    remarks = [
        f"{name} on {partition}, fold{'s' * (len(numbers) > 1)} {', '.join(numbers)}: {text}"
        for (name, partition, text), numbers in folds.items()
    ]
    fitted = [{title for question, title in table.baselines if question == "volatility"} for table in tables]
    lacking = sorted({title for titles in fitted for title in titles if not all(title in others for others in fitted)})
    return [*remarks, *(f"{name} could not be fitted in every fold, and is left out" for name in lacking)]
