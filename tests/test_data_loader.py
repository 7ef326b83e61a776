import inspect
import json
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any, List, Optional  # noqa: UP035 - as the older API has them

import numpy as np
import pandas as pd
import pytest
from comparing import age_entry
from own_systems import momentum
from sklearn.preprocessing import StandardScaler

from bitcorn_ray import data_loader
from bitcorn_ray.data_loader import (
    FEATURE_CACHE_DIR,
    build_sequences,
    compute_features,
    invalidate_cache,
    load_market_data,
    open_cache,
    prepare_features,
)
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.policy import CleaningPolicy


@pytest.fixture
def features(market_db):
    return prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe, db_path=str(market_db))


def add_rows(db, *rows, symbol="AAAUSDT"):
    with sqlite3.connect(db) as connection:
        connection.executemany("INSERT INTO ohlcv VALUES (?, '1h', ?, ?, ?, ?, ?, ?)", [(symbol, *row) for row in rows])
    connection.close()


def last_bar(db, symbol="AAAUSDT"):
    with sqlite3.connect(db) as connection:
        query = "SELECT ts, open, high, low, close, volume FROM ohlcv WHERE symbol = ? ORDER BY ts DESC LIMIT 1"
        return connection.execute(query, (symbol,)).fetchone()


def indexed(cache_dir):
    return json.loads((cache_dir / "index.json").read_text())["entries"]


# The older API, to the letter


def test_signatures_are_those_of_the_older_api():
    def of(function):
        parameters = inspect.signature(function, eval_str=False).parameters.values()
        return [(p.name, p.kind.name, p.default) for p in parameters]

    def keywords(**defaults):
        return [(name, "KEYWORD_ONLY", default) for name, default in defaults.items()]

    def positional(name, default=inspect.Parameter.empty):
        return (name, "POSITIONAL_OR_KEYWORD", default)

    required = inspect.Parameter.empty
    assert of(load_market_data) == [
        *(positional(name) for name in ("db_path", "symbol", "timeframe")),
        *keywords(limit=None, log_fn=None),
        # Ours, which the older one did not have.
        *keywords(columns=(), table=None, mapping=(), policy=None, time_format=None, timezone=None),
    ]
    assert of(prepare_features) == [
        positional("df"),
        positional("feature_system", "v2"),
        *keywords(cache_dir=FEATURE_CACHE_DIR, use_cache=True, feature_registry=None, db_path=None, log_fn=None),
    ]
    assert of(build_sequences) == [
        positional("df"),
        positional("feature_cols"),
        *keywords(
            seq_len=required,
            horizon=required,
            fill_gaps_strategy=None,
            max_gap_size=None,
            validate_chronology=True,
            dtype=np.float32,
            fit_scaler=True,
            scaler=None,
            log_fn=None,
        ),
    ]
    assert of(invalidate_cache) == [positional("db_path", None)]


def test_annotations_are_those_of_the_older_api():
    from bitcorn_ray.data_loader import FeaturePrepResult, MarketDataResult, SequenceBuildResult

    names = {"StandardScaler": StandardScaler, "PartitionStatus": None}

    def hints(function):
        return {k: eval(v, {**vars(data_loader), **names}) for k, v in function.__annotations__.items()}

    log_fn = Optional[Callable[[str], None]]  # noqa: UP045
    ours = {"columns", "table", "mapping", "policy", "time_format", "timezone"}
    assert {name: hint for name, hint in hints(load_market_data).items() if name not in ours} == {
        "db_path": str,
        "symbol": str,
        "timeframe": str,
        "limit": Optional[int],  # noqa: UP045
        "log_fn": log_fn,
        "return": MarketDataResult,
    }
    build = hints(build_sequences)
    assert build["feature_cols"] == List[str]  # noqa: UP006
    assert build["dtype"] == Any
    assert build["scaler"] == Optional[StandardScaler]  # noqa: UP045
    assert build["return"] is SequenceBuildResult
    assert hints(prepare_features)["return"] is FeaturePrepResult


def test_result_fields_are_those_of_the_older_api(market_db, features):
    market = load_market_data(market_db, "AAAUSDT", "1h")
    sequences = build_sequences(features.dataframe, features.feature_cols, seq_len=8, horizon=1)
    assert list(vars(market)) == ["dataframe", "quality_report"]
    assert list(vars(features)) == ["dataframe", "feature_cols", "cache_key", "quality_report"]
    assert list(vars(sequences)) == ["X", "y_ret", "y_vol", "scaler", "metadata"]


