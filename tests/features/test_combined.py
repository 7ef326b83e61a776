import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features import identity
from bitcorn_ray.features.combined import combine, is_combined
from bitcorn_ray.features.compute import Origin, prepare
from bitcorn_ray.features.identity import identify, plan_entry
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.market.partition import Partition

HOUR = 3_600_000
TEXT = "v2[log_ret_1,td_buy_setup]+v4[adx,ret_1]"


def bits(values):
    return np.asarray(values).view(np.int32)


def test_features_are_the_parents_columns_bit_for_bit(random_bars):
    bars = random_bars(2_000, seed=4, gaps=2)
    system = find_system(TEXT)
    assert system.features == ("log_ret_1", "td_buy_setup", "ret_1", "adx")  # each parent's in its own order
    v2, v4 = find_system("v2"), find_system("v4")
    assert system.warmup_bars == v4.warmup_bars
    matrix = system.matrix(bars)
    assert np.isnan(matrix[:, : system.warmup_bars]).all()
    for parent, names in ((v2, ("log_ret_1", "td_buy_setup")), (v4, ("ret_1", "adx"))):
        whole = parent.matrix(bars)
        for name in names:
            mine, theirs = matrix[system.features.index(name)], whole[parent.features.index(name)]
            np.testing.assert_array_equal(bits(mine[system.warmup_bars :]), bits(theirs[system.warmup_bars :]))


def test_the_text_of_a_combined_system_finds_it(tmp_path):
    system = find_system(TEXT)
    assert system.spec == "v2[log_ret_1,td_buy_setup]+v4[ret_1,adx]"
    assert identify(find_system(system.spec)).digest == identify(system).digest
    path = tmp_path / "system.json"
    path.write_text(json.dumps({"name": "mine", "system": system.spec}))
    assert find_system(str(path)).spec == system.spec
    own = find_system("own_systems:momentum:window=5[range]+v4:short=12:context=4h+1d[adx,adx_4h]")
    assert own.features == ("range", "adx", "adx_4h")
    assert find_system(own.spec).features == own.features


def test_shared_names_of_two_parents_get_a_prefix():
    assert find_system("vol[ret_1,gap]+v4[ret_1,adx]").features == ("vol_ret_1", "gap", "v4_ret_1", "adx")
    assert find_system("v4[ret_1]+v4:short=12[ret_1]").features == ("v41_ret_1", "v42_ret_1")
    assert find_system("vol[gap]+v4[ret_1]").features == ("gap", "ret_1")


def test_identity_is_that_of_the_parents_and_the_selection():
    def digest(text):
        return identify(find_system(text)).digest

    texts = [TEXT, "v2[log_ret_1]+v4[adx,ret_1]", "v2[log_ret_1,td_buy_setup]+v4:short=12[adx,ret_1]"]
    assert len({digest(text) for text in texts}) == 3
    v2, v4 = find_system("v2"), find_system("v4")
    kept = [["log_ret_1"], ["adx"]]
    assert identify(combine([v2, v4], kept)).digest != identify(combine([replace(v2, version=9), v4], kept)).digest


def test_chunks_are_the_same_cold_and_incremental(random_bars, monkeypatch):
    monkeypatch.setattr(identity, "CHUNK_BARS", 512)
    bars, cache = random_bars(3_000, seed=5, gaps=3), open_cache(None)
    system, source = find_system(TEXT), Origin("x.db", Partition("A", "1h"))
    cold = prepare(bars, system, None, None)
    first = prepare(bars.take(slice(2_100)), system, cache, source)
    grown = prepare(bars, system, cache, source)
    assert len(grown.plan.chunks) > 5
    assert 0 < grown.computed < len(grown.plan.chunks) == len(cold.plan.chunks)
    assert first.computed == len(first.plan.chunks)
    v2 = prepare(bars, find_system("v2"), None, None)
    late = system.warmup_bars - find_system("v2").warmup_bars
    for name in system.features:
        np.testing.assert_array_equal(bits(grown.columns[name]), bits(cold.columns[name]))
    for name in ("log_ret_1", "td_buy_setup"):
        np.testing.assert_array_equal(bits(grown.columns[name]), bits(v2.columns[name][late:]))


def test_a_context_of_a_parent_needs_the_grid_and_does_not_change_the_code(random_bars):
    bars = random_bars(3_000, seed=6)
    system = find_system("v2[rsi_14]+v2:context=4h[rsi_14_4h]")
    gridded = system.on_grid(HOUR)
    assert gridded.warmup_bars == find_system("v2:context=4h").on_grid(HOUR).warmup_bars
    assert identify(gridded).facts["code"] == identify(system).facts["code"]
    assert plan_entry(bars, system).identity.digest == identify(gridded).digest
    theirs = find_system("v2:context=4h").on_grid(HOUR).compute(bars)["rsi_14_4h"]
    np.testing.assert_array_equal(bits(gridded.compute(bars)["rsi_14_4h"]), bits(theirs))
    with pytest.raises(BitcornError, match="no context of its own"):
        system.with_context("4h")


def test_a_combined_system_can_be_unpickled_in_a_worker(random_bars):
    from ray import cloudpickle

    bars, system = random_bars(1_000, seed=7), find_system(TEXT)
    there = pickle.loads(cloudpickle.dumps(system))
    np.testing.assert_array_equal(there.matrix(bars), system.matrix(bars))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("v2[nothing]", "system v2 has no feature nothing"),
        ("v2[]", "at least one feature"),
        ("v2[rsi_14,rsi_14]", "selected twice"),
        ("v2[rsi_14]+v2[atr_pct]", "combined with itself"),
        ("v2[rsi_14]+v4]", "is invalid"),
        ("v9[rsi_14]", "unknown feature system 'v9'"),
        ("nowhere.json", "cannot read a feature system from nowhere.json"),
    ],
)
def test_invalid_combinations_are_refused(text, told):
    with pytest.raises(BitcornError, match=told.replace("[", r"\[")):
        find_system(text)


def test_a_file_with_other_content_is_refused(tmp_path):
    path = tmp_path / "system.json"
    for content, told in (("[]", "must be JSON with a field"), ('{"system": "v2"}', "not a combined system")):
        path.write_text(content)
        with pytest.raises(BitcornError, match=told):
            find_system(str(path))


def test_parameters_that_are_lists_are_no_selections():
    assert is_combined("own_systems:momentum:window=5[range]")
    assert not is_combined("own_systems:anything:of=[1,[2,3]]")
    assert find_system("own_systems:anything:of=[1,2][x]").parents[0].parameters == {"of": [1, 2]}
