"""Load symbols and features into a dataset: the one way that training, sweeps and evolution share.

1. Read each symbol's bars once, since a database may grow meanwhile, and repair them as the policy says. 2. Bring the
feature cache up to date with them. 3. Allocate one matrix for all partitions, and decode each partition's chunks into
its rows. No matrix is held twice.

Shapes: T rows of all partitions, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.store import FeatureCache, open_cache
from bitcorn_ray.datasets.dataset import Dataset, PartitionBars, build_dataset
from bitcorn_ray.datasets.folds import FoldRows, Shares
from bitcorn_ray.datasets.windows import WindowOptions
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.compute import Origin, prepare, read_chunks, record_entry, update
from bitcorn_ray.features.identity import EntryPlan, bars_digest, identify, plan_entry
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars, show_time
from bitcorn_ray.market.clean import cleaning_record
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.sources.frames import frame_times
from bitcorn_ray.sources.loading import LoadedBars, load_bars
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import shown_source
from bitcorn_ray.storage.location import recorded_uri

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """A dataset, the scaler that was fitted on it, the names of its features, and facts for the run's metadata."""

    data: Dataset
    scaler: StandardScaler
    feature_cols: list[str]
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMatrix:
    """The features of all partitions by one system.

    spec, version: of the system. features: names of the columns. matrix: (T, F) float32, one partition after another,
    NaN in warm-up rows; read-only by convention. keys: cache entries, one a partition. records: what a run's lineage
    records of each partition.
    """

    spec: str
    version: int | str
    features: tuple[str, ...]
    matrix: Floats
    keys: tuple[str, ...]
    records: tuple[Mapping[str, Any], ...] = ()

    def columns(self, names: Sequence[str] | None) -> list[int]:
        """Return the column of each named feature, or of all for None. Raises BitcornError for unknown names."""
        wanted = self.features if names is None else names
        if unknown := [name for name in wanted if name not in self.features]:
            raise BitcornError(f"system {self.spec} has no feature {', '.join(unknown)}: it has {self.features}")
        return [self.features.index(name) for name in wanted]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedPartitions:
    """The bars of some partitions and their features.

    source: as a run's lineage records it. bars: of the partitions. features: by the system's spec. cleaning: the policy
    by which bars were repaired and its effects, None without a policy.
    """

    source: str
    bars: tuple[PartitionBars, ...]
    features: dict[str, FeatureMatrix]
    cleaning: dict[str, Any] | None = None

    def facts(self, spec: str) -> dict[str, Any]:
        """Return what the metadata of a run on the features of one system say about its data."""
        features, step = self.features[spec], timeframe_ms(self.bars[0].timeframe)
        return {
            **system_facts(features.spec, features.version, step),
            "symbol": self.bars[0].symbol,
            "timeframe": self.bars[0].timeframe,
            "cache_keys": list(features.keys),
            "lineage": {"data": {"source": self.source, "partitions": [dict(record) for record in features.records]}},
            "cleaning": self.cleaning,
        }