# Loading


def test_loaded_bars_are_typed_ascending_and_diagnosed(market_db):
    lines = []
    result = load_market_data(str(market_db), "aaa/usdt", "1h", log_fn=lines.append)
    df = result.dataframe
    assert list(df.columns) == ["timestamp", "open", "high", "low", "close", "volume"]
    assert str(df.timestamp.dtype) == "datetime64[ms, UTC]"
    assert (df.dtypes.iloc[1:] == "float64").all()
    assert df.timestamp.is_monotonic_increasing
    assert result.quality_report["rows"] == len(df)
    assert result.quality_report["symbol"] == "AAAUSDT"
    assert result.quality_report["gaps"]["missing_bars"] == 1_500 - len(df)
    json.dumps(result.quality_report, allow_nan=False)
    assert len(lines) == 1


def test_the_report_names_what_the_guide_names(market_db):
    report = load_market_data(market_db, "BBBUSDT", "1h").quality_report
    assert {
        "rows",
        "first_timestamp",
        "last_timestamp",
        "expected_rows",
        "gaps",
        "duplicates",
        "missing_values",
        "ohlc_violations",
        "zero_volume_bars",
        "suspicious_jumps",
    } <= set(report)
    assert set(report["gaps"]) == {"count", "missing_bars", "longest", "list"}


def test_a_limit_gives_the_newest_bars_ascending(market_db):
    whole = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    newest = load_market_data(market_db, "AAAUSDT", "1h", limit=100).dataframe
    pd.testing.assert_frame_equal(newest, whole.tail(100).reset_index(drop=True), check_like=False)


@pytest.mark.parametrize("limit", [None, 1, 3, 6])
def test_of_equal_times_the_last_row_stays_and_the_others_are_counted(tmp_path, limit):
    path = tmp_path / "dirty.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bars (ts, open, high, low, close, volume)")
        hours = [0, 1, 2, 3, 4, 4, 5, 5, 5]
        rows = [(1_600_000_000 + 3600 * hour, 1, 1, 1, 100 + n, 1) for n, hour in enumerate(hours)]
        connection.executemany("INSERT INTO bars VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    result = load_market_data(path, "X", "1h", limit=limit)
    closes = [100, 101, 102, 103, 105, 108]
    assert result.dataframe.close.tolist() == (closes if limit is None else closes[-limit:])
    assert result.quality_report["duplicates"] == {None: 3, 1: 2, 3: 3, 6: 3}[limit]
    assert result.quality_report["rows"] == len(result.dataframe)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_1_is_refused(market_db, limit):
    with pytest.raises(BitcornError, match=f"limit is {limit}"):
        load_market_data(market_db, "AAAUSDT", "1h", limit=limit)


# Features


def test_the_frame_holds_bars_and_features_without_the_warmup(market_db, features):
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    df = features.dataframe
    assert list(df.columns) == [*bars.columns, *features.feature_cols]
    assert (df[features.feature_cols].dtypes == "float32").all()
    pd.testing.assert_frame_equal(df[bars.columns], bars.iloc[49:].reset_index(drop=True))
    assert features.cache_key
    assert features.quality_report["cache_hit"] is False


def test_a_hit_and_no_cache_give_the_same_frame_to_the_byte(market_db, features):
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    hit = prepare_features(bars, db_path=str(market_db))
    plain = prepare_features(bars, use_cache=False)
    assert hit.quality_report["cache_hit"] is True
    assert plain.quality_report["cache_hit"] is False
    for other in (hit, plain):
        pd.testing.assert_frame_equal(other.dataframe, features.dataframe, check_exact=True)
        for name in features.feature_cols:
            assert other.dataframe[name].to_numpy().tobytes() == features.dataframe[name].to_numpy().tobytes()
        assert other.cache_key == features.cache_key


def test_no_cache_touches_no_file(market_db, cache_dir):
    prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe, use_cache=False, db_path=str(market_db))
    assert not cache_dir.exists()


