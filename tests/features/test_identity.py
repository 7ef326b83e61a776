from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_systems import anything

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features import identity
from bitcorn_ray.features.identity import CHUNK_BARS, KEY_LENGTH, bar_hashes, identify, plan_entry
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars

V2, V4 = SYSTEMS["v2"], SYSTEMS["v4"]


def changed(bars, column, row, value):
    columns = {name: array.copy() for name, array in bars.columns().items()}
    columns[column][row] = value
    return Bars(**columns)


def keys(bars, system=V2):
    return [chunk.key for chunk in plan_entry(bars, system).chunks]


def test_a_key_is_a_stable_file_name(random_bars):
    key = plan_entry(random_bars(100), V2).key
    assert key == plan_entry(random_bars(100), V2).key
    assert len(key) == KEY_LENGTH
    assert set(key) <= set("0123456789abcdef")


def test_a_frozen_copy_or_a_strided_view_has_the_same_keys(random_bars):
    bars = random_bars(100)
    backwards = bars.take(slice(None, None, -1)).take(slice(None, None, -1))
    assert keys(backwards) == keys(bars)


@pytest.mark.parametrize("column", ["timestamp", "open", "high", "low", "close", "volume"])
def test_every_bit_of_every_column_counts(random_bars, column):
    bars = random_bars(100)
    value = getattr(bars, column)[50]
    other = value + 1 if column == "timestamp" else np.nextafter(value, np.inf)
    assert keys(changed(bars, column, 50, other)) != keys(bars)


def test_one_bar_more_or_fewer_is_another_key(random_bars):
    bars = random_bars(100)
    entries = {plan_entry(b, V2).key for b in (bars, bars.take(slice(99)), bars.take(slice(1, None)))}
    assert len(entries) == 3


def test_times_or_none_are_different_keys(random_bars):
    columns = random_bars(100).columns()
    assert keys(Bars(**columns, timed=False)) != keys(Bars(**columns))


@pytest.mark.parametrize(
    "other",
    [
        FeatureSystem(name="v2", version=2, function=V2.function, warmup=49, declared=V2.declared, halo=V2.halo),
        FeatureSystem(name="v3", version=1, function=V2.function, warmup=49, declared=V2.declared, halo=V2.halo),
        FeatureSystem(name="v2", version=1, function=V2.function, warmup=50, declared=V2.declared, halo=V2.halo),
        FeatureSystem(name="v2", version=1, function=V2.function, warmup=49, declared=V2.declared[::-1], halo=V2.halo),
    ],
)
def test_name_version_features_and_warmup_count(random_bars, other):
    assert not set(keys(random_bars(100), other)) & set(keys(random_bars(100)))


def test_parameters_and_context_count_and_a_default_that_is_given_does_not(random_bars):
    bars = random_bars(2_000)
    variants = [V4, V4.with_parameters(short=7), V4.with_parameters(long=169)]
    variants += [V4.with_context("2h"), V4.with_context("4h")]
    assert len({plan_entry(bars, system).key for system in variants}) == len(variants)
    assert plan_entry(bars, V4.with_parameters(short=6)).key == plan_entry(bars, V4).key


def test_parameters_without_a_stable_form_are_refused():
    with pytest.raises(BitcornError, match="plain JSON values"):
        identify(anything.with_parameters(of=object()))


def test_a_change_of_code_counts(random_bars, monkeypatch):
    before = keys(random_bars(100))
    true_identity = identity.code_identity
    monkeypatch.setattr(
        identity,
        "code_identity",
        lambda *a, **k: true_identity(*a, **k).__class__(
            **{**vars(true_identity(*a)), "modules": {"bitcorn_ray.features.systems.v2": "0"}}
        ),
    )
    assert keys(random_bars(100)) != before


# Chunks


