import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from comparing import assert_same_bytes

from bitcorn_ray.cache.prepare import Source, prepare
from bitcorn_ray.cache.publish import TEMPORARY
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars

V2 = SYSTEMS["v2"]


def files(cache):
    return sorted(str(path.relative_to(cache.folder)) for path in cache.folder.rglob("*") if path.is_file())


def test_the_layout_is_the_documented_one(cache, random_bars, tmp_path):
    key = prepare(random_bars(500), V2, cache, Source(tmp_path / "a.db", Partition("A", "1h"), True)).key
    cache.refresh_index()
    assert [f for f in files(cache) if not f.startswith("links/")] == [
        f"data_quality/{key}.json",
        f"features/{key}.meta.json",
        f"features/{key}.parquet",
        "index.json",
    ]
    index = json.loads((cache.folder / "index.json").read_text())
    assert index["entries"][key]["rows"] == 451
    assert index["entries"][key]["used_by"][0]["symbol"] == "A"


def test_the_index_is_never_read_as_the_truth(cache, random_bars):
    bars = random_bars(500)
    prepare(bars, V2, cache, None)
    (cache.folder / "index.json").write_text("{ torn")
    assert prepare(bars, V2, cache, None).hit
    cache.refresh_index()
    assert len(json.loads((cache.folder / "index.json").read_text())["entries"]) == 1


@pytest.mark.parametrize("name", ["features/{}.parquet", "features/{}.meta.json", "data_quality/{}.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped"])
def test_what_cannot_be_read_whole_is_a_miss_that_heals(cache, random_bars, name, damage):
    bars = random_bars(3_000)
    first = prepare(bars, V2, cache, None)
    path = cache.folder / name.format(first.key)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif path.suffix == ".parquet":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    else:
        path.write_bytes(b"\xff" + content[1:])
    again = prepare(bars, V2, cache, None)
    assert not again.hit
    assert_same_bytes(again, first)
    assert prepare(bars, V2, cache, None).hit


@pytest.mark.parametrize("rows", [500, 600])
def test_another_entrys_file_under_this_name_is_a_miss(cache, random_bars, rows):
    one, other = prepare(random_bars(500), V2, cache, None), prepare(random_bars(rows, seed=7), V2, cache, None)
    folder = cache.folder / "features"
    (folder / f"{one.key}.parquet").write_bytes((folder / f"{other.key}.parquet").read_bytes())
    assert not prepare(random_bars(500), V2, cache, None).hit


def test_a_newer_full_load_takes_the_place_of_the_old_one(cache, random_bars, tmp_path):
    source = Source(tmp_path / "a.db", Partition("AAA", "1h"), complete=True)
    old = prepare(random_bars(500), V2, cache, source)
    new = prepare(random_bars(501), V2, cache, source)
    assert [entry["key"] for entry in cache.entries()] == [new.key]
    assert not list(cache.folder.rglob(f"{old.key}*"))


def test_a_slice_evicts_nothing_and_is_not_evicted(cache, random_bars, tmp_path):
    bars = random_bars(500)
    source = Source(tmp_path / "a.db", Partition("AAA", "1h"), complete=True)
    part = Source(tmp_path / "a.db", Partition("AAA", "1h"), complete=False)
    full = prepare(bars, V2, cache, source)
    fold = prepare(bars.take(slice(300)), V2, cache, part)
    newest = prepare(bars.take(slice(200, None)), V2, cache, part)
    assert {entry["key"] for entry in cache.entries()} == {full.key, fold.key, newest.key}
    newer = prepare(random_bars(501), V2, cache, source)
    assert {entry["key"] for entry in cache.entries()} == {fold.key, newest.key, newer.key}
    assert full.key not in {entry["key"] for entry in cache.entries()}


def test_other_partitions_systems_and_databases_are_left_alone(cache, random_bars, tmp_path):
    for number, (db, symbol, timeframe) in enumerate(
        [("a", "X", "1h"), ("a", "X", "4h"), ("a", "Y", "1h"), ("b", "X", "1h")]
    ):
        prepare(random_bars(500, seed=number), V2, cache, Source(tmp_path / db, Partition(symbol, timeframe), True))
    prepare(random_bars(500, seed=9), V2, cache, Source(tmp_path / "a", Partition("x", "1h"), True))
    assert len(cache.entries()) == 4