def test_any_form_of_times_gives_the_same_features(market_db, features):
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    ms = bars.timestamp.dt.tz_convert(None).to_numpy().astype("M8[ms]").astype("int64")
    for times in (ms, ms // 1000, bars.timestamp.dt.tz_convert("Asia/Tokyo"), bars.timestamp.dt.tz_localize(None)):
        for name in ("timestamp", "ts"):
            frame = bars.drop(columns="timestamp").assign(**{name: times})
            result = prepare_features(frame)
            assert result.cache_key == features.cache_key
            assert str(result.dataframe.timestamp.dtype) == "datetime64[ms, UTC]"
    assert prepare_features(bars.set_index("timestamp")).cache_key == features.cache_key


def test_further_columns_are_kept_beside_their_bars(market_db):
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    bars["trades"] = np.arange(len(bars))
    df = prepare_features(bars).dataframe
    assert df.trades.tolist() == list(range(49, len(bars)))


def test_a_database_that_changed_makes_a_new_entry_and_drops_the_old(market_db, features, cache_dir):
    ts, *prices = last_bar(market_db)
    add_rows(market_db, (ts + 3_600_000, *prices))
    newer = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe, db_path=str(market_db))
    assert newer.quality_report["cache_hit"] is False
    assert newer.cache_key != features.cache_key
    # What was just used stays for a while, as another job may be reading it; then it goes with the next new entry.
    assert set(indexed(cache_dir)) == {features.cache_key, newer.cache_key}
    for key in indexed(cache_dir):
        age_entry(open_cache(), key, 7_200)
    add_rows(market_db, (ts + 7_200_000, *prices))
    newest = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe, db_path=str(market_db))
    assert set(indexed(cache_dir)) == {newest.cache_key}
    assert len(list((cache_dir / "features").glob("*.parquet"))) == 1


def test_a_database_whose_file_time_alone_changed_is_a_hit(market_db, features):
    os.utime(market_db, (time.time() + 1_000, time.time() + 1_000))
    again = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe, db_path=str(market_db))
    assert again.quality_report["cache_hit"] is True


def test_a_revised_bar_is_never_served_stale(market_db, features):
    with sqlite3.connect(market_db) as connection:
        ts = last_bar(market_db)[0] - 500 * 3_600_000
        changed = connection.execute(
            "UPDATE ohlcv SET high = high * 1.001 WHERE symbol = 'AAAUSDT' AND ts >= ? AND ts < ?", (ts, ts + 3_600_000)
        )
        assert changed.rowcount == 1
    connection.close()
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    newer = prepare_features(bars, db_path=str(market_db))
    assert newer.quality_report["cache_hit"] is False
    pd.testing.assert_frame_equal(newer.dataframe, prepare_features(bars, use_cache=False).dataframe)


def test_a_limit_and_a_fold_evict_nothing(market_db, features):
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    prepare_features(load_market_data(market_db, "AAAUSDT", "1h", limit=300).dataframe, db_path=str(market_db))
    prepare_features(bars.iloc[:700], db_path=str(market_db))
    assert prepare_features(bars, db_path=str(market_db)).quality_report["cache_hit"] is True
    assert invalidate_cache(str(market_db)) == 3


def test_invalidate_forgets_one_database_or_all(market_db, features, tmp_path):
    other = prepare_features(load_market_data(market_db, "BBBUSDT", "1h").dataframe, db_path=str(tmp_path / "other.db"))
    assert invalidate_cache(str(market_db)) == 1
    bars = load_market_data(market_db, "BBBUSDT", "1h").dataframe
    assert prepare_features(bars).quality_report["cache_hit"] is True
    assert prepare_features(bars).cache_key == other.cache_key
    assert invalidate_cache() == 1
    assert invalidate_cache() == 0


def test_the_partition_comes_from_columns_then_from_the_frame(market_db, cache_dir):
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    prepare_features(bars.assign(symbol="CCC", timeframe="4h"), db_path=str(market_db))
    entries = json.loads((cache_dir / "index.json").read_text())["entries"].values()
    assert [user["symbol"] for entry in entries for user in entry["used_by"]] == ["CCC"]
    with pytest.raises(BitcornError, match="holds 2 symbols"):
        prepare_features(bars.assign(symbol=np.where(bars.index < 9, "A", "B"), timeframe="1h"))


def test_a_given_registry_is_used(market_db):
    bars = load_market_data(market_db, "BBBUSDT", "1h").dataframe
    result = prepare_features(bars, "momentum:window=3", feature_registry={"momentum": momentum})
    assert result.feature_cols == ["momentum", "range"]
    expected = (bars.close / bars.close.shift(3) - 1).iloc[3:].astype("float32")
    np.testing.assert_array_equal(result.dataframe["momentum"], expected)


