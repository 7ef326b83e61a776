import pytest

from bitcorn_ray.cache.store import chunk_name, manifest_name
from bitcorn_ray.features.compute import update
from bitcorn_ray.features.identity import identify
from bitcorn_ray.features.receipts import FileReceipt, PartitionStatus, read_receipts, write_receipts
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.options import SourceOptions

V2, V4 = SYSTEMS["v2"], SYSTEMS["v4"]


def receipt(key="k"):
    status = PartitionStatus(symbol="A/B", timeframe="1h", source="/a.db", key=key, rows=7, flags="2 gaps", computed=3)
    return FileReceipt.of("f", True, [status])


def test_receipts_are_read_for_their_source_and_system_only(any_cache, tmp_path):
    written = {"/a.db": receipt()}
    write_receipts(any_cache, tmp_path / "a.db", identify(V2), written)
    assert read_receipts(any_cache, tmp_path / "a.db", identify(V2)) == written
    assert read_receipts(any_cache, tmp_path / "a.db", identify(V4)) == {}
    assert read_receipts(any_cache, tmp_path / "b.db", identify(V2)) == {}
    assert written["/a.db"].statuses("/a.db").keys() == {Partition("A/B", "1h")}


def test_a_damaged_receipt_is_ignored(cache, tmp_path):
    write_receipts(cache, tmp_path / "a.db", identify(V2), {"/a.db": receipt()})
    name = next(file.name for file in cache.storage.files("sources"))
    content = bytes(cache.storage.read(name))
    cache.storage.publish(name, content.replace(b'"rows": 7', b'"rows": 8'))
    assert read_receipts(cache, tmp_path / "a.db", identify(V2)) == {}


@pytest.mark.parametrize("lost", [manifest_name, chunk_name])
def test_an_entry_is_whole_with_its_manifest_and_all_chunks(cache, random_bars, small_chunks, lost):
    plan = update(random_bars(500), V2, cache, None).plan
    assert cache.whole_entries([plan.key, plan.key, "0" * 32]) == {plan.key}
    cache.storage.delete([lost(plan.key if lost is manifest_name else plan.chunks[3].key)])
    assert cache.whole_entries([plan.key]) == set()


def test_an_entry_with_a_truncated_chunk_is_not_whole_and_is_repaired(cache, random_bars, small_chunks):
    bars = random_bars(500)
    plan = update(bars, V2, cache, None).plan
    name = chunk_name(plan.chunks[3].key)
    whole, rows = bytes(cache.storage.read(name)), {chunk.key: chunk.stop - chunk.start for chunk in plan.chunks}
    for content in (b"", whole[:-9]):
        cache.storage.publish(name, content)
        assert cache.whole_entries([plan.key]) == set()
        assert cache.missing_chunks(plan.key, V2.features, rows) == {plan.chunks[3].key}
        assert update(bars, V2, cache, None).computed == 1
        assert bytes(cache.storage.read(name)) == whole
        assert cache.whole_entries([plan.key]) == {plan.key}


def test_chunks_without_their_manifest_are_read_before_they_are_taken(cache, random_bars, small_chunks):
    bars = random_bars(500)
    plan = update(bars, V2, cache, None).plan
    cache.storage.delete([manifest_name(plan.key)])
    assert update(bars, V2, cache, None).computed == 0
    assert cache.whole_entries([plan.key]) == {plan.key}


def test_reading_options_have_their_own_receipt(any_cache, tmp_path):
    cache, said = any_cache, SourceOptions.of("candles", ["open=o"])
    write_receipts(cache, tmp_path / "a.db", identify(V2), {"/a.db": receipt()}, said)
    assert read_receipts(cache, tmp_path / "a.db", identify(V2), said) == {"/a.db": receipt()}
    assert read_receipts(cache, tmp_path / "a.db", identify(V2)) == {}
    assert read_receipts(cache, tmp_path / "a.db", identify(V2), SourceOptions.of("spot")) == {}
