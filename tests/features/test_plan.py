import os
import sqlite3
import time
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from comparing import age_entry

from bitcorn_ray.cache.pruning import prune
from bitcorn_ray.cache.store import FeatureCache, chunk_name
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.compute import compute_jobs, finish_features, prepare
from bitcorn_ray.features.plan import FeatureJob, plan_features, requested_of, requested_partitions, require_found
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.partition import Partition, is_requested, normalise_symbol
from bitcorn_ray.market.resample import resample_bars
from bitcorn_ray.sources.source import open_source

V2, V4 = SYSTEMS["v2"], SYSTEMS["v4"]


def settle(db):
    """Set the time at which a database was written to a while ago."""
    for path in (db, *db.parent.glob(db.name + "-*")):
        os.utime(path, (time.time() - 60,) * 2)


def run(source, cache, system=V2, **asked):
    plan = plan_features(source, system, cache, **asked)
    return finish_features(plan, compute_jobs(plan.jobs, plan.work), cache)


def left(source, cache, system=V2, **asked):
    """Return the partitions that a plan would compute."""
    return [job.label().symbol for job in plan_features(source, system, cache, **asked).jobs]


def test_an_unchanged_database_is_not_read(market_db, any_cache):
    settle(market_db)
    first = run(market_db, any_cache)
    assert [(s.symbol, s.rows, s.hit, s.unread) for s in first] == [
        ("AAAUSDT", 1_427, False, False),
        ("BBBUSDT", 851, False, False),
    ]
    again = run(market_db, any_cache)
    assert [(s.symbol, s.rows, s.hit, s.unread, s.key, s.flags) for s in again] == [
        (s.symbol, s.rows, True, True, s.key, s.flags) for s in first
    ]
    assert first[0].flags


def test_a_database_that_was_just_written_is_read_again_and_hits(market_db, cache):
    run(market_db, cache)
    again = run(market_db, cache)
    assert [(s.hit, s.unread) for s in again] == [(True, False)] * 2


def test_a_changed_bar_is_found_and_only_its_partition_computed(market_db, cache):
    settle(market_db)
    run(market_db, cache)
    with sqlite3.connect(market_db) as connection:
        connection.execute("UPDATE ohlcv SET volume = volume + 1 WHERE symbol = 'BBBUSDT' AND rowid % 100 = 0")
    connection.close()
    settle(market_db)
    assert left(market_db, cache) == ["AAAUSDT", "BBBUSDT"]
    assert [(s.symbol, s.hit) for s in run(market_db, cache)] == [("AAAUSDT", True), ("BBBUSDT", False)]
    assert left(market_db, cache) == []


def test_another_system_or_parameter_has_its_own_receipt(market_db, cache):
    settle(market_db)
    run(market_db, cache)
    assert left(market_db, cache, V4) == ["AAAUSDT", "BBBUSDT"]
    run(market_db, cache, V4)
    assert left(market_db, cache, V4) == left(market_db, cache) == []
    assert left(market_db, cache, V4.with_parameters(short=7)) == ["AAAUSDT", "BBBUSDT"]


def test_a_requested_symbol_leaves_the_others_to_compute(market_db, cache):
    settle(market_db)
    run(market_db, cache, symbols=["AAAUSDT"])
    assert left(market_db, cache, symbols=["aaa-usdt"]) == []
    assert left(market_db, cache) == ["BBBUSDT"]
    run(market_db, cache)
    assert left(market_db, cache) == left(market_db, cache, timeframes=["1h"]) == []
    with pytest.raises(BitcornError, match="unknown symbol C"):
        left(market_db, cache, symbols=["C"])


def test_a_missing_chunk_is_computed_although_the_database_is_unchanged(market_db, cache):
    settle(market_db)
    key = run(market_db, cache)[1].key
    cache.storage.delete([chunk_name(cache.manifest(key)["chunks"][0]["key"])])
    assert left(market_db, cache) == ["BBBUSDT"]
    assert [(s.hit, s.unread) for s in run(market_db, cache)] == [(True, True), (False, False)]


def test_a_file_that_changes_while_it_is_read_has_no_receipt(market_db, cache):
    settle(market_db)
    plan = plan_features(market_db, V2, cache)
    done = compute_jobs(plan.jobs, plan.work)
    os.utime(market_db, (time.time() - 30,) * 2)
    finish_features(plan, done, cache)
    assert left(market_db, cache) == ["AAAUSDT", "BBBUSDT"]


def test_a_failure_is_not_in_the_receipt(market_db, cache):
    with sqlite3.connect(market_db) as connection:
        connection.execute("UPDATE ohlcv SET close = -1 WHERE symbol = 'BBBUSDT' AND rowid % 500 = 0")
    connection.close()
    settle(market_db)
    statuses = run(market_db, cache)
    assert statuses[0].error is None
    assert "close must be a finite number above 0" in statuses[1].error
    assert left(market_db, cache) == ["BBBUSDT"]