def test_a_system_itself_its_module_and_a_context_are_understood(market_db):
    bars = load_market_data(market_db, "BBBUSDT", "1h").dataframe
    one, other = (prepare_features(bars, spec) for spec in (momentum, "own_systems:momentum"))
    assert one.cache_key == other.cache_key
    assert other.quality_report["cache_hit"] is True
    wide = prepare_features(bars, "v2:context=4h")
    assert wide.feature_cols[13:16] == ["td_sell_setup", "log_ret_1_4h", "log_ret_5_4h"]
    assert len(wide.dataframe) == 900 - 51 * 4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda df: df.iloc[::-1], "timestamps must rise"),
        (lambda df: pd.concat([df.iloc[:50], df.iloc[49:]]), "is repeated"),
        (lambda df: df.drop(columns="close"), "no column close"),
        (lambda df: df.assign(close="x"), "not numbers"),
        (lambda df: df.assign(low=df.low.where(df.index != 70)), "low must be a finite number above 0, but is nan"),
        (lambda df: df.assign(close=0.0), "but is 0.0 in 900 of 900 bars"),
        (lambda df: df.head(49), "49 bars are too few"),
        (lambda df: df.assign(timestamp="noon"), "'noon'"),
    ],
)
def test_bad_bars_are_refused_with_value_and_row(market_db, spoil, message, cache_dir):
    bars = load_market_data(market_db, "BBBUSDT", "1h").dataframe
    with pytest.raises(BitcornError, match=message):
        prepare_features(spoil(bars))
    assert not list(cache_dir.rglob("*.parquet"))


def test_an_unknown_system_names_those_that_exist(market_db):
    with pytest.raises(BitcornError, match=r"unknown feature system 'v7': choose v2"):
        prepare_features(load_market_data(market_db, "BBBUSDT", "1h").dataframe, "v7")


def test_the_cache_folder_is_absolute_and_the_environment_goes_before_the_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert open_cache("here").storage.address == str(tmp_path / "here")
    assert open_cache(FEATURE_CACHE_DIR).storage.address == str(tmp_path / "feature_cache")
    monkeypatch.delenv("BITCORN_CACHE_DIR")
    assert open_cache().storage.address == str(tmp_path / "cache" / "data_pipeline")


# Sequences


def test_windows_targets_and_their_bars(features):
    df = features.dataframe
    result = build_sequences(df, features.feature_cols, seq_len=16, horizon=4, fit_scaler=False)
    assert result.X.shape == (len(result.y_ret), 16, 14)
    assert result.X.dtype == result.y_ret.dtype == result.y_vol.dtype == np.float32
    assert result.scaler is None
    matrix, log_close = df[features.feature_cols].to_numpy(), np.log(df.close.to_numpy())
    times = df.timestamp.dt.tz_convert(None).to_numpy().astype("M8[ms]").astype("int64")
    for i in range(0, len(result.X), 97):
        end = result.metadata["end_rows"][i]
        np.testing.assert_array_equal(result.X[i], matrix[end - 15 : end + 1])
        assert result.metadata["end_timestamps"][i] == times[end]
        assert result.y_ret[i] == pytest.approx(log_close[end + 4] - log_close[end], abs=1e-7)
        assert result.y_vol[i] == pytest.approx(np.diff(log_close[end : end + 5]).std(), abs=1e-7)
        assert (np.diff(times[end - 15 : end + 5]) == 3_600_000).all()


def test_where_every_window_is_valid_x_is_a_read_only_view(market_db):
    result = prepare_features(load_market_data(market_db, "BBBUSDT", "1h").dataframe)
    X = build_sequences(result.dataframe, result.feature_cols, seq_len=64, horizon=1).X
    assert X.shape == (900 - 49 - 64, 64, 14)
    assert not X.flags.writeable
    assert np.shares_memory(X[0], X[1])


def test_windows_left_out_are_counted_by_reason(features):
    df = features.dataframe.copy()
    clean = build_sequences(df, features.feature_cols, seq_len=16, horizon=4)
    df.loc[1_000, "rsi_14"] = np.nan
    spoilt = build_sequences(df, features.feature_cols, seq_len=16, horizon=4)
    assert clean.metadata["left_out"]["gap"] > 0
    assert spoilt.metadata["left_out"]["non_finite_features"] == 16
    assert len(clean.X) - len(spoilt.X) == 16
    counted = sum(spoilt.metadata["left_out"].values())
    assert spoilt.metadata["windows"] + counted == spoilt.metadata["candidates"] == len(df) - 16 - 4 + 1


