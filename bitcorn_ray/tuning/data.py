"""What the trials of a sweep share: the bars, their folds, and the features of every variant that is reached.

Features come through the cache, each variant's once, before any trial begins.
Shapes: T rows of all partitions, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitcorn_ray import __version__
from bitcorn_ray.cache.store import FeatureCache, open_cache
from bitcorn_ray.datasets.folds import Fold, Timeline, walk_forward_folds
from bitcorn_ray.datasets.load import partition_record
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.compute import Origin, prepare
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.clean import cleaning_record
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.sources.loading import load_bars
from bitcorn_ray.sources.source import shown_source
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.plan_folds import FoldPlan
from bitcorn_ray.tuning.records import record_key
from bitcorn_ray.tuning.trial import SweepBars, Variant

__all__ = ["SweepData", "fold_plan", "sweep_data", "timelines_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepData:
    """bars: of each partition. variants: by their system's text. identities: hashes of the data, by the same.

    cleaning: by which policy bars were repaired and what was done, as runs record it; None without a policy.
    """

    bars: tuple[SweepBars, ...]
    variants: dict[str, Variant]
    folds: tuple[Fold, ...]
    cleaning: dict[str, Any] | None = None

    @property
    def identities(self) -> dict[str, str]:
        """What the data of each variant are, for the keys of records."""
        bars = bars_digest(self.bars)
        return {spec: record_key(__version__, bars, each.version, each.keys) for spec, each in self.variants.items()}


def sweep_data(
    config: SweepConfig,
    *,
    cache_dir: str | Path | None = None,
    systems: Sequence[str] | None = None,
    until: Sequence[int] | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> SweepData:
    """Load the bars of a configuration, cut them into folds, and prepare the features of every variant.

    systems: these variants, by default all that the search reaches. until: for each symbol the opening of its last bar
    in ms, where later ones are to be left out.
    Raises BitcornError as `load_market_data`, `prepare_features` and `walk_forward_folds` do.
    """
    run, cache = config.run, open_cache(cache_dir)
    step = timeframe_ms(run.timeframe)
    if len({normalise_symbol(symbol) for symbol in run.all_symbols}) < len(run.all_symbols):
        raise BitcornError(f"a symbol is named twice in {', '.join(run.all_symbols)}: name each once")
    wanted = {spec: find_system(spec).on_grid(step) for spec in (config.variants() if systems is None else systems)}
    reading = run.reading.with_columns(name for system in wanted.values() for name in system.inputs)
    barred = reading.policy is not None and reading.policy.fills_ahead
    bars, whole, repaired = list[SweepBars](), list[tuple[Bars, Partition]](), dict[str, Any]()
    ends: Sequence[int | None] = until or [None] * len(run.all_symbols)
    for symbol, end in zip(run.all_symbols, ends, strict=True):
        loaded = load_bars(run.db, symbol, run.timeframe, reading=reading, until=end)
        own, partition = loaded.bars, loaded.partition
        assert own.timestamp is not None  # what is loaded has times
        repaired[str(partition)] = loaded.cleaning
        bars.append(
            SweepBars(
                symbol=partition.symbol,
                timeframe=partition.timeframe,
                step=step,
                timestamp=own.timestamp,
                high=own.high,
                low=own.low,
                close=own.close,
                barred=loaded.filled if barred else None,
            )
        )
        whole.append((own, partition))
    folds = walk_forward_folds(config.folds, timelines_of(bars), max(run.model.horizons), config.longest_seq_len)
    variants = {}
    for spec, system in wanted.items():
        variants[spec] = _variant(spec, system, whole, cache, shown_source(run.db), complete=until is None)
        if log_fn:
            log_fn(f"{len(system.features)} features {spec} of {len(variants[spec].matrix):,} bars")
    cleaning = cleaning_record(reading.policy, repaired)
    return SweepData(bars=tuple(bars), variants=variants, folds=tuple(folds), cleaning=cleaning)


def _variant(
    spec: str,
    system: FeatureSystem,
    whole: Sequence[tuple[Bars, Partition]],
    cache: FeatureCache,
    source: str,
    complete: bool,
) -> Variant:
    """Prepare the features of all partitions by one system. source, complete: see `Origin`."""
    matrix = np.empty((sum(len(own) for own, _ in whole), len(system.features)), np.float32)
    keys, origins, start = list[str](), list[dict[str, Any]](), 0
    for own, partition in whole:
        prepared = prepare(own, system, cache, Origin(source, partition, complete=complete))
        rows = matrix[start : start + len(own)]
        rows[: system.warmup_bars] = np.nan
        for place, name in enumerate(system.features):
            rows[system.warmup_bars :, place] = prepared.columns[name]
        keys.append(prepared.plan.key)
        origins.append(partition_record(partition, own, prepared.plan))
        start += len(own)
    return Variant(
        spec=spec,
        version=system.version,
        features=tuple(system.features),
        matrix=matrix,
        keys=tuple(keys),
        origins=tuple(origins),
    )


def fold_plan(config: SweepConfig, data: SweepData) -> FoldPlan:
    """The folds, as they are shown."""
    horizon, timelines = max(config.run.model.horizons), tuple(timelines_of(data.bars))
    return FoldPlan(config=config.folds, horizon=horizon, timelines=timelines, folds=data.folds)


def timelines_of(bars: list[SweepBars] | tuple[SweepBars, ...]) -> list[Timeline]:
    """When the bars of each partition close."""
    return [Timeline(name=one.name, instants=one.timestamp + one.step, step=one.step) for one in bars]


def bars_digest(bars: tuple[SweepBars, ...]) -> str:
    """Hash of what trials see of the bars."""
    digest = hashlib.sha256()
    for one in bars:
        digest.update(one.name.encode())
        for column in (one.timestamp, one.close, *(() if one.barred is None else (one.barred,))):
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:32]
