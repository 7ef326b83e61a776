import logging

import numpy as np
import pytest
from comparing import assert_same_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_systems import momentum, picky

from bitcorn_ray.cache.store import FeatureCache, chunk_name
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features import identity
from bitcorn_ray.features.compute import Origin, prepare, update
from bitcorn_ray.features.identity import plan_entry
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.diagnosis import quality_report
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.frames import read_frame

V2, V4 = SYSTEMS["v2"], SYSTEMS["v4"]


@pytest.mark.parametrize("system", [V2, V4, momentum, V2.with_context("4h")], ids=lambda system: system.spec)
def test_computed_hit_and_uncached_are_equal_byte_by_byte(any_cache, random_bars, system, small_chunks):
    bars = random_bars(700, gaps=2)
    computed, hit, plain = (prepare(bars, system, c, None) for c in (any_cache, any_cache, None))
    assert (computed.hit, hit.hit, plain.hit) == (False, True, False)
    assert computed.plan.key == hit.plan.key == plain.plan.key
    assert_same_bytes(hit, computed)
    assert_same_bytes(plain, computed)
    assert hit.quality == computed.quality == plain.quality == quality_report(bars)


WHOLE = [V2, V4, momentum, V4.with_context("2h"), V2.with_context("1d")]


@pytest.mark.parametrize("system", WHOLE, ids=lambda system: system.spec)
def test_chunks_equal_the_whole_series(random_bars, system, small_chunks):
    bars = random_bars(2_000, seed=3)
    whole = system.on_grid(3_600_000).compute(bars)
    chunked = prepare(bars, system, None, None)
    assert len(chunked.plan.chunks) > 30
    for name, column in whole.items():
        assert column.tobytes() == chunked.columns[name].tobytes(), name


def test_a_run_without_a_bound_is_counted_across_chunks(small_chunks, random_bars, cache):
    bars = random_bars(400)
    falling = Bars(**{**bars.columns(), "close": np.linspace(90.0, 80.0, 400), "low": np.full(400, 79.0)})
    assert prepare(falling, V2, cache, None).columns["td_buy_setup"][-1] == 396
    assert prepare(falling, V2, cache, None).hit


def grown(bars, rng):
    """The bars after one of what happens to a market's history; never fewer than 120."""
    columns = {name: array.copy() for name, array in bars.columns().items()}
    n = len(bars)
    kind = rng.integers(4) if n > 200 else 0
    if kind == 0:  # appended
        more = simulate_bars(int(rng.integers(1, 90)), seed=int(rng.integers(1_000)), gaps=0)
        later = {name: array.copy() for name, array in more.columns().items()}
        later["timestamp"] += columns["timestamp"][-1] + 3_600_000 * int(rng.integers(1, 30)) - later["timestamp"][0]
        return Bars(**{name: np.concatenate((columns[name], later[name])) for name in columns})
    if kind == 1:  # revised
        row = int(rng.integers(n))
        columns["volume"][row] *= 1.5
        columns["close"][row] = columns["low"][row]
        return Bars(**columns)
    first = int(rng.integers(n - 60))
    if kind == 2:  # a stretch deleted
        keep = np.ones(n, bool)
        keep[first : first + int(rng.integers(1, 60))] = False
        return bars.take(keep)
    # a gap back-filled: bars between two that are far apart
    gaps = np.flatnonzero(np.diff(columns["timestamp"]) > 3_600_000)
    if len(gaps) == 0:
        return Bars(**columns)
    row = int(rng.choice(gaps))
    new = {name: array[row : row + 1].copy() for name, array in columns.items()}
    new["timestamp"] += 3_600_000
    return Bars(**{name: np.insert(columns[name], row + 1, new[name]) for name in columns})


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("system", [V2, momentum], ids=["v2", "momentum"])
def test_any_history_of_changes_gives_a_cold_build_with_the_fewest_chunks(tmp_path_factory, seed, system):
    rng = np.random.default_rng(seed)
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))
    bars, seen = simulate_bars(300, seed=seed, gaps=2), set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "CHUNK_BARS", 64)
        for _ in range(6):
            done = prepare(bars, system, cache, None) if rng.integers(2) else update(bars, system, cache, None)
            # What has to be computed: the chunks whose bars and halo never stood there before, byte by byte.
            contents = {
                (
                    chunk.start - chunk.first,
                    *(column[chunk.first : chunk.stop].tobytes() for column in bars.columns().values()),
                )
                for chunk in done.plan.chunks
            }
            assert done.computed == len(contents - seen)
            seen |= contents
            warm, cold = prepare(bars, system, cache, None), prepare(bars, system, None, None)
            assert warm.hit
            assert_same_bytes(warm, cold)
            bars = grown(bars, rng)