def test_only_changed_and_new_files_of_a_folder_are_read(tmp_path, random_bars, cache):
    folder = tmp_path / "bars"
    folder.mkdir()

    def write(name, seed, **more):
        columns = random_bars(200, seed=seed).columns()
        pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns, **more}), folder / name)
        os.utime(folder / name, (time.time() - 60 - seed,) * 2)

    for number in range(3):
        write(f"S{number}_1h.parquet", number)
    write("more.csv.parquet", 5, symbol=["X"] * 100 + ["Y"] * 100, timeframe=["1h"] * 200)
    assert [s.symbol for s in run(folder, cache)] == ["S0", "S1", "S2", "X", "Y"]
    assert left(folder, cache) == []
    write("S1_1h.parquet", 9)
    write("S4_1h.parquet", 4)
    assert left(folder, cache) == ["S1", "S4"]
    assert [(s.symbol, s.unread) for s in run(folder, cache, symbols=["S1", "X"])] == [("S1", False), ("X", True)]
    (folder / "S0_1h.parquet").unlink()
    assert [s.symbol for s in run(folder, cache)] == ["S1", "S2", "S4", "X", "Y"]


def test_a_file_that_cannot_be_read_is_named_and_the_others_kept(tmp_path, random_bars, cache):
    columns = random_bars(200).columns()
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), tmp_path / "A_1h.parquet")
    (tmp_path / "B_1h.parquet").write_text("no Parquet")
    statuses = run(tmp_path, cache)
    assert statuses[0].error is None
    assert (statuses[1].symbol, statuses[1].timeframe) == ("B", "1h")
    assert "cannot be read" in statuses[1].error


def test_a_worker_with_other_code_computes_nothing(market_db, cache):
    plan = plan_features(market_db, V2, cache)
    code = replace(plan.work.code, libraries={**plan.work.code.libraries, "numpy": "1.0"})
    statuses = compute_jobs(plan.jobs, replace(plan.work, code=code))
    assert [status.symbol for status in statuses] == ["AAAUSDT", "BBBUSDT"]
    assert all("this worker has numpy" in s.error and "the driver has 1.0" in s.error for s in statuses)
    assert not list(cache.storage.files("features"))


def test_superseded_entries_are_removed(market_db, tmp_path):
    cache = FeatureCache(tmp_path / "cache", grace=0.0)
    run(market_db, cache)
    with sqlite3.connect(market_db) as connection:
        connection.execute("DELETE FROM ohlcv WHERE symbol = 'BBBUSDT' AND ts = (SELECT max(ts) FROM ohlcv)")
        connection.execute("UPDATE ohlcv SET volume = 5 WHERE symbol = 'BBBUSDT'")
    connection.close()
    run(market_db, cache)
    assert sorted(entry["used_by"][0]["symbol"] for entry in cache.entries()) == ["AAAUSDT", "BBBUSDT"]
    assert len([file for file in cache.storage.files("features") if file.name.endswith(".parquet")]) == 2


@pytest.fixture
def mixed_folder(tmp_path, random_bars):
    """A folder with one file of three partitions, named after another one."""
    folder = tmp_path / "bars"
    folder.mkdir()
    columns = random_bars(300).columns()
    names = {"symbol": ["A"] * 100 + ["B"] * 100 + ["C/D"] * 100, "timeframe": ["1h"] * 300}
    path = folder / "A_1h.parquet"
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns, **names}), path)
    os.utime(path, (time.time() - 60,) * 2)
    return folder


def test_columns_of_a_file_precede_its_name(mixed_folder, cache):
    assert [s.symbol for s in run(mixed_folder, cache)] == ["A", "B", "C/D"]
    assert [s.unread for s in run(mixed_folder, cache)] == [True] * 3


@pytest.mark.parametrize("asked", [["A", "cd"], ["c-d", "b"], ["B"]])
def test_several_symbols_of_an_unread_file_can_be_requested(mixed_folder, cache, asked):
    wanted = {normalise_symbol(symbol) for symbol in asked}
    assert {normalise_symbol(s.symbol) for s in run(mixed_folder, cache, symbols=asked)} == wanted


def test_a_partition_in_no_file_is_refused_after_reading(mixed_folder, cache):
    plan = plan_features(mixed_folder, V2, cache, symbols=["A", "NOPE"])
    done = compute_jobs(plan.jobs, plan.work)
    with pytest.raises(BitcornError, match="unknown symbol NOPE: there is A"):
        require_found(plan.jobs, [Partition(s.symbol, s.timeframe) for s in done], ["A", "NOPE"], None)


def test_an_unread_file_counts_as_a_use_of_its_entries(market_db, cache):
    settle(market_db)
    keys = [status.key for status in run(market_db, cache)]
    for key in keys:
        age_entry(cache, key, 40 * 86_400)
    assert all(status.unread for status in run(market_db, cache))
    assert prune(cache, older_than=30 * 86_400).in_use == []
    assert {entry["key"] for entry in cache.entries()} == set(keys)


