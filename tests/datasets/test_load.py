import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from reading import read_bars
from small_runs import make_run
from small_training import TRAINING, shares_of

from bitcorn_ray.cache.store import FeatureCache, open_cache
from bitcorn_ray.data_loader import load_market_data, prepare_features
from bitcorn_ray.datasets.load import inputs_from_frame, inputs_from_source
from bitcorn_ray.datasets.scaling import scale
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.forecasting.batch import plan_forecasts, run_forecasts
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.forecasting.watch import Watcher
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.reference_volatility import reference_volatility
from bitcorn_ray.models.neural.config import LSTMConfig
from bitcorn_ray.sources.export import export_bars
from bitcorn_ray.sources.inspect import inspect_source
from bitcorn_ray.sources.loading import load_bars
from bitcorn_ray.sources.options import SourceOptions

MODEL = LSTMConfig(horizons=(1, 4), seq_len=16, reference_span=24)
SHARES = shares_of(TRAINING)
BOTH = ("aaa/usdt", "BBBUSDT")


@pytest.fixture
def inputs(market_db):
    def make(symbols=BOTH, system="v2", **options):
        return inputs_from_source(market_db, symbols, "1h", system, MODEL, SHARES, **options)

    return make


def expected(market_db, symbol, system="v2"):
    """What the front doors of single partitions give: closes of all bars, and features behind the warm-up."""
    bars = load_market_data(market_db, symbol, "1h").dataframe
    prepared = prepare_features(bars, system, use_cache=False)
    return bars["close"].to_numpy(), prepared.dataframe[prepared.feature_cols].to_numpy()


@pytest.mark.parametrize("system", ["v2", "v4"])
@pytest.mark.parametrize("times", [1, 2])
def test_each_partitions_rows_hold_its_features_cold_and_cached(inputs, market_db, system, times):
    for _ in range(times):
        given = inputs(system=system)
    data = given.data
    for place, symbol in enumerate(("AAAUSDT", "BBBUSDT")):
        close, features = expected(market_db, symbol, system)
        rows = slice(*data.partition_starts[place : place + 2])
        own = data.matrix[rows]
        assert len(own) == len(close)
        warmup = len(close) - len(features)
        finite = np.isfinite(features).all(1)
        np.testing.assert_array_equal(own[warmup:][finite], scale(features, given.scaler)[finite])
        assert (own[:warmup] == 0).all()
        reference = reference_volatility(np.log(close), 24)
        np.testing.assert_allclose(data.reference[rows][1:], reference[1:], rtol=1e-6)
        ends = data.train_ends[(data.train_ends >= rows.start) & (data.train_ends < rows.stop)] - rows.start
        assert ends[0] >= warmup + MODEL.seq_len - 1
    assert data.names == ("AAAUSDT 1h", "BBBUSDT 1h")
    assert given.about["feature_system"] == system
    assert len(set(given.about["cache_keys"])) == 2


def test_the_cache_is_brought_up_to_date_and_read(inputs, market_db, cache_dir):
    inputs()
    cache = open_cache()
    keys = {entry["key"] for entry in cache.entries()}
    assert keys == set(inputs().about["cache_keys"])
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    assert prepare_features(bars, db_path=str(market_db)).quality_report["cache_hit"]
    written = {path: path.stat().st_mtime_ns for path in (cache_dir / "features").iterdir()}
    inputs()
    assert {path: path.stat().st_mtime_ns for path in (cache_dir / "features").iterdir()} == written


def test_files_of_bars_give_what_the_database_gives(inputs, market_db, tmp_path):
    folder = tmp_path / "bars"
    folder.mkdir()
    for symbol in ("AAAUSDT", "BBBUSDT"):
        load_market_data(market_db, symbol, "1h").dataframe.to_parquet(folder / f"{symbol}_1h.parquet")
    data = inputs_from_source(folder, BOTH, "1h", "v2", MODEL, SHARES).data
    expected = inputs().data
    np.testing.assert_array_equal(data.matrix, expected.matrix)
    np.testing.assert_array_equal(data.train_ends, expected.train_ends)