def test_without_validation_rows_are_neighbours_whatever_their_times(features):
    result = build_sequences(
        features.dataframe, features.feature_cols, seq_len=16, horizon=4, validate_chronology=False
    )
    assert sum(result.metadata["left_out"].values()) == 0


@pytest.mark.parametrize("strategy", ["forward", "linear"])
def test_filled_gaps_are_spanned(features, strategy):
    df = features.dataframe
    missing = int((df.timestamp.diff().dt.total_seconds().iloc[1:] / 3600 - 1).sum())
    result = build_sequences(df, features.feature_cols, seq_len=16, horizon=4, fill_gaps_strategy=strategy)
    assert result.metadata["filled_bars"] == missing
    assert result.metadata["left_out"]["gap"] == 0
    steps = np.diff(result.metadata["end_timestamps"])
    assert steps.max() == (3_600_000 if strategy == "forward" else 3_600_000 * (max(gap_sizes(df)) + 1))


def gap_sizes(df):
    missing = (df.timestamp.diff().dt.total_seconds().iloc[1:] / 3600 - 1).astype(int)
    return missing[missing > 0].tolist()


def test_gaps_longer_than_the_size_stay_gaps(features):
    sizes = gap_sizes(features.dataframe)
    assert min(sizes) < max(sizes)
    result = build_sequences(
        features.dataframe,
        features.feature_cols,
        seq_len=16,
        horizon=4,
        fill_gaps_strategy="forward",
        max_gap_size=min(sizes),
    )
    assert result.metadata["filled_bars"] == min(sizes) * sizes.count(min(sizes))
    assert result.metadata["left_out"]["gap"] > 0


@pytest.mark.parametrize("strategy", [None, "forward", "linear"])
def test_no_window_knows_a_bar_after_its_end(features, strategy):
    """Whatever follows a window's last bar may change without a change in the window: interpolation included."""
    df = features.dataframe
    arguments = {"seq_len": 16, "horizon": 1, "fill_gaps_strategy": strategy, "fit_scaler": False}
    before = build_sequences(df, features.feature_cols, **arguments)
    first_gap = int(np.flatnonzero(df.timestamp.diff().dt.total_seconds() > 3600)[0])
    for cut in (first_gap - 1, first_gap, first_gap + 1):
        changed = df.copy()
        changed.loc[cut:, [*features.feature_cols, "close"]] *= 3
        after = build_sequences(changed, features.feature_cols, **arguments)
        earlier = before.metadata["end_timestamps"] < df.timestamp.iloc[cut].value // 10**6
        np.testing.assert_array_equal(after.X[earlier], before.X[earlier])


def test_a_scaler_is_fitted_on_the_rows_or_used_as_given(features):
    df, columns = features.dataframe, features.feature_cols
    fitted = build_sequences(df, columns, seq_len=16, horizon=1)
    np.testing.assert_allclose(fitted.scaler.mean_, df[columns].to_numpy(np.float64).mean(0), rtol=1e-6)
    given = StandardScaler().fit(df[columns].to_numpy()[:500])
    mean = given.mean_.copy()
    used = build_sequences(df.iloc[500:], columns, seq_len=16, horizon=1, fit_scaler=True, scaler=given)
    assert used.scaler is given
    np.testing.assert_array_equal(given.mean_, mean)
    end = used.metadata["end_rows"][0]
    expected = given.transform(df[columns].to_numpy()[500 + end - 15 : 500 + end + 1])
    np.testing.assert_allclose(used.X[0], expected, rtol=1e-4, atol=1e-6)


def test_the_dtype_is_the_requested_one(features):
    result = build_sequences(features.dataframe, features.feature_cols, seq_len=8, horizon=1, dtype=np.float64)
    assert result.X.dtype == result.y_ret.dtype == np.float64


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda df: df, {"seq_len": 5_000}, "too few: seq_len 5000 and horizon 1 need at least 5001"),
        (lambda df: df, {"horizon": 0}, "horizons are"),
        (lambda df: df.iloc[::-1], {}, "timestamps must rise"),
        (lambda df: pd.concat([df, df.tail(1)]), {}, "is repeated"),
        (lambda df: df.drop(columns="timestamp"), {}, "no timestamp"),
        (lambda df: df.drop(columns="rsi_14"), {}, "no column rsi_14"),
        (lambda df: df.assign(rsi_14=np.nan), {"fit_scaler": False}, "no valid window is left"),
        (lambda df: df, {"fill_gaps_strategy": "magic"}, "'magic'"),
    ],
)
def test_bad_input_is_refused(features, change, arguments, message):
    with pytest.raises(BitcornError, match=message):
        build_sequences(change(features.dataframe), features.feature_cols, **{"seq_len": 16, "horizon": 1, **arguments})


