"""The way from a database to sequences, on 70,000 simulated one-hour bars."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import talib

from benchmarks.timing import Figure, measure, measure_fresh
from bitcorn_ray.data_loader import build_sequences, compute_features, load_market_data, prepare_features
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.ingest import write_bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars

BARS = 70_000
_V2 = SYSTEMS["v2"]


def import_package() -> list[Figure]:
    """`import bitcorn_ray`, beside starting Python itself."""
    timed = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    return [
        measure_fresh("import bitcorn_ray", timed.format("import bitcorn_ray"), 0.3),
        measure_fresh("import pandas", timed.format("import pandas")),
    ]


def features_v2() -> list[Figure]:
    """V2 in process, beside the bare library calls that it cannot do without and the same in pandas."""
    bars = simulate_bars(BARS, seed=0, gaps=0)
    return [
        measure("v2, cold, in process", lambda: _V2.compute(bars), 0.012),
        measure("bare TA-Lib calls for the same windows", lambda: _bare_calls(bars)),
        measure("the rolling windows alone in pandas", lambda: _pandas_windows(bars)),
    ]


def cache_hit() -> list[Figure]:
    """A hit through prepare_features in a fresh process, imports done: bars hashed, Parquet read, frame made."""
    with _database() as (db, folder):
        prepare_features(load_market_data(str(db), "SIM", "1h").dataframe, cache_dir=folder, db_path=str(db))
        code = (
            "import time\n"
            "from bitcorn_ray.data_loader import load_market_data, prepare_features\n"
            f"df = load_market_data({str(db)!r}, 'SIM', '1h').dataframe\n"
            "t = time.perf_counter()\n"
            f"result = prepare_features(df, cache_dir={str(folder)!r}, db_path={str(db)!r})\n"
            "t = time.perf_counter() - t\n"
            "assert result.quality_report['cache_hit']\n"
            "print(t)"
        )
        parquet = next((folder / "features").glob("*.parquet"))
        read = (
            "import time, pyarrow.parquet as pq, pandas\n"
            f"t = time.perf_counter(); pq.read_table({str(parquet)!r}).to_pandas(); print(time.perf_counter() - t)"
        )
        return [
            measure_fresh("v2, cache hit, fresh process", code, 0.015),
            measure_fresh("pyarrow.parquet.read_table of that file, to pandas", read),
        ]


def load() -> list[Figure]:
    """Load from SQLite with the quality report, beside the bare ADBC read and pandas.read_sql."""
    from adbc_driver_sqlite import dbapi

    with _database() as (db, _):
        query = (
            "SELECT ts, open, high, low, close, volume FROM ohlcv WHERE symbol = 'SIM' AND timeframe = '1h' ORDER BY ts"
        )

        def bare() -> object:
            with dbapi.connect(f"file:{db}?mode=ro") as connection, connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetch_arrow_table()

        def with_pandas() -> object:
            with closing(sqlite3.connect(db)) as connection:
                return pd.read_sql("SELECT * FROM ohlcv", connection)

        return [
            measure("load_market_data with quality report", lambda: load_market_data(str(db), "SIM", "1h"), 0.060),
            measure("bare ADBC read of the same columns", bare),
            measure("pandas.read_sql", with_pandas),
        ]


def sequences() -> list[Figure]:
    """build_sequences of 64 x 14, beside windows copied one by one."""
    prepared = prepare_features(simulate_bars(BARS, seed=0, gaps=0).to_frame(), use_cache=False)
    df, columns = prepared.dataframe, prepared.feature_cols
    matrix = df[columns].to_numpy()

    def copied() -> object:
        return np.stack([matrix[end - 63 : end + 1] for end in range(63, len(matrix) - 1)])

    return [
        measure(
            "build_sequences, 70,000 x 64 x 14", lambda: build_sequences(df, columns, seq_len=64, horizon=1), 0.025
        ),
        measure("the windows alone, copied one by one", copied),
    ]


def whole() -> list[Figure]:
    """From the database to sequences without a cache entry: features on Ray, which is up, then read and windowed."""
    from bitcorn_ray.on_ray.session import ray_session

    with _database() as (db, folder), ray_session("local"):
        rounds = iter(range(1_000))

        def on_ray() -> None:
            cache = folder / str(next(rounds))
            compute_features(db, cache_dir=cache)
            bars = load_market_data(str(db), "SIM", "1h").dataframe
            prepared = prepare_features(bars, cache_dir=cache, db_path=str(db))
            assert prepared.quality_report["cache_hit"]
            build_sequences(prepared.dataframe, prepared.feature_cols, seq_len=64, horizon=1)

        def in_process() -> None:
            cache = folder / str(next(rounds))
            bars = load_market_data(str(db), "SIM", "1h").dataframe
            prepared = prepare_features(bars, cache_dir=cache, db_path=str(db))
            assert not prepared.quality_report["cache_hit"]
            build_sequences(prepared.dataframe, prepared.feature_cols, seq_len=64, horizon=1)

        return [
            measure("database to sequences, cold, features on Ray", on_ray, 0.3),
            measure("the same in process", in_process, 0.3),
        ]


@contextmanager
def _database() -> Iterator[tuple[Path, Path]]:
    """Make a database with one partition, and a folder for the cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bars = simulate_bars(BARS, seed=0, gaps=0)
        write_bars([("simulated", Partition("SIM", "1h"), bars)], folder / "market.db")
        os.environ["BITCORN_CACHE_DIR"] = str(folder / "cache")
        yield folder / "market.db", folder / "cache"


def _bare_calls(bars: Bars) -> None:
    p, log_p = bars.close, np.log(bars.close)
    change = np.diff(p, prepend=p[0])
    talib.SMA(p, 20)
    talib.STDDEV(p, 20)
    talib.STDDEV(np.diff(log_p, prepend=log_p[0]), 10)
    talib.STDDEV(np.diff(log_p, prepend=log_p[0]), 30)
    talib.SMA(np.maximum(change, 0), 14)
    talib.SMA(np.maximum(-change, 0), 14)
    talib.SMA(talib.TRANGE(bars.high, bars.low, p)[1:], 14)
    talib.MAX(bars.high, 50)
    talib.MIN(bars.low, 50)


def _pandas_windows(bars: Bars) -> None:
    p = pd.Series(bars.close)
    returns, change = pd.Series(np.log(bars.close)).diff(), p.diff()
    p.rolling(20).mean()
    p.rolling(20).std()
    returns.rolling(10).std()
    returns.rolling(30).std()
    change.clip(lower=0).rolling(14).mean()
    (-change).clip(lower=0).rolling(14).mean()
    p.rolling(14).mean()
    pd.Series(bars.high).rolling(50).max()
    pd.Series(bars.low).rolling(50).min()