def test_a_damaged_chunk_is_recomputed(inputs, cache_dir):
    whole = inputs().data.matrix.copy()
    for path in (cache_dir / "features").glob("*.parquet"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    np.testing.assert_array_equal(inputs().data.matrix, whole)


def test_unknown_and_repeated_symbols_are_refused(inputs):
    with pytest.raises(BitcornError, match="has no symbol 'NOPE': it has AAAUSDT, BBBUSDT"):
        inputs(("AAAUSDT", "NOPE"))
    with pytest.raises(BitcornError, match="a symbol is named twice in AAAUSDT, aaa/usdt"):
        inputs(("AAAUSDT", "aaa/usdt"))


def test_a_frame_keeps_the_requested_column_order(market_db):
    prepared = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe)
    columns = prepared.feature_cols[::-1]
    given = inputs_from_frame(prepared.dataframe, columns, Partition("AAAUSDT", "1h"), None, MODEL, SHARES)
    features = prepared.dataframe[columns].to_numpy()
    finite = np.isfinite(features).all(1)
    np.testing.assert_array_equal(given.data.matrix[finite], scale(features, given.scaler)[finite])
    assert given.feature_cols == columns
    assert (given.about["feature_system"], given.about["cache_keys"]) == ("v2", [prepared.cache_key])
    assert given.about["features"]["name"] == "v2"


def test_a_frame_of_an_undeclared_system_is_accepted(market_db):
    prepared = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe)
    given = inputs_from_frame(prepared.dataframe, prepared.feature_cols, Partition("A", "1h"), "my_own", MODEL, SHARES)
    assert (given.about["feature_system"], given.about["features"]) == ("my_own", None)


def test_missing_columns_are_named(market_db):
    df = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    for columns, message in ((["nope"], "no column nope"), ([], "no feature named")):
        with pytest.raises(BitcornError, match=message):
            inputs_from_frame(df, columns, Partition("A", "1h"), None, MODEL, SHARES)


def filled_ends(given, market_db, policy):
    """Times of the filled bars of AAAUSDT, and of the windows' last bars there."""
    market = load_market_data(market_db, "AAAUSDT", "1h", policy=policy)
    filled = market.dataframe["timestamp"].astype("int64")[market.dataframe["filled"]]
    data = given.data
    ends = np.concatenate([data.train_ends, data.validation_ends, data.test_ends])
    return set(filled), set(data.timestamp[ends[ends < data.partition_starts[1]]])


@pytest.mark.parametrize(
    ("policy", "ends_on_filled"),
    [
        (CleaningPolicy(fill="forward"), True),
        (CleaningPolicy(fill="linear"), False),
        (CleaningPolicy(fill="forward", bad_prints="mask"), False),
    ],
)
def test_windows_may_contain_filled_bars_but_not_end_on_interpolated_ones(inputs, market_db, policy, ends_on_filled):
    given = inputs(options=SourceOptions(policy=policy))
    bare = inputs()
    filled, ends = filled_ends(given, market_db, policy)
    assert len(filled) == len(given.data.matrix) - len(bare.data.matrix) > 0
    assert bool(filled & ends) == ends_on_filled
    assert given.about["data"]["left_out"]["gap"] == 0 < bare.about["data"]["left_out"]["gap"]
    cleaning = given.about["cleaning"]
    assert cleaning["policy"] == asdict(policy)
    assert cleaning["partitions"]["AAAUSDT 1h"]["bars_filled"] == len(filled)
    assert cleaning["partitions"]["BBBUSDT 1h"]["bars_filled"] == 0
    assert bare.about["cleaning"] is None


def test_gaps_longer_than_the_policy_fills_remain_gaps(inputs):
    given = inputs(options=SourceOptions(policy=CleaningPolicy(fill="forward", max_gap_size=1)))
    assert given.about["cleaning"]["partitions"]["AAAUSDT 1h"]["gaps_left"] > 0
    assert given.about["data"]["left_out"]["gap"] > 0


@pytest.mark.parametrize("fill", ["forward", "linear"])
def test_a_frame_with_filled_bars_gives_the_windows_of_its_source(inputs, market_db, fill):
    policy = CleaningPolicy(fill=fill)
    prepared = prepare_features(load_market_data(market_db, "AAAUSDT", "1h", policy=policy).dataframe)
    of_frame = inputs_from_frame(
        prepared.dataframe, prepared.feature_cols, Partition("AAAUSDT", "1h"), None, MODEL, SHARES
    )
    of_source = inputs(["AAAUSDT"], options=SourceOptions(policy=policy))
    for one, other in ((of_frame.data.train_ends, of_source.data.train_ends),):
        np.testing.assert_array_equal(of_frame.data.timestamp[one], of_source.data.timestamp[other])


