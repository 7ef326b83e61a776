import json
import multiprocessing
import sys
import threading
import time
from collections import Counter

import pytest
from comparing import age_entry, assert_same_bytes

from bitcorn_ray.cache.store import (
    FeatureCache,
    chunk_name,
    is_ours,
    is_understood,
    key_of,
    link_folder,
    manifest_name,
    source_id,
)
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.compute import Origin, prepare, update
from bitcorn_ray.features.registry import SYSTEMS, find_system
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import StoredFile
from bitcorn_ray.storage.traffic import count_traffic, traffic

V2 = SYSTEMS["v2"]


def files(cache):
    return sorted(file.name for file in cache.storage.files() if not file.name.startswith("code/"))


def keys(cache):
    return {entry["key"] for entry in cache.entries()}


def stored(bars, cache, source=None):
    """Prepare, and remove at once what that supersedes, as a front door does without a grace period."""
    prepared = prepare(bars, V2, cache, source)
    cache.forget(prepared.superseded, grace=0.0)
    return prepared.plan.key


def test_the_layout_is_the_documented_one(any_cache, random_bars, tmp_path):
    prepared = prepare(random_bars(500), V2, any_cache, Origin(tmp_path / "a.db", Partition("A", "1h"), True))
    any_cache.refresh_index()
    key, chunk = prepared.plan.key, prepared.plan.chunks[0].key
    assert [f for f in files(any_cache) if not f.startswith("links/")] == sorted(
        [
            f"data_quality/{key}.json",
            f"features/{key}.meta.json",
            f"features/{chunk}.parquet",
            "index.json",
        ]
    )
    index = json.loads(bytes(any_cache.storage.read("index.json")))
    assert index["entries"][key]["rows"] == 451
    assert index["entries"][key]["used_by"][0]["symbol"] == "A"


def test_a_manifest_describes_its_entry(cache, random_bars, small_chunks):
    key = prepare(random_bars(500), V2, cache, None).plan.key
    manifest = cache.manifest(key)
    assert (manifest["system"], manifest["version"], manifest["warmup"], manifest["rows"]) == ("v2", 1, 49, 451)
    assert sum(chunk["rows"] for chunk in manifest["chunks"]) == 500
    assert manifest["first_timestamp"] == "2023-01-03T01:00:00Z"
    assert manifest["chunks"][-1]["to"] == manifest["last_timestamp"] == "2023-01-21T19:00:00Z"
    parquet = [file for file in cache.storage.files("features") if file.name.endswith(".parquet")]
    assert manifest["bytes"] == sum(file.size for file in parquet)
    assert manifest["identity"]["code"]["libraries"].keys() >= {"numpy", "pandas", "talib"}


def test_the_index_is_never_read_as_the_truth(cache, random_bars, tmp_path):
    bars = random_bars(500)
    prepare(bars, V2, cache, None)
    cache.storage.publish("index.json", b"{ torn")
    assert prepare(bars, V2, cache, None).hit
    cache.refresh_index()
    assert len(cache.storage.read_json("index.json")["entries"]) == 1
    other = prepare(random_bars(501), V2, cache, Origin(tmp_path / "a.db", Partition("A", "1h"))).plan.key
    cache.refresh_index()
    index = cache.storage.read_json("index.json")["entries"]
    assert len(index) == 2
    assert index[other]["used_by"] == [{"db_path": str(tmp_path / "a.db"), "symbol": "A", "timeframe": "1h"}]


@pytest.mark.parametrize("what", ["features/{}.meta.json", "data_quality/{}.json"])
@pytest.mark.parametrize("damage", [None, b"", b"{}", b"\xff\xff"])
def test_a_lost_record_is_rewritten_without_computing_features(cache, random_bars, what, damage):
    bars = random_bars(500)
    first = prepare(bars, V2, cache, None)
    name = what.format(first.plan.key)
    cache.storage.delete([name])
    if damage is not None:
        cache.storage.publish(name, damage)
    again = prepare(bars, V2, cache, None)
    assert again.hit
    assert_same_bytes(again, first)
    assert again.quality == first.quality
    assert name.startswith("features/") or cache.quality(first.plan.key) == first.quality


def test_a_newer_full_load_supersedes_the_old_one(any_cache, random_bars, tmp_path):
    source = Origin(tmp_path / "a.db", Partition("AAA", "1h"), complete=True)
    old = stored(random_bars(500), any_cache, source)
    new = stored(random_bars(501), any_cache, source)
    assert keys(any_cache) == {new}
    assert old != new
    assert not [name for name in files(any_cache) if old in name]
    assert len([name for name in files(any_cache) if name.endswith(".parquet")]) == 1


