import os

import pytest
from comparing import age_entry

from bitcorn_ray.cache.pruning import prune, stats, verify
from bitcorn_ray.cache.store import FeatureCache, chunk_name, manifest_name
from bitcorn_ray.features.compute import Origin, compute_jobs, finish_features, prepare
from bitcorn_ray.features.plan import plan_features
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.storage.publish import TEMPORARY

V2 = SYSTEMS["v2"]


@pytest.fixture
def three(cache, random_bars, tmp_path):
    """A cache with three entries, last used three, two and one days ago."""
    made = []
    for number in range(3):
        source = Origin(tmp_path / "a.db", Partition(f"S{number}", "1h"), True)
        made.append(prepare(random_bars(600, seed=number), V2, cache, source).plan.key)
        age_entry(cache, made[-1], (3 - number) * 86_400)
    return made


def run_features(source, cache):
    plan = plan_features(source, V2, cache)
    return finish_features(plan, compute_jobs(plan.jobs, plan.work), cache)


def keys(cache):
    return {entry["key"] for entry in cache.entries()}


def test_stats_count_entries_chunks_and_hits(cache, three):
    found = stats(cache)
    assert (found["entries"], found["chunks"], found["rows"]) == (3, 3, 3 * 551)
    assert found["bytes"] == sum(file.size for file in cache.storage.files())
    assert found["unreferenced_bytes"] == 0
    assert found["longest_unused_since"] < found["last_used"]
    cache.storage.delete([manifest_name(three[0])])
    assert stats(cache)["unreferenced_bytes"] > 0


def test_hits_are_counted_and_computing_is_none(cache, market_db, random_bars, small_chunks):
    def hits():
        return {entry["rows"]: entry["hits"] for entry in cache.entries()}

    bars = random_bars(600)
    prepare(bars.take(slice(500)), V2, cache, None)
    for _ in range(2):
        assert prepare(bars.take(slice(500)), V2, cache, None).hit
    assert 0 < prepare(bars, V2, cache, None).computed < 3  # some chunks were there, the entry was not
    assert hits() == {451: 2, 551: 0}
    assert stats(cache)["hits"] == 2
    os.utime(market_db, (1e9, 1e9))  # what was written just now has no receipt
    computed = run_features(market_db, cache)
    assert all(status.unread for status in run_features(market_db, cache))  # not even read: a hit
    assert stats(cache)["hits"] == 2 + len(computed)


def test_stats_of_a_missing_cache_are_zeros(tmp_path):
    found = stats(FeatureCache(tmp_path / "none"))
    assert (found["entries"], found["bytes"], found["last_used"]) == (0, 0, None)


def test_prune_by_age(cache, three):
    sizes = {file.name: file.size for file in cache.storage.files()}
    chunks = [chunk_name(cache.manifest(key)["chunks"][0]["key"]) for key in three]
    done = prune(cache, older_than=1.5 * 86_400)
    assert done.entries == three[:2]
    assert (done.chunks, done.bytes) == (2, sizes[chunks[0]] + sizes[chunks[1]])
    assert done.bytes_left == sum(sizes.values()) - done.bytes
    assert keys(cache) == {three[2]}
    assert {file.name for file in cache.storage.files("links")} == {
        name for name in sizes if name.startswith("links/") and three[2] in name
    }
    assert verify(cache) == []


def test_prune_removes_records_of_removed_entries(cache, market_db):
    os.utime(market_db, (1e9, 1e9))  # what was written just now has no receipt
    run_features(market_db, cache)
    key = cache.entries()[0]["key"]
    cache.keep("what_a_source_says", {})
    cache.storage.publish("uses/of_none", b"")
    assert {file.name.partition("/")[0] for file in cache.storage.files()} >= {"sources", "code", "features", "links"}
    for file in cache.storage.files():
        os.utime(cache.storage._path(file.name), (0, 0))
    prune(cache)
    kept = {file.name for file in cache.storage.files()}
    assert manifest_name(key) in kept
    assert {name.partition("/")[0] for name in kept} >= {"sources", "code"}
    assert "uses/of_none" not in kept
    prune(cache, older_than=1.0)
    assert [file.name for file in cache.storage.files() if not file.name.startswith("index")] == []


