import sys
import threading

from bitcorn_ray.cache.store import FeatureCache, Traffic, count_traffic, traffic
from bitcorn_ray.features.compute import prepare, update
from bitcorn_ray.features.registry import find_system


def test_what_is_written_read_hit_and_missed_is_counted_in_chunks_and_bytes(random_bars, tmp_path):
    bars, system, cache = random_bars(40_000), find_system("v2"), FeatureCache(tmp_path)
    start = traffic()
    chunks = len(prepare(bars, system, cache, None).plan.chunks)
    size = sum(path.stat().st_size for path in (tmp_path / "features").glob("*.parquet"))
    assert chunks > 1
    computed = traffic()
    assert computed - start == Traffic(misses=chunks, bytes_written=size)
    prepare(bars, system, cache, None)
    read = traffic()
    assert read - computed == Traffic(hits=chunks, bytes_read=size)
    update(bars, system, cache, None)
    assert traffic() - read == Traffic(hits=chunks)


def test_without_a_cache_nothing_is_counted(random_bars):
    before = traffic()
    prepare(random_bars(300), find_system("v2"), None, None)
    assert traffic() == before


def test_threads_lose_nothing():
    before, interval = traffic(), sys.getswitchinterval()

    def add():
        for _ in range(2_000):
            count_traffic(Traffic(hits=1, bytes_read=3))

    threads = [threading.Thread(target=add) for _ in range(8)]
    sys.setswitchinterval(1e-6)  # they take turns within an addition
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert traffic() - before == Traffic(hits=16_000, bytes_read=48_000)