def resampled(bars, timeframe):
    return prepare(resample_bars(bars, "1h", timeframe).bars, V2, None, None)


@pytest.mark.parametrize("kind", ["database", "folder", "file"])
def test_a_timeframe_that_is_not_stored_is_resampled(market_db, tmp_path, random_bars, cache, kind):
    source = {"database": market_db, "folder": tmp_path / "bars", "file": tmp_path / "all.parquet"}[kind]
    bars = {"AAAUSDT": random_bars(1_500, seed=1, gaps=2), "BBBUSDT": random_bars(900, seed=2)}
    if kind == "folder":
        source.mkdir()
        for symbol, each in bars.items():
            each.to_frame().to_parquet(source / f"{symbol}_1h.parquet")
    if kind == "file":
        frames = [each.to_frame().assign(symbol=symbol, timeframe="1h") for symbol, each in bars.items()]
        pd.concat(frames).to_parquet(source)
    settle(source)
    for file in source.iterdir() if kind == "folder" else ():
        settle(file)
    done = run(source, cache, timeframes=["1h", "2h"])
    assert [(s.symbol, s.timeframe, s.base, s.error) for s in done] == [
        ("AAAUSDT", "1h", None, None),
        ("AAAUSDT", "2h", "1h", None),
        ("BBBUSDT", "1h", None, None),
        ("BBBUSDT", "2h", "1h", None),
    ]
    for status in done:
        if status.base:
            assert status.key == resampled(bars[status.symbol], "2h").plan.key
    again = run(source, cache, timeframes=["1h", "2h"])
    # A file of which not all partitions are known yet has to be read to be known.
    assert [(s.base, s.unread, s.hit, s.key) for s in again] == [(s.base, kind != "file", True, s.key) for s in done]
    # What was put together is no part of the source, though a receipt knows it.
    everything = run(source, cache)
    assert [(s.symbol, s.timeframe) for s in everything] == [("AAAUSDT", "1h"), ("BBBUSDT", "1h")]
    assert [(s.timeframe, s.unread) for s in run(source, cache)] == [("1h", True)] * 2
    assert {s.timeframe for s in run(source, cache, timeframes=["2h"])} == {"2h"}


def test_a_timeframe_that_cannot_be_resampled_is_refused(market_db, cache):
    with pytest.raises(BitcornError, match="no bars of timeframe 90m"):
        plan_features(market_db, V2, cache, timeframes=["90m"])


# Requested partitions


@pytest.mark.parametrize(
    ("symbols", "timeframes", "expected"),
    [
        (None, None, True),
        (["X", "btc-usdt"], None, True),
        (["X", "Y"], None, False),
        (["BTCUSDT"], ["4h", "60m"], True),
        (["BTCUSDT"], ["4h"], False),
    ],
)
def test_a_partition_is_requested_by_symbol_and_timeframe(symbols, timeframes, expected):
    assert is_requested(Partition("BTC/USDT", "1h"), symbols, timeframes) is expected


def test_a_database_gives_its_partitions_with_sizes(market_db):
    ((file, wanted),) = requested_partitions(open_source(market_db), {}, None, None)
    assert file.location.path == market_db
    sizes = dict(wanted)
    assert list(sizes) == [Partition("AAAUSDT", "1h"), Partition("BBBUSDT", "1h")]
    assert sizes[Partition("BBBUSDT", "1h")] == 900
    with pytest.raises(BitcornError, match="unknown symbol C"):
        list(requested_partitions(open_source(market_db), {}, ["C"], None))


def test_requested_partitions_of_unread_files_are_checked_after_reading():
    unread, named = (FeatureJob(path="/x", partition=p, size=1) for p in (None, Partition("A", "1h")))
    require_found([named], [], ["B"], None)
    require_found([unread], [Partition("B", "1h")], ["b"], ["1h"])
    with pytest.raises(BitcornError, match="no bars of timeframe 4h"):
        require_found([unread], [Partition("B", "1h")], ["b"], ["4h"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/d/BTC_1h.parquet", ("BTC", "1h")), ("/d/all.csv", ("all.csv", "")), ("/d/X_1M.csv", ("X_1M.csv", ""))],
)
def test_a_job_has_a_label_before_its_file_is_read(path, expected):
    label = FeatureJob(path=path, partition=None, size=1).label()
    assert (label.symbol, label.timeframe) == expected


def test_resampled_partitions_are_requested_with_their_base(market_db):
    ((_, wanted),) = requested_partitions(open_source(market_db), {}, ["bbbusdt"], ["4h", "1h"])
    assert [(p.timeframe, p.base, size) for p, size in wanted] == [("1h", None, 900), ("4h", "1h", 900)]
    stored = [Partition("A", "1h"), Partition("B", "4h")]
    assert [(p.symbol, p.base) for p in requested_of(stored, None, ["4h"])] == [("B", None), ("A", "1h")]
    assert requested_of(stored, None, None) == stored
    assert requested_of(stored, ["a"], ["1h"]) == stored[:1]
