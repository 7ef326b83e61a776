"""The data that the trials of a sweep share: bars, folds, and the features of every variant that is searched.

Shapes: T rows of all partitions, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.datasets.folds import Fold, FoldsConfig, Span, Timeline, walk_forward_folds
from bitcorn_ray.datasets.load import FeatureMatrix, LoadedPartitions, load_partitions
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.models.registry import model_config
from bitcorn_ray.sources.loading import load_bars
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.training.config import read_yaml, validated
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.records import record_key
from bitcorn_ray.tuning.space import SEQ_LEN, Space


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldPlan:
    """The walk-forward folds of partitions. horizon: bars of the longest label. timelines: one per partition."""

    config: FoldsConfig
    horizon: int
    timelines: tuple[Timeline, ...]
    folds: tuple[Fold, ...]

    @classmethod
    def of(cls, config: FoldsConfig, bars: Sequence[PartitionBars], horizon: int, seq_len: int) -> FoldPlan:
        """Return the folds of bars. seq_len: of the longest window. Raises BitcornError as `walk_forward_folds` does.

        The instants of a timeline are the closes of its bars.
        """
        lines = tuple(Timeline(name=own.name, instants=own.timestamp + own.step, step=own.step) for own in bars)
        folds = walk_forward_folds(config, lines, horizon, seq_len)
        return cls(config=config, horizon=horizon, timelines=lines, folds=tuple(folds))

    @classmethod
    def of_sweep(cls, config: SweepConfig, bars: Sequence[PartitionBars]) -> FoldPlan:
        """Return the folds of a sweep. Raises BitcornError as `walk_forward_folds` does."""
        return cls.of(config.folds, bars, max(config.run.model.horizons), config.longest_seq_len)

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the ranges of each fold, purged, with the closes of their first and last bars.

        `span` is a half-open range in ms. `bars` counts the bars of each partition, in the order of `partitions`.
        """
        return {
            "horizon": self.horizon,
            "window": self.config.window,
            "partitions": [
                {
                    "name": line.name,
                    "bars": len(line.instants),
                    "first": show_time(int(line.instants[0])),
                    "last": show_time(int(line.instants[-1])),
                }
                for line in self.timelines
            ],
            "folds": [
                {
                    "fold": fold.number,
                    "purge_ms": fold.purge,
                    **{part: self._range(fold, part) for part in ("train", "validation", "test")},
                }
                for fold in self.folds
            ],
        }

    def _range(self, fold: Fold, part: str) -> dict[str, Any] | None:
        span: Span = getattr(fold, part)
        if not span.length:
            return None
        rows = [getattr(one, part) for one in fold.rows]
        closes = np.concatenate(
            [line.instants[slice(*own)][[0, -1]] for line, own in zip(self.timelines, rows, strict=True) if own.length]
        )
        return {
            "span": list(span),
            "first": show_time(int(closes.min())),
            "last": show_time(int(closes.max())),
            "bars": [own.length for own in rows],
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepData:
    """The shared data of a sweep. variants: features by the spec of their system. plan: the folds of all partitions."""

    loaded: LoadedPartitions
    variants: dict[str, FeatureMatrix]
    plan: FoldPlan

    @property
    def bars(self) -> tuple[PartitionBars, ...]:
        """Return the bars of the partitions."""
        return self.loaded.bars

    @property
    def folds(self) -> tuple[Fold, ...]:
        """Return the folds of all partitions."""
        return self.plan.folds

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

    systems: specs of the variants, by default all that the search reaches. until: for each symbol the open of its last
    bar in ms, to leave out later ones.
    Raises BitcornError as `load_partitions` and `walk_forward_folds` do.
    """
    run = config.run
    loaded = load_partitions(
        run.db,
        run.all_symbols,
        run.timeframe,
        config.variants() if systems is None else systems,
        options=run.source_options,
        cache_dir=cache_dir,
        until=until,
        log_fn=log_fn,
    )
    return SweepData(loaded=loaded, variants=loaded.features, plan=FoldPlan.of_sweep(config, loaded.bars))


def plan_folds(config: str | Path | Mapping[str, Any]) -> FoldPlan:
    """Return the folds of the bars that a configuration names.

    config: a YAML file, or its values: `db`, `symbol` or `symbols`, `timeframe` (or `timeframes`), `model` with
    `horizons` and `seq_len`, `folds`, the fields of `FoldsConfig`, `table`, `mapping` and `clean`, which say how to
    read the bars, and `search`, whose longest `seq_len` counts. Other fields of a run or a sweep are ignored.
    Raises BitcornError for a missing or malformed file, missing or impossible fields, missing bars, and as
    `walk_forward_folds` does.
    """
    values = dict(config) if isinstance(config, Mapping) else read_yaml(config)
    symbols, timeframes = _one_or_more(values, "symbol"), _one_or_more(values, "timeframe")
    if not isinstance(values.get("db"), str | Path):
        raise BitcornError("db is missing: name the database or file of bars")
    folds: FoldsConfig = validated(FoldsConfig, values.get("folds") or {}, "folds")
    model = model_config(values.get("model") or {})
    policy = validated(CleaningPolicy, values["clean"], "clean") if values.get("clean") is not None else None
    source_options = SourceOptions.of(values.get("table"), values.get("mapping") or {}, policy=policy)
    bars = []
    for symbol in symbols:
        for timeframe in timeframes:
            loaded = load_bars(str(values["db"]), symbol, timeframe, options=source_options)
            bars.append(PartitionBars.of(loaded.bars, loaded.partition))
    searched = {name: given for name, given in (values.get("search") or {}).items() if name in SEQ_LEN}
    seq_len = Space.parse(searched).maximum(SEQ_LEN, model.seq_len)
    return FoldPlan.of(folds, bars, max(model.horizons), seq_len)


def _one_or_more(values: Mapping[str, Any], name: str) -> list[str]:
    """Return the values of a field or of its plural, exactly one of which must be given."""
    given = [values[field] for field in (name, f"{name}s") if values.get(field)]
    if len(given) != 1:
        raise BitcornError(
            f"the configuration names {'both' if given else 'neither'} {name} {'and' if given else 'nor'} {name}s: "
            "give one of them"
        )
    return [str(value) for value in given[0]] if isinstance(given[0], list | tuple) else [str(given[0])]


def _bars_digest(bars: Sequence[PartitionBars]) -> str:
    digest = hashlib.sha256()
    for own in bars:
        digest.update(own.name.encode())
        for column in (own.timestamp, own.close, own.excluded_ends, own.filled):
            if column is not None:
                digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:32]
