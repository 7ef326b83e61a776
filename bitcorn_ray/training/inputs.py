"""What a training is given: from a frame of features, or from the bars of a source through the cache.

From a source every partition's features are read straight into its rows of one matrix, so that nothing is held twice:
1. read each partition's bars once, as a database may grow meanwhile: repair them as the policy says, bring the cache up
to date with them, and keep their closes and times; 2. make room for all; 3. have each entry's chunks decoded where its
rows lie.

Shapes: T rows of all partitions, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.data_loader import open_cache
from bitcorn_ray.datasets.dataset import PartitionRows, TrainingData, training_data
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import EntryPlan, plan_entry
from bitcorn_ray.features.prepare import Source, prepare, update
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.forecasting.forecaster import feature_identity
from bitcorn_ray.market.clean import cleaning_record
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.reference_volatility import reference_volatility
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.models.neural.config import ModelConfig, TrainingConfig
from bitcorn_ray.sources.frames import frame_times
from bitcorn_ray.sources.loading import LoadedBars, load_bars
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import shown_source
from bitcorn_ray.training.lineage import partition_lineage, source_lineage

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.preprocessing import StandardScaler

__all__ = ["TrainingInputs", "inputs_from_frame", "inputs_from_source"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """Training data, the scaler that made them, the features' names in order, and facts for the run's metadata."""

    data: TrainingData
    scaler: StandardScaler
    feature_cols: list[str]
    about: dict[str, Any]


def inputs_from_frame(
    df: pd.DataFrame,
    feature_cols: Sequence[str],
    partition: Partition,
    feature_system: str | None,
    model: ModelConfig,
    training: TrainingConfig,
) -> TrainingInputs:
    """Make them of one partition's frame: features beside `close` and `timestamp`.

    Without times, rows count as neighbouring bars. No window ends on a bar that a column `filled` marks, unless the
    frame says that it was filled forward. feature_system: by default as `prepare_features` noted it.
    Raises BitcornError for missing columns and as `training_data` does.
    """
    absent = [name for name in [*feature_cols, "close"] if name not in df.columns]
    if absent or not feature_cols:
        raise BitcornError(f"the frame has no column {', '.join(absent) or '(no feature named)'}")
    step, close = timeframe_ms(partition.timeframe), df["close"].to_numpy(dtype=np.float64)
    matrix = np.empty((len(df), len(feature_cols)), np.float32)
    for place, name in enumerate(feature_cols):
        matrix[:, place] = df[name].to_numpy()
    filled = df["filled"].to_numpy(dtype=bool) if "filled" in df.columns else None
    barred = None if df.attrs.get("fill") == "forward" else filled
    rows = _rows(str(partition), close, frame_times(df), step, model, barred)
    spec, version = feature_system or df.attrs.get("feature_system"), df.attrs.get("feature_version")
    data, scaler, facts = training_data(matrix, [rows], model, training)
    about = {
        **_of_system(spec, version, step),
        "symbol": partition.symbol,
        "timeframe": partition.timeframe,
        "cache_keys": [df.attrs.get("cache_key")],
        "data": facts,
    }
    return TrainingInputs(data=data, scaler=scaler, feature_cols=list(feature_cols), about=about)


def inputs_from_source(
    source: str | Path,
    symbols: Sequence[str],
    timeframe: str,
    features: str,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    reading: Reading | None = None,
    cache_dir: str | Path | None = None,
    stops: Sequence[tuple[int, int, int]] | None = None,
    until: Sequence[int] | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> TrainingInputs:
    """Make them of one or more symbols' bars in a database or any other source; features come through the cache.

    reading: how the source is to be read, with the policy by which bars are repaired; no window ends on a bar that was
    filled from later ones. stops: for each symbol the rows at which its fit, validation and test ranges end, see
    `training_data`. until: for each symbol the opening of its last bar in ms, where later ones are to be left out.
    Raises BitcornError for a symbol named twice, and as `load_market_data`, `prepare_features` and `training_data` do.
    """
    if len({normalise_symbol(symbol) for symbol in symbols}) < len(symbols):
        raise BitcornError(f"a symbol is named twice in {', '.join(symbols)}: name each once")
    step, cache = timeframe_ms(timeframe), open_cache(cache_dir)
    system = find_system(features).on_grid(step)
    reading = (reading or Reading()).with_columns(system.inputs)
    rows, entries, cleaning = list[PartitionRows](), list[_Entry](), dict[str, Any]()
    origins = list[dict[str, Any]]()
    ends: Sequence[int | None] = until or [None] * len(symbols)
    for symbol, end in zip(symbols, ends, strict=True):
        loaded = load_bars(source, symbol, timeframe, reading=reading, until=end)
        barred = loaded.filled if reading.policy and reading.policy.fills_ahead else None
        name = str(loaded.partition)
        rows.append(_rows(name, loaded.bars.close, loaded.bars.timestamp, step, model, barred))
        entries.append(_entry(source, loaded, system, cache, end))
        origins.append(partition_lineage(loaded.partition, loaded.bars, entries[-1].plan))
        cleaning[name] = loaded.cleaning
    matrix = np.empty((sum(len(each.close) for each in rows), len(system.features)), np.float32)
    start = 0
    for entry, each in zip(entries, rows, strict=True):
        own = matrix[start : start + len(each.close)]
        _features_into(own, entry, cache, reading)
        start += len(own)
        if log_fn:
            log_fn(f"{len(system.features)} features {system.spec} of {len(own):,} bars of {entry.partition}")
    data, scaler, facts = training_data(matrix, rows, model, training, stops)
    about = {
        **_of_system(system.spec, system.version, step),
        "symbol": entries[0].partition.symbol,
        "timeframe": entries[0].partition.timeframe,
        "cache_keys": [entry.plan.key for entry in entries],
        "data": facts,
        "lineage": {"data": source_lineage(source, origins)},
        "cleaning": cleaning_record(reading.policy, cleaning),
    }
    return TrainingInputs(data=data, scaler=scaler, feature_cols=list(system.features), about=about)


@dataclass(frozen=True)
class _Entry:
    """Features of a partition's bars in the cache, and where the bars are from."""

    source: str | Path
    partition: Partition
    plan: EntryPlan
    until: int | None

    @property
    def origin(self) -> Source:
        return Source(shown_source(self.source), self.partition, complete=self.until is None)