def load_partitions(
    source: str | Path,
    symbols: Sequence[str],
    timeframe: str,
    systems: Sequence[str],
    *,
    options: SourceOptions | None = None,
    cache_dir: str | Path | None = None,
    until: Sequence[int] | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> LoadedPartitions:
    """Load the bars of one or more symbols, and their features by one or more systems through the cache.

    source: a database or any other source of bars. systems: specs of feature systems. options: how to read the source,
    with the policy that repairs bars; no window ends on a bar that was filled from later ones, and no target is of a
    filled one. until: for each symbol
    the open of its last bar in ms, to leave out later ones.
    Raises BitcornError for a symbol that is named twice, and as reading bars and computing features do.
    """
    if len({normalise_symbol(symbol) for symbol in symbols}) < len(symbols):
        raise BitcornError(f"a symbol is named twice in {', '.join(symbols)}: name each once")
    step, cache = timeframe_ms(timeframe), open_cache(cache_dir)
    found = {spec: find_system(spec).on_grid(step) for spec in systems}
    options = (options or SourceOptions()).with_columns(name for system in found.values() for name in system.inputs)
    fills_ahead = options.policy is not None and options.policy.fills_ahead
    ends: Sequence[int | None] = until or [None] * len(symbols)
    bars, cleaning = list[PartitionBars](), dict[str, Any]()
    entries: dict[str, list[_Entry]] = {spec: [] for spec in found}
    for symbol, end in zip(symbols, ends, strict=True):
        loaded = load_bars(source, symbol, timeframe, options=options, until=end)
        bars.append(PartitionBars.of(loaded.bars, loaded.partition, loaded.filled, fills_ahead))
        cleaning[str(loaded.partition)] = loaded.cleaning
        for spec, system in found.items():
            entries[spec].append(_update_entry(source, loaded, system, cache, end))
    features = {spec: _read_features(found[spec], entries[spec], cache, options, log_fn) for spec in found}
    return LoadedPartitions(
        source=recorded_source(source),
        bars=tuple(bars),
        features=features,
        cleaning=cleaning_record(options.policy, cleaning),
    )


def inputs_from_source(
    source: str | Path,
    symbols: Sequence[str],
    timeframe: str,
    features: str,
    windows: WindowOptions,
    split: Shares | Sequence[FoldRows],
    *,
    options: SourceOptions | None = None,
    cache_dir: str | Path | None = None,
    until: Sequence[int] | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> TrainingInputs:
    """Return the inputs of a training on one or more symbols of a source, see `load_partitions`.

    features: spec of the feature system. split: as `build_dataset` takes it.
    """
    loaded = load_partitions(
        source, symbols, timeframe, [features], options=options, cache_dir=cache_dir, until=until, log_fn=log_fn
    )
    matrix, facts = loaded.features[features], loaded.facts(features)
    bars = [own.with_reference(windows.reference_span) for own in loaded.bars]
    data, scaler, counts = build_dataset(matrix.matrix, bars, windows, split)
    for partition in counts["partitions"]:
        if log_fn is not None and "why_no_window" in partition:
            log_fn(f"left out: {partition['why_no_window']}")
    return TrainingInputs(data=data, scaler=scaler, feature_cols=list(matrix.features), about={**facts, "data": counts})


def inputs_from_frame(
    df: pd.DataFrame,
    feature_cols: Sequence[str],
    partition: Partition,
    feature_system: str | None,
    windows: WindowOptions,
    split: Shares,
) -> TrainingInputs:
    """Return the inputs of a training on one partition's frame, with features beside `close` and `timestamp`.

    Without times, rows count as consecutive bars. No window ends on a bar that a column `filled` marks, unless the
    frame's attribute `fill` is "forward". feature_system: by default the one that `prepare_features` recorded in the
    frame's attributes.
    Raises BitcornError for missing columns and as `build_dataset` does.
    """
    absent = [name for name in [*feature_cols, "close"] if name not in df.columns]
    if absent or not feature_cols:
        raise BitcornError(f"the frame has no column {', '.join(absent) or '(no feature named)'}")
    step = timeframe_ms(partition.timeframe)
    matrix = np.empty((len(df), len(feature_cols)), np.float32)
    for column, name in enumerate(feature_cols):
        matrix[:, column] = df[name].to_numpy()
    filled = df["filled"].to_numpy(dtype=bool) if "filled" in df.columns else None
    prices = {name: df[name].to_numpy(dtype=np.float64) for name in ("close", "high", "low") if name in df.columns}
    times = frame_times(df)
    bars = PartitionBars(
        symbol=partition.symbol,
        timeframe=partition.timeframe,
        timestamp=np.arange(len(df)) if times is None else times,
        step=1 if times is None else step,
        timed=times is not None,
        excluded_ends=None if df.attrs.get("fill") == "forward" else filled,
        filled=filled,
        **prices,
    )
    data, scaler, counts = build_dataset(matrix, [bars.with_reference(windows.reference_span)], windows, split)
    spec = feature_system or df.attrs.get("feature_system")
    about = {
        **system_facts(spec, df.attrs.get("feature_version"), step),
        "symbol": partition.symbol,
        "timeframe": partition.timeframe,
        "cache_keys": [df.attrs.get("cache_key")],
        "data": counts,
    }
    return TrainingInputs(data=data, scaler=scaler, feature_cols=list(feature_cols), about=about)


def feature_identity(system: FeatureSystem) -> dict[str, Any]:
    """Return what a run records to identify its feature system: version, parameters, features, code, libraries."""
    return {name: value for name, value in identify(system).facts.items() if name != "format"}


def system_facts(spec: str | None, version: int | str | None, step: int) -> dict[str, Any]:
    """Return what a run's metadata say about its feature system. step: timeframe in ms."""
    try:
        identity = feature_identity(find_system(spec).on_grid(step)) if spec else None
    except BitcornError:  # a system of a registry that only the caller has
        identity = None
    return {"feature_system": spec, "feature_version": version, "features": identity}


@dataclass(frozen=True)
class _Entry:
    """The cache entry of one partition's features, and what is needed to compute it again."""

    source: str | Path
    partition: Partition
    plan: EntryPlan
    until: int | None
    record: dict[str, Any]
    rows: int

    @property
    def origin(self) -> Origin:
        return Origin(shown_source(self.source), self.partition, complete=self.until is None)


def _update_entry(
    source: str | Path, loaded: LoadedBars, system: FeatureSystem, cache: FeatureCache, until: int | None
) -> _Entry:
    """Bring the cache up to date with the bars of one partition."""
    plan = plan_entry(loaded.bars, system, memo=cache)
    record = partition_record(loaded.partition, loaded.bars, plan)
    entry = _Entry(source, loaded.partition, plan, until, record, len(loaded.bars))
    updated = update(loaded.bars, system, cache, entry.origin, plan=plan)
    record_entry(updated, cache)
    return entry


def _read_features(
    system: FeatureSystem,
    entries: Sequence[_Entry],
    cache: FeatureCache,
    options: SourceOptions,
    log_fn: Callable[[str], None] | None,
) -> FeatureMatrix:
    """Decode the features of all partitions into one matrix."""
    matrix = np.empty((sum(entry.rows for entry in entries), len(system.features)), np.float32)
    start = 0
    for entry in entries:
        _read_entry(matrix[start : start + entry.rows], entry, cache, options)
        start += entry.rows
    if log_fn:
        what = entries[0].partition if len(entries) == 1 else f"{len(entries)} partitions"
        log_fn(f"{len(system.features)} features {system.spec} of {start:,} bars of {what}")
    return FeatureMatrix(
        spec=system.spec,
        version=system.version,
        features=tuple(system.features),
        matrix=matrix,
        keys=tuple(entry.plan.key for entry in entries),
        records=tuple(entry.record for entry in entries),
    )


def _read_entry(out: Floats, entry: _Entry, cache: FeatureCache, options: SourceOptions) -> None:
    """Fill (T, F) with the features of an entry, warm-up rows with NaN."""
    system, partition = entry.plan.identity.system, entry.partition
    if read_chunks(cache, entry.plan, out.T):  # a chunk is damaged: compute it again from the bars
        asked = (entry.source, partition.symbol, partition.timeframe)
        bars = load_bars(*asked, options=options, until=entry.until).bars
        prepared = prepare(bars, system, cache, entry.origin)
        if prepared.plan.key != entry.plan.key:
            raise BitcornError(
                f"a chunk of {partition} in the cache {cache.storage.shown} is damaged, and its bars have changed "
                "since it was written: start again"
            )
        for column, name in enumerate(system.features):
            out[system.warmup_bars :, column] = prepared.columns[name]
    out[: system.warmup_bars] = np.nan


def recorded_source(source: str | Path) -> str:
    """Return the source as a lineage records it: an absolute path, or a URI without its secrets."""
    text = str(source)
    return recorded_uri(text) if "://" in text else str(Path(text).expanduser().absolute())


def partition_record(partition: Partition, bars: Bars, plan: EntryPlan) -> dict[str, Any]:
    """Return what a lineage records of the bars of one partition and of the cache entry of their features."""
    inputs = bars.with_extra(plan.identity.system.inputs)
    return {
        "symbol": partition.symbol,
        "timeframe": partition.timeframe,
        "bars": len(bars),
        "first": show_time(int(bars.timestamp[0])),
        "last": show_time(int(bars.timestamp[-1])),
        "entry": plan.key,
        "chunks": [
            {
                "key": chunk.key,
                "bars": bars_digest(inputs, chunk.start, chunk.start, chunk.stop)[:32],
                "rows": chunk.stop - chunk.start,
                "first": show_time(int(bars.timestamp[chunk.start])),
                "last": show_time(int(bars.timestamp[chunk.stop - 1])),
            }
            for chunk in plan.chunks
        ],
    }