def test_an_update_reads_and_returns_no_features_and_prepare_hits_after_it(any_cache, random_bars):
    bars = random_bars(500)
    assert update(bars, V2, any_cache, None).computed == 1
    assert update(bars, V2, any_cache, None).computed == 0
    assert prepare(bars, V2, any_cache, None).hit


def test_equal_bars_of_two_databases_are_computed_once(any_cache, random_bars, tmp_path):
    first, second = (prepare(random_bars(500), V2, any_cache, Origin(tmp_path / name)) for name in ("a.db", "b.db"))
    assert (first.hit, second.hit) == (False, True)
    assert len(any_cache.entries()) == 1


def test_a_damaged_chunk_is_computed_again_and_logged(cache, random_bars, small_chunks, caplog):
    bars = random_bars(500)
    first = prepare(bars, V2, cache, None)
    path = f"{cache.storage.address}/{chunk_name(first.plan.chunks[2].key)}"
    with open(path, "r+b") as file:
        file.seek(1_500)
        file.write(b"\xff\xff\xff\xff")
    with caplog.at_level(logging.WARNING):
        again = prepare(bars, V2, cache, None)
    assert again.computed == 1
    assert_same_bytes(again, first)
    assert f"chunk {first.plan.chunks[2].key}" in caplog.text
    assert "computing it again" in caplog.text
    assert prepare(bars, V2, cache, None).hit


def test_bars_that_cannot_be_used_leave_nothing_behind(cache, random_bars, tmp_path):
    bars = random_bars(500)
    bars.close[100] = -1.0
    with pytest.raises(BitcornError, match=r"close must be a finite number above 0.*1 of 500 bars"):
        prepare(bars, V2, cache, None)
    assert not list(cache.storage.files("features"))


def test_a_system_that_fails_is_named_with_its_error(random_bars, cache):
    bars = random_bars(100)
    bars.volume[5] = 13.0
    with pytest.raises(BitcornError, match=r"feature system 'picky' failed: ZeroDivisionError: a volume of 13"):
        prepare(bars, picky, cache, None)
    assert not list(cache.storage.files("features"))


def test_parameters_have_entries_of_their_own(cache, random_bars):
    bars = random_bars(500)
    ten, twenty = (prepare(bars, momentum.with_parameters(window=w), cache, None) for w in (10, 20))
    assert (ten.hit, twenty.hit) == (False, False)
    np.testing.assert_allclose(twenty.columns["momentum"], (bars.close[20:] / bars.close[:-20] - 1), rtol=1e-5)
    assert prepare(bars, momentum, cache, None).hit
    assert plan_entry(bars, momentum).key == ten.plan.key


def test_real_bars_chunk_by_chunk_are_the_golden_ones(cache, data_dir):
    import pandas as pd

    bars = read_frame(pd.read_parquet(data_dir / "bars" / "SOLUSDT_1h.parquet"))
    golden = pd.read_parquet(data_dir / "golden" / "SOLUSDT_1h.v2.parquet")
    prepared = prepare(bars, V2, cache, None)
    assert len(prepared.plan.chunks) >= 3
    for name in V2.features:
        np.testing.assert_allclose(
            prepared.columns[name], golden[name].to_numpy(np.float32)[49:], rtol=1e-5, atol=1e-12, err_msg=name
        )