# On Ray


def test_a_worker_makes_the_same_bytes_as_this_process(market_db, ray_cluster, features):
    cached = {name: features.dataframe[name].to_numpy().tobytes() for name in features.feature_cols}
    invalidate_cache()
    statuses = compute_features(market_db)
    assert [(s.symbol, s.hit, s.error) for s in statuses] == [("AAAUSDT", False, None), ("BBBUSDT", False, None)]
    again = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe, db_path=str(market_db))
    assert again.quality_report["cache_hit"] is True
    assert again.cache_key == statuses[0].key
    assert {name: again.dataframe[name].to_numpy().tobytes() for name in again.feature_cols} == cached
    assert [s.hit for s in compute_features(market_db, symbols=["aaa/usdt"], timeframes=["1H"])] == [True]
    assert invalidate_cache(str(market_db)) == 2


# Databases and files of other shapes


def binance_db(path, n=600):
    """A database as a downloader of Binance's klines makes it: text prices, microseconds, all twelve columns."""
    columns = "open_time, open, high, low, close, volume, close_time, quote_asset_volume, number_of_trades, tbb, tbq, x"
    rows = [
        (1_735_689_600_000_000 + i * 3_600_000_000, "100.5", "107", "99.25", f"{100 + i % 7}.125", f"{i + 1}", *more)
        for i in range(n)
        for more in [(1_735_693_199_999_999 + i * 3_600_000_000, f"{i * 100.5}", i % 50, "0.5", "50", "0")]
    ]
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE klines_1h ({columns})")
        connection.executemany(f"INSERT INTO klines_1h VALUES ({', '.join('?' * 12)})", rows)
    connection.close()
    return path


def test_further_columns_stay_beside_the_bars(tmp_path):
    path = binance_db(tmp_path / "BTCUSDT.db")
    loaded = load_market_data(str(path), "BTC/USDT", "1h", columns=["quote_volume", "trades"])
    frame = loaded.dataframe
    assert list(frame.columns[-2:]) == ["quote_volume", "trades"]
    assert frame["trades"].tolist() == [float(i % 50) for i in range(600)]
    assert frame["quote_volume"].iloc[7] == 703.5
    assert frame["timestamp"].iloc[0] == pd.Timestamp("2025-01-01", tz="UTC")
    assert list(load_market_data(str(path), "BTC/USDT", "1h").dataframe.columns) == [*frame.columns[:-2]]
    prepared = prepare_features(frame)
    assert prepared.dataframe["trades"].iloc[-1] == 599 % 50
    with pytest.raises(BitcornError, match="no further column 'oi': there is close_time, quote_asset_volume"):
        load_market_data(str(path), "BTCUSDT", "1h", columns=["oi"])


def test_options_for_reading_a_source_are_used(tmp_path, market_db):
    with sqlite3.connect(market_db) as connection:
        columns = "symbol, timeframe, ts, open AS a, high, low, close, volume"
        connection.execute(f"CREATE TABLE backup AS SELECT {columns} FROM ohlcv")
        connection.execute("CREATE TABLE copy AS SELECT * FROM ohlcv WHERE symbol = 'BBBUSDT'")
    connection.close()
    with pytest.raises(BitcornError, match=r"BBBUSDT 1h more than once.*--table"):
        load_market_data(market_db, "BBBUSDT", "1h")
    one = load_market_data(market_db, "BBBUSDT", "1h", table="copy").dataframe
    other = load_market_data(market_db, "BBBUSDT", "1h", table="backup", mapping={"open": "a"}).dataframe
    pd.testing.assert_frame_equal(one, other)