def test_chunks_that_the_newer_entry_shares_stay(cache, random_bars, tmp_path, small_chunks):
    source = Origin(tmp_path / "a.db", Partition("AAA", "1h"), complete=True)
    bars = random_bars(500)
    stored(bars.take(slice(499)), cache, source)
    stored(bars, cache, source)
    assert prepare(bars, V2, cache, None).hit
    chunks = len(cache.entries()[0]["chunks"])
    assert len([name for name in files(cache) if name.endswith(".parquet")]) == chunks


def test_a_recently_used_entry_is_removed_only_after_its_grace_period(cache, random_bars, tmp_path):
    source = Origin(tmp_path / "a.db", Partition("AAA", "1h"), complete=True)
    old, new = random_bars(500), random_bars(501)
    prepare(old, V2, cache, source)
    assert cache.forget(prepare(new, V2, cache, source).superseded) == 0
    assert prepare(old, V2, cache, None).hit
    for key in keys(cache):
        age_entry(cache, key, 7_200)
    assert cache.forget(prepare(random_bars(502), V2, cache, source).superseded) == 2
    assert len(keys(cache)) == 1


def test_every_use_is_counted_and_dated(cache, random_bars):
    bars = random_bars(500)
    key = prepare(bars, V2, cache, None).plan.key
    assert not list(cache.storage.files("uses"))  # it was just made
    for uses in range(1, 4):
        age_entry(cache, key, 7_200)
        assert prepare(bars, V2, cache, None).hit
        noted = cache.storage.existing([f"uses/{key}"])[f"uses/{key}"]
        assert noted.size == uses
        assert noted.written > time.time() - 60


def test_a_slice_evicts_nothing_and_is_not_evicted(cache, random_bars, tmp_path):
    bars = random_bars(500)
    source = Origin(tmp_path / "a.db", Partition("AAA", "1h"), complete=True)
    part = Origin(tmp_path / "a.db", Partition("AAA", "1h"), complete=False)
    full = stored(bars, cache, source)
    fold = stored(bars.take(slice(300)), cache, part)
    newest = stored(bars.take(slice(200, None)), cache, part)
    assert keys(cache) == {full, fold, newest}
    newer = stored(random_bars(501), cache, source)
    assert keys(cache) == {fold, newest, newer}


def test_other_partitions_systems_and_databases_are_left_alone(cache, random_bars, tmp_path):
    for number, (db, symbol, timeframe) in enumerate(
        [("a", "X", "1h"), ("a", "X", "4h"), ("a", "Y", "1h"), ("b", "X", "1h")]
    ):
        stored(random_bars(500, seed=number), cache, Origin(tmp_path / db, Partition(symbol, timeframe), True))
    stored(random_bars(500, seed=9), cache, Origin(tmp_path / "a", Partition("x", "1h"), True))
    assert len(cache.entries()) == 4


def test_invalidate_counts_entries_and_keeps_those_of_another_database(any_cache, random_bars, tmp_path):
    cache = any_cache
    shared, own = random_bars(500, seed=1), random_bars(500, seed=2)
    for db, bars, symbol in (("a.db", shared, "X"), ("b.db", shared, "X"), ("a.db", own, "Y")):
        prepare(bars, V2, cache, Origin(tmp_path / db, Partition(symbol, "1h"), True))
    assert len(cache.entries()) == 2
    assert cache.invalidate(tmp_path / "a.db") == 2
    assert prepare(shared, V2, cache, None).hit
    assert not prepare(own, V2, FeatureCache(cache.storage.address), None).hit
    assert cache.invalidate(tmp_path / "a.db") == 0
    assert cache.invalidate(tmp_path / "b.db") == 1
    assert cache.invalidate() == 1
    assert files(cache) == ["index.json"]


def test_files_that_are_not_the_caches_are_passed_over_and_never_removed(cache, random_bars):
    # The older system's entries lie in the same folders, under names of 16 characters.
    foreign = {
        "features/a1b2c3d4e5f6g7h8.meta.json": b'{"feature_system": "v2"}',
        "features/a1b2c3d4e5f6g7h8.parquet": b"older",
        "features/mine.parquet": b"mine",
        "data_quality/a1b2c3d4e5f6g7h8.json": b"{}",
    }
    for name, content in foreign.items():
        cache.storage.publish(name, content)
    prepare(random_bars(500), V2, cache, None)
    cache.refresh_index()
    assert len(cache.entries()) == 1
    assert cache.invalidate() == 1
    assert files(cache) == sorted([*foreign, "index.json"])


