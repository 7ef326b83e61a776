import pytest
from comparing import assert_same_bytes

from bitcorn_ray.cache.prepare import Source, prepare
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.quality import quality_report

V2 = SYSTEMS["v2"]


def test_computed_hit_and_uncached_are_equal_byte_by_byte(cache, random_bars):
    bars = random_bars(500)
    computed, hit, plain = (prepare(bars, V2, c, None) for c in (cache, cache, None))
    assert (computed.hit, hit.hit, plain.hit) == (False, True, False)
    assert computed.key == hit.key == plain.key
    assert_same_bytes(hit, computed)
    assert_same_bytes(plain, computed)
    assert hit.quality == computed.quality


def test_the_quality_is_that_of_the_bars(cache, random_bars):
    bars = random_bars(2_000, gaps=3)
    assert prepare(bars, V2, cache, None).quality == quality_report(bars)
    assert prepare(bars, V2, cache, None).quality == quality_report(bars)


def test_equal_bars_of_two_databases_are_computed_once(cache, random_bars, tmp_path):
    first, second = (prepare(random_bars(500), V2, cache, Source(tmp_path / name)) for name in ("a.db", "b.db"))
    assert (first.hit, second.hit) == (False, True)
    assert len(cache.entries()) == 1


def test_bars_that_cannot_be_used_leave_nothing_behind(cache, random_bars):
    bars = random_bars(500)
    bars.close[100] = -1.0
    with pytest.raises(BitcornError, match="close must be a finite number above 0"):
        prepare(bars, V2, cache, None)
    assert not cache.folder.exists()