def test_a_file_is_a_source_as_a_database_is(tmp_path):
    from_db = load_market_data(str(binance_db(tmp_path / "BTCUSDT.db")), "btcusdt", "1h", columns=["trades"]).dataframe
    from_db.drop(columns="timestamp").assign(when=from_db["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).rename(
        columns={"open": "Open Price", "volume": "Volume BTC", "when": "Date"}
    ).to_csv(tmp_path / "BTC-USDT_1h.csv", index=False)
    loaded = load_market_data(str(tmp_path / "BTC-USDT_1h.csv"), "btcusdt", "1h", columns=["trades"], limit=400)
    pd.testing.assert_frame_equal(loaded.dataframe, from_db.tail(400).reset_index(drop=True), check_like=True)


def test_features_of_further_columns_are_computed_from_a_source(tmp_path, monkeypatch, ray_cluster):
    path = binance_db(tmp_path / "BTCUSDT.db")
    (tmp_path / "of_trades.py").write_text(
        "import numpy as np\nfrom bitcorn_ray.features.system import feature_system\n"
        "@feature_system(name='activity', warmup=1, inputs=['trades'])\n"
        "def activity(bars):\n    return {'activity': np.log1p(bars.extra['trades'])}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (status,) = compute_features(path, system="of_trades:activity")
    assert (status.error, status.rows) == (None, 599)
    frame = load_market_data(str(path), "BTCUSDT", "1h", columns=["trades"]).dataframe
    prepared = prepare_features(frame, "of_trades:activity")
    assert prepared.quality_report["cache_hit"]
    expected = np.log1p(frame["trades"].to_numpy()[1:]).astype(np.float32)
    np.testing.assert_array_equal(prepared.dataframe["activity"].to_numpy(), expected)
    with pytest.raises(BitcornError, match="no further column 'trades'"):
        prepare_features(frame.drop(columns="trades"), "of_trades:activity")


@pytest.mark.parametrize("fill", ["forward", "linear"])
def test_bars_that_a_policy_filled_are_known_to_windows(market_db, fill):
    policy = CleaningPolicy(fill=fill, max_gap_size=30)
    market = load_market_data(market_db, "AAAUSDT", "1h", policy=policy)
    filled = market.dataframe["filled"].to_numpy()
    assert filled.sum() == market.quality_report["cleaning"]["bars_filled"] > 0
    assert len(market.dataframe) == 1_500
    features = prepare_features(market.dataframe)
    built = build_sequences(features.dataframe, features.feature_cols, seq_len=16, horizon=4)
    at = pd.Series(filled, index=market.dataframe["timestamp"].astype("int64").to_numpy())
    ends_filled = at[built.metadata["end_timestamps"]].to_numpy()
    assert built.metadata["end_filled"].tolist() == ends_filled.tolist()
    assert built.metadata["left_out"]["gap"] == 0
    if fill == "forward":
        assert ends_filled.any()
        return
    # Such a bar knows the one after the gap: no window ends on it, but windows go through it.
    assert not ends_filled.any()
    assert built.metadata["left_out"]["end_in_interpolated_gap"] == filled[49 + 15 : -4].sum()
    unknown = features.dataframe.copy()
    unknown.attrs.clear()
    again = build_sequences(unknown, features.feature_cols, seq_len=16, horizon=4)
    assert np.array_equal(again.metadata["end_timestamps"], built.metadata["end_timestamps"])


def test_windows_that_end_on_bars_filled_ahead_are_left_out(market_db):
    market = load_market_data(market_db, "AAAUSDT", "1h", policy=CleaningPolicy(fill="linear", max_gap_size=5))
    frame = market.dataframe.assign(x=1.0)
    built = build_sequences(frame, ["x"], seq_len=4, horizon=1, fill_gaps_strategy="forward", fit_scaler=False)
    by_hand = set(frame.loc[frame["filled"], "timestamp"].astype("int64"))
    assert not by_hand & set(built.metadata["end_timestamps"].tolist())
    assert built.metadata["filled_bars"] == 1_500 - len(frame) + frame["filled"].sum()


def test_a_timeframe_that_is_not_stored_is_resampled(market_db):
    market = load_market_data(market_db, "bbbusdt", "4h")
    hours = load_market_data(market_db, "BBBUSDT", "1h").dataframe.set_index("timestamp")
    slow = hours.resample("4h").agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
    pd.testing.assert_frame_equal(market.dataframe.set_index("timestamp"), slow, check_freq=False)
    assert market.quality_report["timeframe"] == "4h"
    assert market.quality_report["resampled"]["from"] == "1h"
    assert "filled" not in market.dataframe
