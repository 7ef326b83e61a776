import numpy as np
import pytest

from bitcorn_ray.cache import identity
from bitcorn_ray.cache.identity import KEY_LENGTH, code_digest, entry_key
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import SYSTEMS, FeatureSystem
from bitcorn_ray.market.bars import Bars

V2 = SYSTEMS["v2"]


def changed(bars, column, row, value):
    columns = {name: array.copy() for name, array in bars.columns().items()}
    columns[column][row] = value
    return Bars(**columns)


def test_a_key_is_a_stable_file_name(random_bars):
    key = entry_key(random_bars(100), V2)
    assert key == entry_key(random_bars(100), V2)
    assert len(key) == KEY_LENGTH
    assert set(key) <= set("0123456789abcdef")


def test_a_frozen_copy_or_a_strided_view_has_the_same_key(random_bars):
    bars = random_bars(100)
    backwards = bars.take(slice(None, None, -1)).take(slice(None, None, -1))
    assert entry_key(backwards, V2) == entry_key(bars, V2)


@pytest.mark.parametrize("column", ["timestamp", "open", "high", "low", "close", "volume"])
def test_every_bit_of_every_column_counts(random_bars, column):
    bars = random_bars(100)
    value = getattr(bars, column)[50]
    other = value + 1 if column == "timestamp" else np.nextafter(value, np.inf)
    assert entry_key(changed(bars, column, 50, other), V2) != entry_key(bars, V2)


def test_one_bar_more_or_fewer_is_another_key(random_bars):
    bars = random_bars(100)
    keys = {entry_key(bars, V2), entry_key(bars.take(slice(99)), V2), entry_key(bars.take(slice(1, None)), V2)}
    assert len(keys) == 3


def test_times_or_none_are_different_keys(random_bars):
    columns = random_bars(100).columns()
    assert entry_key(Bars(**{**columns, "timestamp": None}), V2) != entry_key(Bars(**columns), V2)


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"name": "v3"}, {"parameters": {"window": 5}}, {"features": ("x",)}]
)
def test_name_version_features_and_parameters_count(random_bars, changes):
    fields = {"name": "v2", "version": 1, "features": V2.features, "inputs": V2.inputs, "warmup": 49}
    other = FeatureSystem(**{**fields, "function": V2.function, **changes})
    assert entry_key(random_bars(100), other) != entry_key(random_bars(100), V2)


def test_parameters_without_a_stable_form_are_refused(random_bars):
    system = FeatureSystem(
        name="mine", version=1, features=(), inputs=(), warmup=0, function=V2.function, parameters={"f": object()}
    )
    with pytest.raises(BitcornError, match="no plain JSON values"):
        entry_key(random_bars(100), system)


def test_a_change_of_code_counts_also_in_a_module_that_is_only_used(random_bars, monkeypatch):
    before = entry_key(random_bars(100), V2)
    true_source = identity._source

    def edited(module):
        return true_source(module) + (b"#" if module.__name__ == "bitcorn_ray.features.rolling" else b"")

    monkeypatch.setattr(identity, "_source", edited)
    code_digest.cache_clear()
    try:
        assert entry_key(random_bars(100), V2) != before
    finally:
        code_digest.cache_clear()


def test_code_of_rooms_that_do_not_compute_features_does_not_count(monkeypatch):
    seen = []
    true_source = identity._source
    monkeypatch.setattr(identity, "_source", lambda module: seen.append(module.__name__) or true_source(module))
    code_digest.cache_clear()
    try:
        code_digest(V2.function.__module__)
    finally:
        code_digest.cache_clear()
    assert "bitcorn_ray.features.v2" in seen
    assert "bitcorn_ray.features.rolling" in seen
    assert not [
        name
        for name in seen
        if not name.startswith(("bitcorn_ray.features", "bitcorn_ray.market", "bitcorn_ray.errors"))
    ]


def test_code_without_a_source_is_refused():
    import sys
    from types import ModuleType

    sys.modules["typed_in"] = ModuleType("typed_in")
    try:
        with pytest.raises(BitcornError, match="has no source file"):
            code_digest("typed_in")
    finally:
        del sys.modules["typed_in"]