def _entry(
    source: str | Path, loaded: LoadedBars, system: FeatureSystem, cache: FeatureCache, until: int | None
) -> _Entry:
    """Bring the cache up to date with bars."""
    entry = _Entry(source, loaded.partition, plan_entry(loaded.bars, system, memo=cache), until)
    updated = update(loaded.bars, system, cache, entry.origin, plan=entry.plan)
    if cache.forget(updated.superseded):
        cache.refresh_index()
    elif updated.computed:
        cache.add_to_index(entry.plan.key, entry.origin.path, entry.partition)
    return entry


def _rows(
    name: str,
    close: NDArray[np.float64],
    timestamp: NDArray[np.int64] | None,
    step: int,
    model: ModelConfig,
    barred: NDArray[np.bool_] | None,
) -> PartitionRows:
    rows = PartitionRows(name=name, close=close, timestamp=timestamp, step=step, barred_ends=barred)
    if not model.reference_span:
        return rows
    with np.errstate(invalid="ignore", divide="ignore"):
        return replace(rows, reference=reference_volatility(np.log(close), model.reference_span))


def _features_into(out: Floats, entry: _Entry, cache: FeatureCache, reading: Reading) -> None:
    """Fill (T, F) with the features of an entry, warm-up rows with NaN."""
    system, partition = entry.plan.identity.system, entry.partition
    if cache.read_chunks(entry.plan, out.T):  # a chunk was damaged: computed anew on the way of single partitions
        asked = (entry.source, partition.symbol, partition.timeframe)
        bars = load_bars(*asked, reading=reading, until=entry.until).bars
        prepared = prepare(bars, system, cache, entry.origin)
        if prepared.plan.key != entry.plan.key:
            raise BitcornError(
                f"a chunk of {partition} in the cache {cache.storage.shown} is damaged, and its bars have changed "
                "since it was written: start the training again"
            )
        for place, name in enumerate(system.features):
            out[system.warmup_bars :, place] = prepared.columns[name]
    out[: system.warmup_bars] = np.nan


def _of_system(spec: str | None, version: int | str | None, step: int) -> dict[str, Any]:
    """What a run says about its features' system."""
    try:
        identity = feature_identity(find_system(spec).on_grid(step)) if spec else None
    except BitcornError:  # of a registry that only the caller has
        identity = None
    return {"feature_system": spec, "feature_version": version, "features": identity}
