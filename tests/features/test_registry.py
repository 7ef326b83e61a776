"""Feature systems by name and by text."""

import sys

import numpy as np
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import SYSTEMS, find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.features.systems import v2, v4

MODULE = """
from bitcorn_ray.features.system import feature_system


@feature_system(name="steps", version=2, warmup=lambda window, **others: window)
def steps(bars, *, window=4, mode="plain", scale=1.0):
    out = bars.close * 0
    out[window:] = scale * (bars.close[window:] - bars.close[:-window])
    return {"step": out}


@feature_system(name="framed", warmup=0, context=("4h",))
def framed(bars):
    return {"width": bars.high - bars.low}


def plain(bars):
    return {"x": bars.close}
"""


def system(**changes):
    fields = {"name": "mine", "version": 1, "declared": ("x",), "warmup": 1, "function": close_of}
    return FeatureSystem(**{**fields, **changes})


def close_of(bars, *, window=3):
    return {"x": bars.close}


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A user's module in a folder on sys.path."""
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text(MODULE)
    (tmp_path / "own_features.py").write_text(MODULE)
    (tmp_path / "needs_another.py").write_text("import a_module_that_there_is_not\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("own_package", "own_package.deep", "own_features", "needs_another"):
        sys.modules.pop(name, None)


# The registry


def test_systems_are_declared_with_their_requirements():
    assert list(SYSTEMS) == ["v2", "v4", "vol"]
    one, other = SYSTEMS["v2"], SYSTEMS["v4"]
    assert (one.version, one.warmup_bars, one.features, one.halo) == (v2.VERSION, 49, v2.FEATURES, v2.halo)
    assert (other.version, other.warmup_bars, other.features, other.halo) == (v4.VERSION, 335, v4.FEATURES, None)
    assert len(one.features) == 14
    assert one.all_parameters == {}
    assert other.all_parameters == {"short": 6, "medium": 24, "long": 168, "oscillator": 14, "fib": 50}
    assert one.origin is other.origin is None


@pytest.mark.parametrize("module", [v2, v4])
def test_the_declared_names_are_those_that_are_computed(random_bars, module):
    assert set(module.compute(random_bars(400))) == set(module.FEATURES)


def test_an_unknown_system_names_those_that_exist():
    with pytest.raises(BitcornError, match=r"'v9': choose v2, v4, vol, or module:function"):
        find_system("v9")
    with pytest.raises(BitcornError, match=r"'v9': choose none, or module:function"):
        find_system("v9", {})


# Texts


def test_a_name_finds_the_system():
    assert find_system("v2") is SYSTEMS["v2"]
    assert find_system("v4") is SYSTEMS["v4"]


def test_a_system_finds_itself():
    mine = system()
    assert find_system(mine) is mine


def test_names_are_looked_up_in_the_given_registry():
    mine = system()
    assert find_system("mine", {"mine": mine}) is mine
    assert find_system("mine:window=8", {"mine": mine}).parameters == {"window": 8}
    with pytest.raises(BitcornError, match="v2"):
        find_system("v2", {"mine": mine})


def test_parameters_and_context_follow_the_name():
    found = find_system("v4:short=12:medium=48:context=4h+1d")
    assert found.parameters == {"short": 12, "medium": 48}
    assert found.context == ("4h", "1d")
    assert found == SYSTEMS["v4"].with_parameters(short=12, medium=48).with_context("4h", "1d")
    assert find_system("v4:context=4h+1d:medium=48:short=12") == found
    assert find_system("v4:context=1d").context == ("1d",)


def test_values_are_read_as_numbers_where_they_are_numbers(own_module):
    found = find_system("own_features:steps:window=7:scale=0.5:mode=fast")
    assert found.parameters == {"window": 7, "scale": 0.5, "mode": "fast"}
    assert isinstance(found.parameters["window"], int)


@pytest.mark.parametrize("origin", ["own_features:steps", "own_package.deep:steps"])
def test_a_user_system_is_imported(own_module, random_bars, origin):
    found, bars = find_system(origin), random_bars(30)
    assert (found.name, found.version, found.origin, found.spec) == ("steps", 2, origin, origin)
    np.testing.assert_array_equal(found.compute(bars)["step"], (bars.close[4:] - bars.close[:-4]).astype(np.float32))
    wide = find_system(f"{origin}:window=9:context=4h")
    assert (wide.spec, wide.own_warmup, wide.context) == (f"{origin}:window=9:context=4h", 9, ("4h",))
    assert find_system(wide.spec) == wide


def test_a_declared_context_is_kept_unless_another_is_given(own_module):
    assert find_system("own_features:framed").context == ("4h",)
    assert find_system("own_features:framed").spec == "own_features:framed:context=4h"
    assert find_system("own_features:framed:context=1d").context == ("1d",)


def test_an_unknown_name_in_a_text_names_those_that_exist():
    with pytest.raises(BitcornError, match=r"unknown feature system 'v9': choose v2, v4"):
        find_system("v9:short=3")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module:f", "module 'no_such_module' of feature system 'no_such_module:f' cannot be imported"),
        ("own_package.shallow:f", "module 'own_package.shallow' of .* cannot be imported"),
        ("needs_another:f", "cannot be imported: .*No module named 'a_module_that_there_is_not'"),
        ("own_features:walks", "module 'own_features' has no 'walks'"),
        ("own_features:plain", "own_features:plain is not a feature system: declare the function with @feature_system"),
        ("own_features:MODULE", "has no 'MODULE'"),
        ("own_features:steps:widow=3", "'steps' has no parameter widow: it has window, mode, scale"),
        ("v4:width=3", "'v4' has no parameter width: it has short, medium, long, oscillator, fib"),
        ("v4:short=30", "v4 needs whole numbers 2 <= short < medium < long"),
        ("v4:context=4h+4h", "names a timeframe twice"),
        ("v4:context=", "timeframe"),
        ("v4:context=1x", "timeframe"),
    ],
)
def test_an_unknown_system_is_refused_with_the_reason(own_module, spec, message):
    with pytest.raises(BitcornError, match=message):
        find_system(spec)


@pytest.mark.parametrize("spec", ["", ":", "a:b:c", "v4:short=12:more", "short=12", ":f", "m:", "v4::short=12"])
def test_a_text_that_is_malformed_is_refused(spec):
    with pytest.raises(BitcornError, match="is invalid: write it as v4:short=12 or module:function"):
        find_system(spec)


@pytest.mark.parametrize("spec", ["v4:short=abc", "v4:short=", "v4:short=[1]", "v4:short=null", ".relative:f"])
def test_an_invalid_value_is_refused(spec):
    with pytest.raises(BitcornError):
        find_system(spec)