def test_extra_columns_of_a_system_are_read_automatically(market_db):
    with closing(sqlite3.connect(market_db)) as connection, connection:
        connection.execute("ALTER TABLE ohlcv ADD COLUMN trades REAL")
        connection.execute("UPDATE ohlcv SET trades = 5 + ts / 3600000 % 7")
    given = inputs_from_source(market_db, ["AAAUSDT"], "1h", "own_systems:activity", MODEL, SHARES)
    assert given.feature_cols == ["activity"]
    assert np.ptp(given.data.matrix[given.data.train_ends]) > 1


# Another process that adds a bar to each symbol all the time.
WRITER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=60)
print("ready", flush=True)
while True:
    with db:
        for symbol in ("AAAUSDT", "BBBUSDT"):
            db.execute(
                "INSERT INTO ohlcv SELECT symbol, timeframe, ts + 3600000, open, high, low, close, volume FROM ohlcv "
                "WHERE symbol = ? ORDER BY ts DESC LIMIT 1", (symbol,)
            )
    time.sleep(0.001)
"""


def test_a_growing_database_is_read_once(inputs, market_db, tmp_path):
    with closing(sqlite3.connect(market_db)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    (tmp_path / "writer.py").write_text(WRITER)
    writer = subprocess.Popen(
        [sys.executable, tmp_path / "writer.py", market_db], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    sizes = set()
    try:
        writer.stdout.readline()
        for _ in range(12):
            given = inputs()
            sizes.add(len(given.data.matrix))
            assert len(given.data.timestamp) == len(given.data.matrix)
    finally:
        assert writer.poll() is None, "the writer ended"
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert len(sizes) > 6


def test_a_damaged_chunk_of_changed_bars_is_reported(inputs, market_db, monkeypatch):
    def damaged(cache, names, chunks):
        with closing(sqlite3.connect(market_db)) as connection, connection:
            connection.execute("DELETE FROM ohlcv WHERE symbol = 'AAAUSDT' AND ts = (SELECT max(ts) FROM ohlcv)")
        return {key for key, _ in chunks}

    monkeypatch.setattr(FeatureCache, "read_chunks", damaged)
    with pytest.raises(BitcornError, match=r"a chunk of AAAUSDT 1h .* is damaged, and its bars have changed since"):
        inputs()


@pytest.mark.parametrize("kind", ["hive", "parts", "s3"])
def test_a_lake_gives_the_results_of_the_database_it_was_exported_from(inputs, market_db, tmp_path, kind, s3_uri):
    lake = s3_uri if kind == "s3" else str(tmp_path / "lake")
    export_bars(market_db, lake)
    for file in list((tmp_path / "lake").rglob("*.parquet")) if kind == "parts" else ():
        bars = pd.read_parquet(file)
        bars.iloc[:300].to_parquet(file.with_name("part-0.parquet"))
        bars.iloc[300:].to_parquet(file.with_name("part-1.parquet"))
        file.unlink()
    assert [each.rows for each in inspect_source(lake).partitions] == [1_476, 900]
    source_options = SourceOptions(policy=CleaningPolicy(fill="forward"))
    for timeframe in ("1h", "4h"):
        one, other = (load_bars(each, "aaa/usdt", timeframe, options=source_options) for each in (lake, market_db))
        assert np.array_equal(one.bars.close, other.bars.close)
        assert np.array_equal(one.filled, other.filled)
    given = inputs_from_source(lake, BOTH, "1h", "v2", MODEL, SHARES, options=source_options)
    np.testing.assert_array_equal(given.data.matrix, inputs(options=source_options).data.matrix)
    partitions = {name: read_bars(market_db, name, "1h")[0].take(slice(850)) for name in ("AAAUSDT", "BBBUSDT")}
    forecaster = Forecaster.load(make_run(tmp_path / "run", partitions))
    done = [run_forecasts(plan_forecasts(forecaster, each, last=5)) for each in (lake, market_db)]
    for one, other in zip(*done, strict=True):
        np.testing.assert_array_equal(one.forecasts.returns, other.forecasts.returns)
    with (
        Watcher(forecaster, lake, tmp_path / "one.jsonl") as one,
        Watcher(forecaster, market_db, tmp_path / "other.jsonl") as other,
    ):
        found = [[(each["symbol"], each["return"]) for each in watcher.poll()] for watcher in (one, other)]
    assert found[0] == found[1]
    assert len(found[0]) == 2
