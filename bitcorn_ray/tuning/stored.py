"""A sweep as it lies in its folder, whether it has ended or not: what reads it goes on from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.datasets.folds import walk_forward_folds
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.data import timelines_of
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.plan_folds import FoldPlan
from bitcorn_ray.tuning.records import Trial
from bitcorn_ray.tuning.trial import TrialPlan


@dataclass(frozen=True, kw_only=True)
class StoredSweep:
    """A sweep read back.

    trials: as far as they came, by name. plan: what they have in common. folds: the same, as they are shown. written:
    its configuration in plain values, as it was recorded.
    """

    config: SweepConfig
    bars: tuple[PartitionBars, ...]
    trials: dict[str, Trial]
    plan: TrialPlan
    folds: FoldPlan
    written: Mapping[str, Any]


def read_sweep(folder: SweepFolder) -> StoredSweep:
    """Read a sweep, or an evolution as one. Raises BitcornError where the folder holds none, or a damaged one."""
    written, bars = folder.plan(), folder.bars()
    config = SweepConfig.from_json(written["config"])
    horizon, timelines = max(config.run.model.horizons), tuple(timelines_of(bars))
    folds = tuple(walk_forward_folds(config.folds, timelines, horizon, config.longest_seq_len))
    plan = TrialPlan(
        folds=folds,
        seeds=config.sweep.seeds,
        objective=config.sweep.objective,
        judged_seq_len=config.longest_seq_len,
        device="cpu",
        records=folder.records,
        identities=written["identities"],
        code=written.get("code"),
    )
    return StoredSweep(
        config=config,
        bars=bars,
        trials=folder.journal.read(),
        plan=plan,
        folds=FoldPlan(config=config.folds, horizon=horizon, timelines=timelines, folds=folds),
        written=written["config"],
    )
