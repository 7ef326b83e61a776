"""What a training is given: from a frame of features, or from the bars of a source through the cache.

From a source every partition's features are read straight into its rows of one matrix, so that nothing is held twice:
1. read each partition's bars for their number, closes and times; 2. make room for all; 3. read each again (where there
are several), bring the cache up to date with it, and have its chunks decoded where its rows lie.

Shapes: T rows of all partitions, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.identity import plan_entry
from bitcorn_ray.cache.prepare import Source, prepare, update
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.data_loader import open_cache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.reference import reference_volatility
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.forecaster import feature_identity
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.dataset import PartitionRows, TrainingData, training_data
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.frames import frame_times
from bitcorn_ray.market.loading import load_bars
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.reading import Reading
from bitcorn_ray.market.source import shown_source
from bitcorn_ray.market.timeframe import timeframe_ms

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

    Without times, rows count as neighbouring bars. feature_system: by default as `prepare_features` noted it.
    Raises BitcornError for missing columns and as `training_data` does.
    """
    absent = [name for name in [*feature_cols, "close"] if name not in df.columns]
    if absent or not feature_cols:
        raise BitcornError(f"the frame has no column {', '.join(absent) or '(no feature named)'}")
    step, close = timeframe_ms(partition.timeframe), df["close"].to_numpy(dtype=np.float64)
    matrix = np.empty((len(df), len(feature_cols)), np.float32)
    for place, name in enumerate(feature_cols):
        matrix[:, place] = df[name].to_numpy()
    rows = _rows(str(partition), close, frame_times(df), step, model)
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
    cache_dir: str | Path | None = None,
    stops: Sequence[tuple[int, int, int]] | None = None,
    log_fn: Callable[[str], None] | None = None,
) -> TrainingInputs:
    """Make them of one or more symbols' bars in a database or any other source; features come through the cache.

    stops: for each symbol the rows at which its fit, validation and test ranges end, see `training_data`.
    Raises BitcornError for a symbol named twice, and as `load_market_data`, `prepare_features` and `training_data` do.
    """
    if len({normalise_symbol(symbol) for symbol in symbols}) < len(symbols):
        raise BitcornError(f"a symbol is named twice in {', '.join(symbols)}: name each once")
    step, cache = timeframe_ms(timeframe), open_cache(cache_dir)
    system = find_system(features).on_grid(step)
    reading = Reading(columns=system.inputs)
    rows, partitions = [], []
    for symbol in symbols:
        loaded = load_bars(source, symbol, timeframe, reading=reading)
        rows.append(_rows(str(loaded.partition), loaded.bars.close, loaded.bars.timestamp, step, model))
        partitions.append(loaded.partition)
    matrix = np.empty((sum(len(each.close) for each in rows), len(system.features)), np.float32)
    keys, start = [], 0
    for partition, each in zip(partitions, rows, strict=True):
        if len(symbols) > 1:
            loaded = load_bars(source, partition.symbol, timeframe, reading=reading)
        own = matrix[start : start + len(each.close)]
        keys.append(
            _features_into(own, loaded.bars, system, cache, Source(shown_source(source), partition, complete=True))
        )
        start += len(own)
        if log_fn:
            log_fn(f"{len(system.features)} features {system.spec} of {len(own):,} bars of {partition}")
    data, scaler, facts = training_data(matrix, rows, model, training, stops)
    about = {
        **_of_system(system.spec, system.version, step),
        "symbol": partitions[0].symbol,
        "timeframe": partitions[0].timeframe,
        "cache_keys": keys,
        "data": facts,
    }
    return TrainingInputs(data=data, scaler=scaler, feature_cols=list(system.features), about=about)


def _rows(
    name: str, close: NDArray[np.float64], timestamp: NDArray[np.int64] | None, step: int, model: ModelConfig
) -> PartitionRows:
    rows = PartitionRows(name=name, close=close, timestamp=timestamp, step=step)
    if not model.reference_span:
        return rows
    with np.errstate(invalid="ignore", divide="ignore"):
        return replace(rows, reference=reference_volatility(np.log(close), model.reference_span))


def _features_into(out: Floats, bars: Bars, system: FeatureSystem, cache: FeatureCache, source: Source) -> str:
    """Fill (T, F) with the features of bars, warm-up rows with NaN; returns the entry's key."""
    plan = plan_entry(bars, system, memo=cache)
    updated = update(bars, system, cache, source, plan=plan)
    if cache.forget(updated.superseded):
        cache.refresh_index()
    elif updated.computed:
        cache.add_to_index(plan.key, source.path, source.partition)
    if cache.read_chunks(plan, out.T):  # a damaged chunk: computed anew on the way of single partitions
        columns = prepare(bars, system, cache, source).columns
        for place, name in enumerate(system.features):
            out[system.warmup_bars :, place] = columns[name]
    out[: system.warmup_bars] = np.nan
    return plan.key


def _of_system(spec: str | None, version: int | str | None, step: int) -> dict[str, Any]:
    """What a run says about its features' system."""
    try:
        identity = feature_identity(find_system(spec).on_grid(step)) if spec else None
    except BitcornError:  # of a registry that only the caller has
        identity = None
    return {"feature_system": spec, "feature_version": version, "features": identity}