def test_invalidate_counts_and_keeps_what_another_database_uses(cache, random_bars, tmp_path):
    shared, own = random_bars(500, seed=1), random_bars(500, seed=2)
    for db, bars, symbol in (("a.db", shared, "X"), ("b.db", shared, "X"), ("a.db", own, "Y")):
        prepare(bars, V2, cache, Source(tmp_path / db, Partition(symbol, "1h"), True))
    assert len(cache.entries()) == 2
    assert cache.invalidate(tmp_path / "a.db") == 2
    assert prepare(shared, V2, cache, None).hit
    assert not prepare(own, V2, FeatureCache(cache.folder), None).hit
    assert cache.invalidate(tmp_path / "a.db") == 0
    assert cache.invalidate(tmp_path / "b.db") == 1
    assert cache.invalidate() == 1
    assert files(cache) == ["index.json"]


def test_files_that_are_not_the_caches_are_passed_over_and_never_removed(cache, random_bars):
    # The older system's entries lie in the same folders, under names of 16 characters.
    foreign = {
        "features/a1b2c3d4e5f6g7h8.meta.json": '{"feature_system": "v2"}',
        "features/a1b2c3d4e5f6g7h8.parquet": "older",
        "features/mine.parquet": "mine",
        "data_quality/a1b2c3d4e5f6g7h8.json": "{}",
    }
    for name, content in foreign.items():
        (cache.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (cache.folder / name).write_text(content)
    prepare(random_bars(500), V2, cache, None)
    cache.refresh_index()
    assert len(cache.entries()) == 1
    assert cache.invalidate() == 1
    assert files(cache) == sorted([*foreign, "index.json"])


def test_clearing_a_folder_that_does_not_exist_creates_nothing(tmp_path):
    cache = FeatureCache(tmp_path / "none")
    assert cache.invalidate() == 0
    assert not cache.folder.exists()


def test_symbols_cannot_leave_the_folder(cache, random_bars, tmp_path):
    for symbol in ("../../x", "a/b", "..", "x\0y"):
        prepare(random_bars(100), V2, cache, Source(tmp_path / "a.db", Partition(symbol, "1h"), True))
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}
    assert len(cache.entries()[0]["used_by"]) == 4


def test_an_unwritable_folder_is_a_clear_error(tmp_path, random_bars):
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match=r"cannot be written.*give another cache folder"):
        prepare(random_bars(100), V2, FeatureCache(tmp_path / "file" / "cache"), None)


def _prepare_in_process(folder, start):
    start.wait()
    prepare(simulate_bars(5_000, seed=4), V2, FeatureCache(folder), Source(folder / "a.db", Partition("A", "1h"), True))


def test_processes_that_make_one_entry_at_once_all_succeed(cache):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    workers = [context.Process(target=_prepare_in_process, args=(cache.folder, start)) for _ in range(3)]
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


_WRITER = """
import sys
from bitcorn_ray.cache.prepare import prepare
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.simulate import simulate_bars
cache, all_bars = FeatureCache(sys.argv[1]), [simulate_bars(20_000, seed=s) for s in range(3)]
print("ready", flush=True)
while True:
    for bars in all_bars:
        prepare(bars, SYSTEMS["v2"], cache, None)
    cache.invalidate()
"""


def test_a_writer_killed_at_any_instant_leaves_no_wrong_entry(cache):
    bars = [simulate_bars(20_000, seed=seed) for seed in range(3)]
    expected = [prepare(each, V2, None, None) for each in bars]
    rng = np.random.default_rng(0)
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(cache.folder)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.0, 0.3))
            os.kill(writer.pid, signal.SIGKILL)
        for each, right in zip(bars, expected, strict=True):
            stored = cache.read(right.key, V2)
            if stored is not None:
                for name, column in stored.columns.items():
                    assert column.tobytes() == right.columns[name].tobytes()
            assert_same_bytes(prepare(each, V2, cache, None), right)
    cache.invalidate()
    assert not list(cache.folder.rglob(f"{TEMPORARY}*"))
