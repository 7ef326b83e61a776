"""Load bars, prepare features, build sequences: the functions and results of `data_pipeline.data_loader`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional

import numpy as np
import pandas as pd

from bitcorn_ray.cache.store import FEATURE_CACHE_DIR, open_cache
from bitcorn_ray.datasets.sequences import make_sequences
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.compute import Origin, prepare, record_entry
from bitcorn_ray.features.distribute import compute_features
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.market.bars import BAR_COLUMNS, Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.sources.columns import match_columns
from bitcorn_ray.sources.frames import frame_times, key_of_frame, read_frame
from bitcorn_ray.sources.loading import load_bars
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import shown_source

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

__all__ = [
    "FEATURE_CACHE_DIR",
    "FeaturePrepResult",
    "MarketDataResult",
    "SequenceBuildResult",
    "build_sequences",
    "compute_features",
    "invalidate_cache",
    "load_market_data",
    "prepare_features",
]

LogFn = Optional[Callable[[str], None]]


@dataclass
class MarketDataResult:
    """Bars of one partition.

    dataframe: `timestamp` (datetime64[ms, UTC], the bar's open), open, high, low, close, volume (float64), ascending,
    without duplicate times. quality_report: defects of the bars in plain JSON values, see `market.diagnosis`.
    """

    dataframe: pd.DataFrame
    quality_report: dict[str, Any]


@dataclass
class FeaturePrepResult:
    """Features and their bars.

    dataframe: the bars' columns and the features (float32), without the warm-up rows. feature_cols: names in order.
    cache_key: identity of these features. quality_report: defects of the bars, and `cache_hit`.
    """

    dataframe: pd.DataFrame
    feature_cols: List[str]
    cache_key: str
    quality_report: dict[str, Any]


@dataclass
class SequenceBuildResult:
    """N windows of L rows and F features with the targets of one horizon.

    X: (N, L, F), read-only if it is a view. y_ret: (N,) log return over the horizon. y_vol: (N,) standard deviation
    (ddof=0) of the one-bar log returns in it. scaler: the one that was used, or None. metadata: `end_rows` (row of each
    window's last bar in the given frame; of the bar before if that bar was filled), `end_timestamps` (ms UTC),
    `end_filled`, `left_out` (counts by reason), `windows`, `candidates`, `filled_bars`, and the arguments.
    """

    X: np.ndarray[Any, Any]
    y_ret: np.ndarray[Any, Any]
    y_vol: np.ndarray[Any, Any]
    scaler: Optional[StandardScaler]
    metadata: dict[str, Any]


def load_market_data(
    db_path: str,
    symbol: str,
    timeframe: str,
    *,
    limit: Optional[int] = None,
    log_fn: LogFn = None,
    columns: Sequence[str] = (),
    table: Optional[str] = None,
    mapping: Mapping[str, str] | Sequence[str] = (),
    policy: Optional[CleaningPolicy] = None,
    time_format: Optional[str] = None,
    timezone: Optional[str] = None,
) -> MarketDataResult:
    """Load the bars of one symbol and timeframe from a SQLite database or any other source, and diagnose them.

    db_path: a database, a file of bars, or a folder or URI of such files, see `bitcorn inspect`. symbol: in any
    spelling (BTC/USDT, btcusdt). timeframe: one that is not stored is resampled from one that is. limit: number of
    newest bars. log_fn: called with progress. columns: further numeric columns to keep, by their stored or standard
    name (quote_volume, trades, taker_buy_volume, funding_rate, open_interest, ...). table: of a database in which
    several tables have these bars. mapping: standard to stored name of ambiguous columns (`{"open": "o"}`, or
    `["open=o"]`). policy: how bars are repaired; the report says what was done, and a column `filled` marks bars that
    fill gaps. Without one, the last of rows with equal times is kept and the report counts the others. time_format: of
    times in text, as for `strptime`. timezone: of times without an offset, by default UTC.
    Raises BitcornError (a ValueError) for a missing file, a source without bars, an unknown symbol or timeframe (with
    those that exist), ambiguous columns, and values that are not numbers.
    """
    options = SourceOptions.of(table, mapping, columns, policy, time_format, timezone)
    loaded = load_bars(db_path, symbol, timeframe, limit, options)
    bars, partition = loaded.bars, loaded.partition
    report = {"symbol": partition.symbol, "timeframe": partition.timeframe, **loaded.report, "rows": len(bars)}
    frame = bars.to_frame()
    if policy is not None and loaded.filled is not None:
        frame["filled"] = loaded.filled
        frame.attrs["fill"] = "ahead" if policy.fills_ahead else policy.fill
    frame.attrs.update(symbol=partition.symbol, timeframe=partition.timeframe)
    if limit is None:
        # A slice inherits the attributes: only a frame that still has all rows counts as the whole load.
        frame.attrs["all_rows"] = len(bars)
    if log_fn:
        log_fn(f"loaded {len(bars):,} bars of {partition} from {shown_source(db_path)}")
    return MarketDataResult(frame, report)


def prepare_features(
    df: pd.DataFrame,
    feature_system: str = "v2",
    *,
    cache_dir: Path = FEATURE_CACHE_DIR,
    use_cache: bool = True,
    feature_registry: Optional[Any] = None,
    db_path: Optional[str] = None,
    log_fn: LogFn = None,
) -> FeaturePrepResult:
    """Compute the features of bars, or read them from the cache if equal bars were prepared before.

    df: bars of one partition, ascending; its columns are kept. cache_dir: folder or URI of the cache. use_cache: False
    always computes and touches no file. feature_registry: a mapping of names to feature systems, by default those of
    this package. db_path: the database of the bars, by which `invalidate_cache` finds their entry; it is not read.
    Raises BitcornError (a ValueError) for an unknown system, missing columns, times out of order, missing or
    non-positive prices, too few bars, and a cache folder that cannot be written.
    """
    cache = open_cache(cache_dir) if use_cache else None
    requested = find_system(feature_system, feature_registry)
    bars = read_frame(df, requested.inputs)
    symbol, timeframe = (key_of_frame(df, name) for name in ("symbol", "timeframe"))
    partition = None if symbol is None or timeframe is None else Partition(symbol, timeframe)
    complete = df.attrs.get("all_rows") == len(df)
    origin = Origin(shown_source(db_path), partition, complete) if db_path else None
    prepared = prepare(bars, requested, cache, origin)
    system, key = prepared.plan.identity.system, prepared.plan.key
    if cache and not prepared.hit:
        record_entry(prepared, cache)
    if log_fn:
        what = "read from the cache" if prepared.hit else "computed"
        log_fn(f"{len(system.features)} features {system.spec} of {len(bars):,} bars {what}")
    frame = _with_bars(df, bars, prepared.columns, system.warmup_bars)
    frame.attrs.update(feature_system=system.spec, feature_version=system.version, cache_key=key)
    report = {**prepared.quality, "cache_hit": prepared.hit}
    return FeaturePrepResult(frame, list(system.features), key, report)


def build_sequences(
    df: pd.DataFrame,
    feature_cols: List[str],
    *,
    seq_len: int,
    horizon: int,
    fill_gaps_strategy: Optional[str] = None,
    max_gap_size: Optional[int] = None,
    validate_chronology: bool = True,
    dtype: Any = np.float32,
    fit_scaler: bool = True,
    scaler: Optional[StandardScaler] = None,
    log_fn: LogFn = None,
) -> SequenceBuildResult:
    """Build windows of ``seq_len`` rows, each with what happened in the ``horizon`` bars after its last bar.

    df: features with `close` and `timestamp` (`FeaturePrepResult.dataframe`). fill_gaps_strategy: None leaves gaps;
    "forward" repeats the bar before; "linear" interpolates, and then no window ends on an interpolated bar, as that
    would look ahead. No window ends on a bar that a column `filled` marks either, unless the attribute `fill` of the
    frame is "forward". max_gap_size: largest gap to fill, in bars, None for all. validate_chronology: refuse times
    that are not increasing, and leave out windows whose rows or target span an unfilled gap; False treats neighbouring
    rows as neighbouring bars. fit_scaler: fit a StandardScaler on ALL given rows. If the rows span a train/validation
    split this looks ahead: build the training windows first and pass their scaler. scaler: used, never refitted.
    Windows with a feature that is not finite are left out and counted in metadata["left_out"].
    Raises BitcornError (a ValueError) for missing columns, too few rows, no valid window, and bad arguments.
    """
    absent = [name for name in [*feature_cols, "close"] if name not in df.columns]
    if absent or not feature_cols:
        raise BitcornError(f"the frame has no column {', '.join(absent) or '(no feature named)'}")
    timeframe = df.attrs.get("timeframe")
    built = make_sequences(
        matrix=_matrix(df, feature_cols),
        close=df["close"].to_numpy(dtype=np.float64),
        timestamp=frame_times(df),
        feature_cols=list(feature_cols),
        seq_len=seq_len,
        horizon=horizon,
        step=timeframe_ms(timeframe) if timeframe else None,
        fill_strategy=fill_gaps_strategy,
        max_gap_size=max_gap_size,
        validate=validate_chronology,
        dtype=dtype,
        fit=fit_scaler,
        scaler=scaler,
        filled=df["filled"].to_numpy(dtype=bool) if "filled" in df.columns else None,
        filled_forward=df.attrs.get("fill") == "forward",
    )
    if log_fn:
        left_out = sum(built.metadata["left_out"].values())
        log_fn(f"{len(built.y_ret):,} windows of {seq_len} x {len(feature_cols)}, {left_out:,} left out")
    return SequenceBuildResult(built.x, built.y_ret, built.y_vol, built.scaler, built.metadata)


def invalidate_cache(db_path: Optional[str] = None) -> int:
    """Remove the cache entries of a database, or all; return their number.

    Entries that another database uses too are kept. Correctness never requires it: a changed database has other keys.
    """
    return open_cache().invalidate(db_path)


def _with_bars(df: pd.DataFrame, bars: Bars, features: dict[str, Any], warmup: int) -> pd.DataFrame:
    """Return bars in standard columns, the frame's further columns and the features, without warm-up rows."""
    found, _ = match_columns([str(name) for name in df.columns])
    of_bars = {found[name] for name in BAR_COLUMNS if name in found}
    columns = bars.take(slice(warmup, None)).frame_columns()
    for name in df.columns:
        if name not in of_bars and name not in columns:
            columns[name] = df[name].array[warmup:]
    frame = pd.DataFrame({**columns, **features}, copy=False)
    frame.attrs.update(df.attrs)
    return frame


def _matrix(df: pd.DataFrame, feature_cols: list[str]) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    """Return features (T, F), float32 if all of them are, else float64."""
    columns = [df[name].to_numpy() for name in feature_cols]
    dtype = np.float32 if all(column.dtype == np.float32 for column in columns) else np.float64
    matrix = np.empty((len(df), len(columns)), dtype)
    for number, column in enumerate(columns):
        matrix[:, number] = column
    return matrix
