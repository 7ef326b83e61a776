"""The way from a database to sequences, on 70,000 simulated one-hour bars."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd

from benchmarks.bars import BARS, simulated_database
from benchmarks.timing import Figure, measure, measure_fresh
from bitcorn_ray.data_loader import build_sequences, compute_features, load_market_data, prepare_features
from bitcorn_ray.market.simulate import simulate_bars


def import_package() -> list[Figure]:
    """`import bitcorn_ray`, beside pandas."""
    timed = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    pandas = measure_fresh("import pandas", timed.format("import pandas"))
    ours = measure_fresh("import bitcorn_ray (fresh process)", timed.format("import bitcorn_ray"), 0.3)
    return [ours.beside(pandas), pandas]


def load() -> list[Figure]:
    """Load from SQLite with the quality report, beside the bare ADBC read and pandas.read_sql."""
    from adbc_driver_sqlite import dbapi

    with simulated_database() as (db, _):
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

        ours = measure("load_market_data with quality report", lambda: load_market_data(str(db), "SIM", "1h"), 0.060)
        reference = measure("bare ADBC read of the same columns", bare)
        return [ours.beside(reference), reference, measure("pandas.read_sql", with_pandas)]


def sequences() -> list[Figure]:
    """build_sequences of 64 x 14, beside windows copied one by one."""
    prepared = prepare_features(simulate_bars(BARS, seed=0, gaps=0).to_frame(), use_cache=False)
    df, columns = prepared.dataframe, prepared.feature_cols
    matrix = df[columns].to_numpy()

    def copied() -> object:
        return np.stack([matrix[end - 63 : end + 1] for end in range(63, len(matrix) - 1)])

    reference = measure("the windows alone, copied one by one", copied)
    what = "build_sequences, 70,000 x 64 x 14, one horizon (X is a view)"
    ours = measure(what, lambda: build_sequences(df, columns, seq_len=64, horizon=1), 0.025)
    return [ours.beside(reference), reference]


def whole() -> list[Figure]:
    """From the database to sequences without a cache entry: features on Ray, which is up, then read and windowed."""
    from bitcorn_ray.on_ray.session import ray_session

    with simulated_database() as (db, folder), ray_session("local"):
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

        here = measure("the same in process", in_process, 0.3)
        there = measure("database to sequences, cold, features on Ray (which is up)", on_ray, 0.3)
        return [there.beside(here), here]
