"""The data that the trials of a sweep share: bars, folds, and the features of every variant that is searched.

Shapes: T rows of all partitions, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.datasets.folds import Fold, Timeline, walk_forward_folds
from bitcorn_ray.datasets.load import FeatureMatrix, LoadedPartitions, load_partitions
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.plan_folds import FoldPlan
from bitcorn_ray.tuning.records import record_key


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepData:
    """The shared data of a sweep. variants: features by the spec of their system. folds: of all partitions."""

    loaded: LoadedPartitions
    variants: dict[str, FeatureMatrix]
    folds: tuple[Fold, ...]

    @property
    def bars(self) -> tuple[PartitionBars, ...]:
        """Return the bars of the partitions."""
        return self.loaded.bars

    @property
    def identities(self) -> dict[str, str]:
        """Return a hash of the data of each variant, for the keys of records."""
        bars = _bars_digest(self.bars)
        return {spec: record_key(bars, matrix.version, matrix.keys) for spec, matrix in self.variants.items()}


def sweep_data(
    config: SweepConfig,
    *,
    cache_dir: str | Path | None = None,
    systems: Sequence[str] | None = None,
    until: Sequence[int] | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> SweepData:
    """Load the bars of a configuration and the features of every variant, and cut the folds.

    systems: these variants, by default all that the search reaches. until: for each symbol the open of its last bar in
    ms, to leave out later ones.
    Raises BitcornError as `load_partitions` and `walk_forward_folds` do.
    """
    run = config.run
    specs = config.variants() if systems is None else systems
    loaded = load_partitions(
        run.db,
        run.all_symbols,
        run.timeframe,
        specs,
        options=run.reading,
        cache_dir=cache_dir,
        until=until,
        log_fn=log_fn,
    )
    folds = walk_forward_folds(config.folds, timelines_of(loaded.bars), max(run.model.horizons), config.longest_seq_len)
    return SweepData(loaded=loaded, variants=loaded.features, folds=tuple(folds))


def fold_plan(config: SweepConfig, data: SweepData) -> FoldPlan:
    """Return the folds of a sweep for display."""
    horizon, timelines = max(config.run.model.horizons), tuple(timelines_of(data.bars))
    return FoldPlan(config=config.folds, horizon=horizon, timelines=timelines, folds=data.folds)


def timelines_of(bars: Sequence[PartitionBars]) -> list[Timeline]:
    """Return the closes of the bars of each partition."""
    return [Timeline(name=own.name, instants=own.timestamp + own.step, step=own.step) for own in bars]


def _bars_digest(bars: Sequence[PartitionBars]) -> str:
    digest = hashlib.sha256()
    for own in bars:
        digest.update(own.name.encode())
        for column in (own.timestamp, own.close, own.excluded_ends):
            if column is not None:
                digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:32]
