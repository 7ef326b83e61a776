"""Front door to data: load bars, prepare features, build sequences, manage the cache.

The four functions have the names, parameters and results of the older `data_pipeline.data_loader`.
"""

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
from bitcorn_ray.sources.options import Reading
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
    one row for each time. quality_report: what is wrong with them, in plain JSON-ready values (see `market.diagnosis`).
    """

    dataframe: pd.DataFrame
    quality_report: dict[str, Any]


@dataclass
class FeaturePrepResult:
    """Features beside their bars.

    dataframe: the bars' columns and the features (float32), without the warm-up rows. feature_cols: names in order.
    cache_key: identity of these features. quality_report: the bars' diagnosis, with `cache_hit`.
    """

    dataframe: pd.DataFrame
    feature_cols: List[str]
    cache_key: str
    quality_report: dict[str, Any]


@dataclass
class SequenceBuildResult:
    """N windows of L rows and F features with the targets of one horizon.

    X: (N, L, F), read-only where it is a view. y_ret: (N,) log return over the horizon. y_vol: (N,) standard deviation
    (ddof=0) of the one-bar log returns in it. scaler: as used, or None. metadata: `end_rows` (row in the given frame of
    each window's last bar; of the bar before, where that one was filled), `end_timestamps` (ms UTC), `end_filled`,
    `left_out` (reason to count), `windows`, `candidates`, `filled_bars`, and the arguments.
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
) -> MarketDataResult:
    """Load the bars of one symbol and timeframe from a SQLite database or any other source, and diagnose them.

    db_path: a database, a file of bars, or a folder or URI of such files; `bitcorn inspect` says how it is understood.
    symbol: in any spelling (BTC/USDT, btcusdt). limit: the newest so many bars, ascending. log_fn: called with
    progress. columns: further numeric columns to keep, by their stored name or one of ours (quote_volume, trades,
    taker_buy_volume, funding_rate, open_interest, ...). table: of a database, where several hold these bars. mapping:
    our name to the stored one, where a column could be two things (`{"open": "o"}`, or `["open=o"]`).
    Of rows with equal times the last stored one is kept, and the report counts the others. policy: repair more than
    that; what was done is in the report, and where gaps are filled a column `filled` marks the bars that were never
    traded. A timeframe that is not stored is put together from one that is, incomplete bars left out.
    Raises BitcornError (a ValueError) for a missing file, a file that is no database, one without bars, an unknown
    symbol or timeframe (naming those that exist), what could be two things, and values that are not numbers.
    """
    loaded = load_bars(db_path, symbol, timeframe, limit, Reading.of(table, mapping, columns, policy))
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
    """Compute the features of bars, or read them from the cache where equal bars were prepared before.

    df: bars of one partition, ascending; its columns are kept. cache_dir: folder of the cache. use_cache: False
    computes always and touches no file. feature_registry: a mapping of names to feature systems, by default those
    that exist.
    db_path: the database that the bars are from, so that `invalidate_cache(db_path)` finds their entry; what the
    database contains now is not looked at, as the bars themselves decide.
    Raises BitcornError (a ValueError) for an unknown system, missing columns, times out of order, missing or
    non-positive prices, too few bars, and a cache folder that cannot be written.
    """
    cache = open_cache(cache_dir) if use_cache else None
    asked = find_system(feature_system, feature_registry)
    bars = read_frame(df, asked.inputs)
    partition, complete = _partition_of(df), df.attrs.get("all_rows") == len(df)
    origin = Origin(shown_source(db_path), partition, complete) if db_path else None
    prepared = prepare(bars, asked, cache, origin)
    system, key = prepared.plan.identity.system, prepared.plan.key
    if cache and not prepared.hit:
        record_entry(prepared, cache, origin)
    if log_fn:
        what = "read from the cache" if prepared.hit else "computed"
        log_fn(f"{len(system.features)} features {system.spec} of {len(bars):,} bars {what}")
    frame = _beside_bars(df, bars, prepared.columns, system.warmup_bars)
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

    df: features beside their `close` and `timestamp` (`FeaturePrepResult.dataframe`).
    fill_gaps_strategy: None leaves gaps; "forward" repeats the bar before; "linear" interpolates, and then no window
    ends on an interpolated bar, as that would look ahead. max_gap_size: fill gaps of at most so many missing bars
    (None: all). Of bars that were filled before, as a column `filled` tells, the same holds: no window ends on one,
    unless the frame says that they were filled forward (`load_market_data` with a policy says so).
    validate_chronology: refuse times out of order or twice, and leave out windows whose rows or target span an
    unfilled gap; False treats neighbouring rows as neighbouring bars.
    fit_scaler: fit a StandardScaler on ALL rows given. Where the rows span a train/validation split this looks ahead:
    build the training windows first and pass their scaler. scaler: is used as it is, never refitted. Windows that
    touch a feature that is not finite are left out. Their number stands in metadata["left_out"].
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
    """Drop what the cache holds for a database, or everything; returns how many entries.

    Content that another database uses too is kept. Nothing has to be invalidated for correctness: entries are found by
    the bars themselves, so a changed database makes new ones.
    """
    return open_cache().invalidate(db_path)


def _partition_of(df: pd.DataFrame) -> Partition | None:
    """Partition from the symbol and timeframe columns, else from the frame's attributes; None where neither says it."""
    symbol, timeframe = (key_of_frame(df, name) for name in ("symbol", "timeframe"))
    return None if symbol is None or timeframe is None else Partition(symbol, timeframe)


def _beside_bars(df: pd.DataFrame, bars: Bars, features: dict[str, Any], warmup: int) -> pd.DataFrame:
    """Bars in our column names and types, the frame's further columns, and the features, warm-up rows dropped."""
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
    """(T, F) float32 where every feature is, else float64."""
    columns = [df[name].to_numpy() for name in feature_cols]
    dtype = np.float32 if all(column.dtype == np.float32 for column in columns) else np.float64
    matrix = np.empty((len(df), len(columns)), dtype)
    for place, column in enumerate(columns):
        matrix[:, place] = column
    return matrix