def test_boundaries_are_fixed_in_time(small_chunks):
    bars = simulate_bars(1_000, seed=1, gaps=3)
    length = 64 * 3_600_000
    for cut in (bars, bars.take(slice(137, None)), bars.take(slice(700))):
        chunks = plan_entry(cut, V2).chunks
        assert [c.start for c in chunks] == [0, *(c.stop for c in chunks[:-1])]
        assert chunks[-1].stop == len(cut)
        numbers = [set((cut.timestamp[c.start : c.stop] // length).tolist()) for c in chunks]
        assert all(len(number) == 1 for number in numbers)
        assert len({number for each in numbers for number in each}) == len(chunks)


def test_the_size_is_a_power_of_two_within_the_documented_range():
    assert 8_192 <= CHUNK_BARS <= 65_536
    assert CHUNK_BARS & (CHUNK_BARS - 1) == 0


def test_without_times_the_cuts_are_by_row(small_chunks, random_bars):
    bars = replace(random_bars(200), timed=False)
    assert [(c.start, c.stop) for c in plan_entry(bars, V2).chunks] == [(0, 64), (64, 128), (128, 192), (192, 200)]


def test_a_halo_is_the_warmup_and_as_far_as_a_run_goes(small_chunks, random_bars):
    bars = random_bars(1_000)
    assert all(c.first == max(0, c.start - 335) for c in plan_entry(bars, V4).chunks)
    falling = Bars(**{**bars.columns(), "close": np.linspace(90, 80, 1_000), "low": np.full(1_000, 79.0)})
    assert [c.first for c in plan_entry(falling, V2).chunks] == [0] * len(plan_entry(falling, V2).chunks)


def test_appended_bars_change_the_last_chunk_only(small_chunks, random_bars):
    bars = random_bars(1_000)
    before, after = keys(bars.take(slice(999))), keys(bars)
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


@given(row=st.integers(0, 999), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_a_revised_bar_changes_the_chunks_that_compute_from_it_and_no_other(row, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "CHUNK_BARS", 64)
        bars = simulate_bars(1_000, seed=seed, gaps=2)
        row = min(row, len(bars) - 1)
        plan = plan_entry(bars, V4)
        after = plan_entry(changed(bars, "volume", row, 123.0), V4)
        for old, new in zip(plan.chunks, after.chunks, strict=True):
            assert (old.key != new.key) == (old.first <= row < old.stop)


def test_too_few_bars_and_times_out_of_order_are_refused(random_bars):
    with pytest.raises(BitcornError, match="49 bars are too few for the features v2: they need 50"):
        plan_entry(random_bars(49), V2)
    bars = random_bars(100)
    with pytest.raises(BitcornError, match="timestamps must rise"):
        plan_entry(changed(bars, "timestamp", 60, bars.timestamp[40]), V2)


def test_further_columns_count_where_the_system_reads_them_only(random_bars):
    def of(function, **more):
        return FeatureSystem(name="x", version=1, function=function, warmup=0, declared=("x",), **more)

    bars = random_bars(50)
    one = replace(bars, extra={"trades": np.ones(50), "funding": np.ones(50)})
    other = replace(bars, extra={"trades": np.arange(50.0), "funding": np.ones(50)})
    without, needing = of(anything.function), of(anything.function, inputs=("trades",))
    assert plan_entry(bars, without).key == plan_entry(one, without).key == plan_entry(other, without).key
    assert plan_entry(one, needing).key == plan_entry(replace(one, extra={"trades": np.ones(50)}), needing).key
    assert len({plan_entry(one, needing).key, plan_entry(other, needing).key, plan_entry(one, without).key}) == 3
    with pytest.raises(BitcornError, match="no further column trades"):
        plan_entry(bars, needing)


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_a_bar_has_another_hash_when_any_of_its_bits_changes(random_bars, column):
    bars = random_bars(300)
    columns = {name: array.copy() for name, array in bars.columns().items()}
    columns[column][17] = np.nextafter(columns[column][17], np.inf)
    changed = np.flatnonzero(bar_hashes(Bars(**columns)) != bar_hashes(bars))
    assert changed.tolist() == [17]


def of(bars, *, of=None):
    return {"f": bars.close}


OWN = FeatureSystem(name="own", version=1, function=of, warmup=0, declared=("f",))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3).map(float) | st.sampled_from(["", "0", "a", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["a", "b", "0"]) | st.integers(0, 1), inner, max_size=3)
    ),
    max_leaves=6,
)


class Text(str):
    """A subclass that JSON would not give back."""


def _described(value):
    """A value with the types and the order of all it holds."""
    if isinstance(value, list | tuple):
        return type(value).__name__, [_described(item) for item in value]
    if isinstance(value, dict):
        return "dict", [(_described(key), _described(item)) for key, item in value.items()]
    return type(value).__name__, repr(value)


@settings(deadline=None, max_examples=300)
@given(PLAIN, PLAIN)
def test_parameters_that_differ_in_any_way_have_different_identities_or_are_refused(one, other):
    def digest(value):
        try:
            return identify(replace(OWN, parameters={"of": value})).digest
        except BitcornError:
            return None

    found = digest(one), digest(other)
    if None not in found:
        assert (found[0] == found[1]) == (_described(one) == _described(other))


@pytest.mark.parametrize("value", [(0, 1), [(0, 1)], {1: 2}, {"a": {2: 3}}, Text("a"), float("nan"), {0}, np.int64(3)])
def test_what_json_would_not_give_back_is_refused_with_its_type(value):
    with pytest.raises(BitcornError, match=r"must be plain JSON values, but of holds .* of type"):
        identify(replace(OWN, parameters={"of": value}))