def test_clearing_a_folder_that_does_not_exist_creates_nothing(tmp_path):
    assert FeatureCache(tmp_path / "none").invalidate() == 0
    assert not (tmp_path / "none").exists()


def test_all_spellings_of_a_symbol_supersede_each_other(cache, random_bars, tmp_path):
    stored(random_bars(500), cache, Origin(tmp_path / "a.db", Partition("BTC/USDT", "1h"), complete=True))
    newer = stored(random_bars(501), cache, Origin(tmp_path / "a.db", Partition("btcusdt", "1h"), complete=True))
    assert keys(cache) == {newer}


def test_symbols_cannot_leave_the_folder(cache, random_bars, tmp_path):
    for symbol in ("../../x", "a/b", "..", "x\0y"):
        prepare(random_bars(100), V2, cache, Origin(tmp_path / "a.db", Partition(symbol, "1h"), True))
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}
    assert len(cache.entries()[0]["used_by"]) == 4


def test_an_unwritable_folder_is_a_clear_error(tmp_path, random_bars):
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match=r"cannot be written.*give another one"):
        prepare(random_bars(100), V2, FeatureCache(tmp_path / "file" / "cache"), None)


def _prepare_in_process(folder, start):
    start.wait()
    source = Origin(folder.parent / "a.db", Partition("A", "1h"), True)
    prepare(simulate_bars(5_000, seed=4), V2, FeatureCache(folder), source)


def test_processes_that_make_one_entry_at_once_all_succeed(cache):
    from pathlib import Path

    folder = Path(cache.storage.address)
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    workers = [context.Process(target=_prepare_in_process, args=(folder, start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(cache.entries()) == 1
    bars = simulate_bars(5_000, seed=4)
    hit = prepare(bars, V2, cache, None)
    assert hit.hit
    assert_same_bytes(hit, prepare(bars, V2, None, None))
    assert not list(folder.rglob(f"{TEMPORARY}*"))


def test_a_file_is_refused_as_a_cache(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BitcornError, match="file is a file: give a folder"):
        FeatureCache(tmp_path / "file")


# Names of files

KEY = "0123456789abcdef" * 2


@pytest.mark.parametrize("name", [chunk_name(KEY), manifest_name(KEY), f"links/x/{KEY}.json", f"uses/{KEY}"])
def test_the_key_is_parsed_from_a_file_name(name):
    assert key_of(name) == KEY
    assert is_ours(StoredFile(name, 1, 0.0))


@pytest.mark.parametrize("name", ["features/a1b2c3d4e5f6g7h8.parquet", "features/mine.parquet", "index.json", "else/x"])
def test_foreign_files_are_recognised(name):
    assert not is_ours(StoredFile(name, 1, 0.0))


def test_names_of_links_are_hashed(tmp_path):
    folder = link_folder(tmp_path / "../a", "../../x/y 1h v2:../z")
    assert folder.startswith(f"links/{source_id(tmp_path / '../a')}-")
    assert set(folder.removeprefix("links/")) <= set("0123456789abcdef-")
    assert link_folder(tmp_path, "v2") != link_folder(tmp_path, "v4")


def test_manifests_of_other_formats_are_not_understood():
    assert not is_understood({})
    assert not is_understood({"identity": {"format": 0}})


# Traffic


def test_traffic_counts_hits_misses_and_bytes(random_bars, tmp_path):
    bars, system, cache = random_bars(40_000), find_system("v2"), FeatureCache(tmp_path)
    start = traffic()
    chunks = len(prepare(bars, system, cache, None).plan.chunks)
    size = sum(path.stat().st_size for path in (tmp_path / "features").glob("*.parquet"))
    assert chunks > 1
    computed = traffic()
    assert computed - start == Counter(misses=chunks, bytes_written=size)
    prepare(bars, system, cache, None)
    read = traffic()
    assert read - computed == Counter(hits=chunks, bytes_read=size)
    update(bars, system, cache, None)
    assert traffic() - read == Counter(hits=chunks)


def test_without_a_cache_there_is_no_traffic(random_bars):
    before = traffic()
    prepare(random_bars(300), find_system("v2"), None, None)
    assert traffic() == before


def test_concurrent_threads_lose_no_counts():
    before, interval = traffic(), sys.getswitchinterval()

    def add():
        for _ in range(2_000):
            count_traffic(hits=1, bytes_read=3)

    threads = [threading.Thread(target=add) for _ in range(8)]
    sys.setswitchinterval(1e-6)  # they take turns within an addition
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert traffic() - before == Counter(hits=16_000, bytes_read=48_000)
