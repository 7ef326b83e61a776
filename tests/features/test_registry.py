import numpy as np
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import SYSTEMS, FeatureRegistry, FeatureSystem


def system(**changes):
    fields = {"name": "mine", "version": 1, "features": ("x",), "inputs": ("close",), "warmup": 1}
    return FeatureSystem(**{**fields, "function": lambda bars: {"x": bars.close}, **changes})


def test_v2_is_declared_with_what_it_needs():
    v2 = SYSTEMS["v2"]
    assert (v2.version, v2.warmup, len(v2.features), v2.inputs) == (1, 49, 14, ("high", "low", "close"))


def test_compute_drops_the_warmup_and_gives_float32(random_bars):
    bars = random_bars(10)
    computed = system().compute(bars)
    assert computed["x"].dtype == np.float32
    np.testing.assert_array_equal(computed["x"], bars.close[1:].astype(np.float32))


def test_an_unknown_system_names_those_that_exist():
    with pytest.raises(BitcornError, match=r"unknown feature system 'v9': there is v2"):
        SYSTEMS["v9"]


def test_a_name_is_declared_once():
    registry = FeatureRegistry()
    first = system()
    registry.register(first)
    registry.register(first)
    with pytest.raises(BitcornError, match="declared already"):
        registry.register(system(version=2))
    assert list(registry) == ["mine"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "no good"}, "letters, digits"),
        ({"warmup": -1}, "warmup is -1"),
        ({"inputs": ("spread",)}, "unknown inputs"),
        ({"features": ("close",)}, "names of bar columns"),
    ],
)
def test_a_bad_declaration_is_refused(changes, message):
    with pytest.raises(BitcornError, match=message):
        system(**changes)


def test_too_few_bars_are_refused(random_bars):
    with pytest.raises(BitcornError, match="49 bars are too few for features v2: it needs 50"):
        SYSTEMS["v2"].compute(random_bars(49))


@pytest.mark.parametrize("price", [np.nan, 0.0, -3.0, np.inf])
@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
def test_unusable_prices_are_refused_with_their_time(random_bars, column, price):
    bars = random_bars(100)
    getattr(bars, column)[60] = price
    with pytest.raises(BitcornError, match=rf"{column} must be a finite number above 0.*2023-01-03T12:00:00Z"):
        SYSTEMS["v2"].compute(bars)