def test_prune_by_size_takes_the_longest_unused_first(cache, three):
    total = stats(cache)["bytes"]
    one = next(file.size for file in cache.storage.files("features") if file.name.endswith(".parquet"))
    done = prune(cache, max_bytes=total - one)
    assert done.entries == three[:1]
    assert keys(cache) == set(three[1:])
    assert prune(cache, max_bytes=0).entries == three[1:]
    assert keys(cache) == set()


def test_prune_without_a_limit_removes_only_leftovers(cache, three, random_bars):
    orphan = prepare(random_bars(700, seed=9), V2, cache, None).plan
    age_entry(cache, orphan.key, 86_400)
    cache.storage.delete([manifest_name(orphan.key)])
    cache.storage.publish(f"features/{TEMPORARY}dead", b"half")
    os.utime(f"{cache.storage.address}/features/{TEMPORARY}dead", (1e9, 1e9))
    cache.storage.publish(f"features/{TEMPORARY}alive", b"half")
    done = prune(cache)
    assert done.entries == []
    assert keys(cache) == set(three)
    names = {file.name for file in cache.storage.files("features")}
    assert f"features/{TEMPORARY}dead" not in names
    assert f"features/{TEMPORARY}alive" in names
    assert not any(chunk_name(chunk.key) in names for chunk in orphan.chunks)


def test_entries_in_use_are_kept_and_reported(cache, three, random_bars):
    used = prepare(random_bars(600, seed=0), V2, cache, None)
    assert used.hit
    done = prune(cache, max_bytes=0, older_than=0)
    assert done.in_use == [three[0]]
    assert keys(cache) == {three[0]}
    assert prepare(random_bars(600, seed=0), V2, cache, None).hit
    cache.grace = 0.0
    assert prune(cache, max_bytes=0).entries == [three[0]]


def test_a_chunk_that_another_entry_has_stays(cache, random_bars, small_chunks):
    bars = random_bars(600)
    short, long = (prepare(bars.take(slice(n)), V2, cache, None).plan.key for n in (500, 600))
    age_entry(cache, long, 2 * 86_400)
    age_entry(cache, short, 9 * 86_400)
    assert prune(cache, older_than=5 * 86_400).entries == [short]
    assert prepare(bars, V2, cache, None).hit


def test_a_dry_run_removes_nothing(cache, three):
    before = sorted(file.name for file in cache.storage.files())
    assert prune(cache, max_bytes=0, dry_run=True).entries == three
    assert sorted(file.name for file in cache.storage.files()) == before


def test_verify_names_every_kind_of_damage_and_repairs_it(cache, three, random_bars, tmp_path):
    assert verify(cache) == []
    folder = cache.storage.address
    chunks = [chunk_name(cache.manifest(key)["chunks"][0]["key"]) for key in three]
    with open(f"{folder}/{chunks[0]}", "r+b") as file:
        file.seek(700)
        file.write(b"\xff\xff")
    cache.storage.delete([chunks[1]])
    cache.storage.publish(chunks[2], b"something else")
    cache.storage.publish(f"data_quality/{three[0]}.json", b'{"rows": 1}')
    damaged = {damage.file: damage.problem for damage in verify(cache, repair=True)}
    assert set(damaged) == {*chunks, f"data_quality/{three[0]}.json"}
    assert "checksum" in damaged[chunks[0]]
    assert damaged[chunks[1]] == "it is missing"
    assert "cannot be read" in damaged[chunks[2]]
    for number in range(3):
        assert prepare(random_bars(600, seed=number), V2, cache, None).computed == 1
    assert verify(cache) == []


def test_it_works_on_an_object_store(s3_uri, random_bars):
    cache = FeatureCache(s3_uri, grace=0.0)
    key = prepare(random_bars(600), V2, cache, None).plan.key
    assert verify(cache) == []
    assert stats(cache)["entries"] == 1
    assert prune(cache, max_bytes=0).entries == [key]
    assert keys(cache) == set()
