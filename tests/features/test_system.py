"""Feature systems: declaration, refusals and computation."""

import math
import pickle
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import SYSTEMS, find_system
from bitcorn_ray.features.system import FeatureSystem, feature_system
from bitcorn_ray.features.system import _call_feature_function as call
from bitcorn_ray.features.system import _validated as validated
from bitcorn_ray.market.simulate import simulate_bars

PRICES = ("open", "high", "low", "close")


def window_and_one(window, **others):
    return window + 1


@feature_system(name="momentum", version=3, warmup=window_and_one)
def momentum(bars, *, window=20, scale=1.0, mode="plain", flags=None):
    past = np.full(len(bars), np.nan)
    past[window:] = bars.close[: len(bars) - window]
    return {"momentum": scale * (bars.close / past - 1), "range": bars.high - bars.low}


def declared(function=lambda bars: {"x": bars.close}, **changes):
    return FeatureSystem(**{"name": "mine", "version": 1, "warmup": 1, "function": function, **changes})


# What is declared


def test_the_decorator_makes_a_system_of_the_function():
    assert isinstance(momentum, FeatureSystem)
    assert (momentum.name, momentum.version, momentum.context, momentum.declared) == ("momentum", 3, (), None)
    assert momentum.features == ("momentum", "range")
    assert momentum.spec == "momentum"


def test_parameters_are_the_keywords_with_their_defaults():
    assert momentum.all_parameters == {"window": 20, "scale": 1.0, "mode": "plain", "flags": None}
    assert momentum.parameters == {}
    other = momentum.with_parameters(window=50)
    assert other.all_parameters == {"window": 50, "scale": 1.0, "mode": "plain", "flags": None}
    assert other.parameters == {"window": 50}
    assert momentum.parameters == {}, "the system it was made from is another one"


def test_systems_with_other_parameters_are_other_systems():
    assert momentum.with_parameters() == momentum
    assert momentum.with_parameters(window=50) == momentum.with_parameters(window=50)
    assert momentum.with_parameters(window=50) != momentum.with_parameters(window=51)
    assert momentum.with_parameters(window=50) != momentum
    assert momentum.with_parameters(window=50).with_parameters(scale=2.0) == momentum.with_parameters(
        scale=2.0, window=50
    )
    assert momentum.with_parameters(window=50).with_parameters(window=9).parameters == {"window": 9}


@pytest.mark.parametrize("name", ["widow", "bars", "context"])
def test_an_unknown_parameter_is_refused_with_the_known_ones(name):
    message = f"feature system 'momentum' has no parameter {name}: it has window, scale, mode, flags"
    with pytest.raises(BitcornError, match=message):
        momentum.with_parameters(**{name: 3})


def test_an_unknown_parameter_of_a_system_without_any_is_refused():
    with pytest.raises(BitcornError, match="'v2' has no parameter window: it has none"):
        SYSTEMS["v2"].with_parameters(window=3)


def test_the_warmup_follows_from_the_parameters():
    assert momentum.warmup_bars == 21
    assert momentum.with_parameters(window=50).warmup_bars == 51
    assert declared(warmup=7).warmup_bars == 7
    assert declared(warmup=0).compute(simulate_bars(5, seed=0))["x"].shape == (5,)


def test_a_warmup_of_the_example_in_the_text():
    @feature_system(name="momentum", version=1, warmup=lambda window: window)
    def example(bars, *, window=20):
        past = np.concatenate((np.full(window, np.nan), bars.close[:-window]))
        return {"momentum": bars.close / past - 1}

    bars = simulate_bars(100, seed=1)
    computed = example.with_parameters(window=30).compute(bars)["momentum"]
    np.testing.assert_allclose(computed, pd.Series(bars.close).pct_change(30).to_numpy()[30:], rtol=1e-5)


@pytest.mark.parametrize("window", ["abc", None, [1]])
def test_a_parameter_that_the_warmup_cannot_use_is_refused(window):
    with pytest.raises(BitcornError, match="momentum"):
        momentum.with_parameters(window=window)


def test_a_warmup_that_does_not_take_the_parameters_is_refused():
    with pytest.raises(BitcornError, match="mine"):
        declared(lambda bars, *, n=3: {"x": bars.close}, warmup=lambda window: window)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "no good"}, "'no good': the name must be letters, digits and underscores"),
        ({"name": ""}, "letters, digits"),
        ({"name": "a:b"}, "letters, digits"),
        ({"warmup": -1}, "warmup is -1, it must be 0 or more"),
        ({"declared": ("close",)}, r"features \['close'\] have names of bar columns"),
        ({"declared": ("symbol",)}, "names of bar columns"),
        ({"declared": ("x", "x")}, "different names"),
        ({"declared": ()}, "different names"),
        ({"parameters": {"n": 1}}, "has no parameter n: it has none"),
    ],
)
def test_a_bad_declaration_is_refused(changes, message):
    with pytest.raises(BitcornError, match=message):
        declared(**changes)


def test_a_function_without_bars_or_with_a_parameter_without_a_default_is_refused():
    with pytest.raises(BitcornError, match="takes no argument: a feature system is a function of bars"):
        declared(lambda: {})
    with pytest.raises(BitcornError, match=r"parameter window, n of .* has no default: give it one"):

        @feature_system(name="mine", warmup=1)
        def without(bars, window, *, n, m=3):
            return {}


# Names


def test_names_that_are_not_declared_are_found_by_asking_the_function():
    asked = []

    def function(bars, *, count=2):
        asked.append(len(bars))
        return {f"x_{i}": bars.close * i for i in range(count)}

    system = declared(function, warmup=40)
    assert asked == []
    assert system.features == ("x_0", "x_1")
    assert asked[0] > 40
    assert system.features == ("x_0", "x_1")
    assert len(asked) == 1
    assert system.with_parameters(count=3).features == ("x_0", "x_1", "x_2")


def test_names_that_are_declared_do_not_ask_the_function():
    system = declared(lambda bars: 1 / 0, declared=("x", "y"))
    assert system.features == ("x", "y")


@pytest.mark.parametrize(
    ("answer", "message"),
    [({}, "needs features with different names"), ({"close": 1}, "names of bar columns")],
)
def test_undeclared_names_must_differ(answer, message):
    with pytest.raises(BitcornError, match=message):
        declared(lambda bars: answer).features  # noqa: B018


# Computing


def test_compute_drops_the_warmup_and_gives_float32(random_bars):
    bars = random_bars(10)
    computed = declared().compute(bars)
    assert computed["x"].dtype == np.float32
    np.testing.assert_array_equal(computed["x"], bars.close[1:].astype(np.float32))


def test_the_matrix_keeps_the_warmup_rows_as_missing(random_bars):
    bars = random_bars(10)
    matrix = declared(warmup=4).matrix(bars)
    assert matrix.shape == (1, 10)
    assert matrix.dtype == np.float32
    assert np.isnan(matrix[0, :4]).all()
    np.testing.assert_array_equal(matrix[0, 4:], bars.close[4:].astype(np.float32))


def test_a_mapping_and_a_frame_are_the_same(random_bars):
    bars = random_bars(50)

    def as_mapping(bars):
        return {"a": bars.close, "b": list(bars.volume), "c": bars.close > bars.open}

    def as_frame(bars):
        frame = bars.to_frame()
        frame.index = frame["timestamp"]
        return pd.DataFrame({"a": frame["close"], "b": frame["volume"], "c": frame["close"] > frame["open"]})

    one, other = declared(as_mapping, warmup=3), declared(as_frame, warmup=3)
    assert one.features == other.features == ("a", "b", "c")
    assert one.matrix(bars).tobytes() == other.matrix(bars).tobytes()
    np.testing.assert_array_equal(one.compute(bars)["c"], (bars.close > bars.open)[3:].astype(np.float32))


def test_the_order_is_that_of_the_names_and_not_of_the_answer(random_bars):
    bars = random_bars(20)
    system = declared(lambda bars: {"b": bars.low, "a": bars.high}, declared=("a", "b"))
    assert list(system.compute(bars)) == ["a", "b"]
    np.testing.assert_array_equal(system.compute(bars)["a"], bars.high[1:].astype(np.float32))


def test_parameters_reach_the_function(random_bars):
    bars = random_bars(60)
    one = momentum.with_parameters(window=5).compute(bars)
    two = momentum.with_parameters(window=5, scale=2.0).compute(bars)
    np.testing.assert_allclose(two["momentum"], 2 * one["momentum"], rtol=1e-6)
    np.testing.assert_array_equal(two["range"], one["range"])
    assert len(one["range"]) == 54


def test_a_system_can_be_called_as_the_function_it_was(random_bars):
    bars = random_bars(60)
    called = momentum.with_parameters(window=5)(bars)
    assert np.isnan(called["momentum"][:5]).all()
    assert called["momentum"][5] == bars.close[5] / bars.close[0] - 1
    assert momentum(bars, window=9)["momentum"][9] == bars.close[9] / bars.close[0] - 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"y": 0}, "'mine' declares x and computed y: make them the same"),
        ({"x": 0, "y": 0}, "declares x and computed x, y"),
        ({}, "declares x and computed"),
    ],
)
def test_other_names_than_declared_are_refused(random_bars, answer, message):
    system = declared(lambda bars: {name: bars.close for name in answer}, declared=("x",))
    with pytest.raises(BitcornError, match=message):
        system.compute(random_bars(20))


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (lambda bars: bars.close[1:], (19,)),
        (lambda bars: 3.0, ()),
        (lambda bars: bars.close[:, None], (20, 1)),
        (lambda bars: [], (0,)),
    ],
)
def test_output_of_another_length_than_the_bars_is_refused(random_bars, values, shape):
    system = declared(lambda bars: {"x": values(bars)}, declared=("x",))
    message = f"feature x of 'mine' has shape {shape} for 20 bars: return one value per bar"
    with pytest.raises(BitcornError, match=re.escape(message)):
        system.compute(random_bars(20))


@pytest.mark.parametrize("answer", [None, [1, 2], 3.0, np.zeros(20), "text"])
def test_anything_but_a_mapping_or_a_frame_is_refused(random_bars, answer):
    system = declared(lambda bars: answer, declared=("x",))
    message = f"'mine' returned {type(answer).__name__}: return a mapping of feature names to arrays"
    with pytest.raises(BitcornError, match=message):
        system.compute(random_bars(20))


def test_values_that_are_no_numbers_are_refused(random_bars):
    system = declared(lambda bars: {"x": ["up"] * len(bars)}, declared=("x",))
    with pytest.raises(BitcornError, match="x"):
        system.compute(random_bars(20))


def test_columns_that_are_numbered_are_named_by_their_numbers(random_bars):
    bars = random_bars(20)
    system = declared(lambda bars: pd.DataFrame(np.column_stack([bars.close, bars.open])))
    computed = system.compute(bars)
    assert list(computed) == ["0", "1"]
    np.testing.assert_array_equal(computed["1"], bars.open[1:].astype(np.float32))


def test_a_failing_function_is_reported_with_its_error(random_bars):
    def failing(bars):
        raise ZeroDivisionError("no volume in this market")

    with pytest.raises(BitcornError, match="'mine' failed: ZeroDivisionError: no volume in this market") as caught:
        declared(failing, declared=("x",)).compute(random_bars(20))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_bitcorn_error_of_the_function_is_passed_on(random_bars):
    def refusing(bars):
        raise BitcornError("these bars need a time")

    with pytest.raises(BitcornError, match=r"^these bars need a time$"):
        declared(refusing, declared=("x",)).compute(random_bars(20))


def write_to_array(bars):
    bars.close[:] = 1.0
    return {"x": bars.close}


def write_to_frame(bars):
    frame = bars.to_frame()
    frame["close"].to_numpy()[:] = 1.0
    return {"x": frame["close"]}


def add_in_place(bars):
    values = bars.volume
    values += 1.0
    return {"x": values}


@pytest.mark.parametrize("function", [write_to_array, write_to_frame, add_in_place])
def test_a_function_that_writes_into_the_bars_fails_and_changes_nothing(random_bars, function):
    bars = random_bars(40)
    before = {name: column.tobytes() for name, column in bars.columns().items()}
    with pytest.raises(BitcornError, match=r"'mine' failed: ValueError: .*read-only"):
        declared(function, declared=("x",)).compute(bars)
    assert before == {name: column.tobytes() for name, column in bars.columns().items()}
    assert bars.close.flags.writeable, "the arrays of the caller stay as they are"


def test_the_function_gets_contiguous_arrays(random_bars):
    bars = random_bars(40)
    every_second = bars.take(slice(None, None, 2))
    assert not every_second.close.flags.c_contiguous
    seen = []

    def function(bars):
        seen.extend(column.flags.c_contiguous for column in bars.columns().values())
        return {"x": bars.close}

    computed = declared(function, declared=("x",)).compute(every_second)
    assert seen == [True] * 6
    np.testing.assert_array_equal(computed["x"], bars.close[::2][1:].astype(np.float32))


def test_an_answer_that_is_kept_by_the_function_is_not_changed(random_bars):
    kept = np.arange(20.0)
    declared(lambda bars: {"x": kept}, warmup=5, declared=("x",)).compute(random_bars(20))
    np.testing.assert_array_equal(kept, np.arange(20.0))


def test_values_beyond_float32_are_infinite_and_no_warning(random_bars, recwarn):
    computed = declared(lambda bars: {"x": np.full(len(bars), 1e300)}, declared=("x",)).compute(random_bars(20))
    assert np.isposinf(computed["x"]).all()
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


# The bars that it takes


@pytest.mark.parametrize(("name", "warmup"), [("v2", 49), ("v4", 335)])
def test_too_few_bars_are_refused(random_bars, name, warmup):
    for bars in (random_bars(warmup), random_bars(warmup).take(slice(0))):
        message = f"{len(bars)} bars are too few for the features {name}: they need {warmup + 1}"
        with pytest.raises(BitcornError, match=message):
            SYSTEMS[name].compute(bars)
    assert {len(values) for values in SYSTEMS[name].compute(random_bars(warmup + 1)).values()} == {1}


@pytest.mark.parametrize("price", [np.nan, 0.0, -3.0, np.inf])
@pytest.mark.parametrize("column", PRICES)
def test_unusable_prices_are_refused_with_their_time(random_bars, column, price):
    bars = random_bars(100)
    getattr(bars, column)[60] = price
    with pytest.raises(BitcornError, match=rf"{column} must be a finite number above 0.*2023-01-03T12:00:00Z"):
        SYSTEMS["v2"].compute(bars)


@pytest.mark.parametrize("volume", [np.nan, np.inf, -np.inf])
def test_unusable_volumes_are_refused_with_their_time(random_bars, volume):
    bars = random_bars(100)
    bars.volume[[60, 70]] = volume
    with pytest.raises(BitcornError, match=r"volume must be a finite number.* in 2 of 100 bars.*2023-01-03T12:00:00Z"):
        SYSTEMS["v2"].compute(bars)


@pytest.mark.parametrize(("back", "what"), [(60_000, "follows a later one"), (0, "is repeated")])
def test_times_that_do_not_rise_are_refused(random_bars, back, what):
    bars = random_bars(100)
    bars.timestamp[60] = bars.timestamp[59] - back
    with pytest.raises(BitcornError, match=f"timestamps must rise.*{what}"):
        SYSTEMS["v2"].compute(bars)


def test_v2_needs_no_times(random_bars):
    bars = random_bars(100)
    timeless = replace(bars, timed=False)
    assert SYSTEMS["v2"].matrix(timeless).tobytes() == SYSTEMS["v2"].matrix(bars).tobytes()


# Texts, halos, pickles


REGISTRY = {"momentum": momentum}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"window": 50},
        {"window": 50, "scale": 0.25},
        {"scale": 1e-9},
        {"scale": -math.pi},
        {"mode": "fast"},
        {"mode": "two words"},
        {"mode": "12"},
        {"mode": "true"},
        {"flags": True},
        {"flags": False},
        {"flags": [1, 2, 3]},
        {"flags": ["a", "b"]},
        {"mode": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("context", [(), ("4h",), ("4h", "1d")])
def test_the_text_of_a_system_finds_it_again(parameters, context):
    system = momentum.with_parameters(**parameters).with_context(*context)
    found = find_system(system.spec, REGISTRY)
    assert found == system
    assert found.all_parameters == system.all_parameters
    assert found.spec == system.spec


def test_the_text_of_a_system_is_readable():
    assert SYSTEMS["v4"].with_parameters(short=12).with_context("4h", "1d").spec == "v4:short=12:context=4h+1d"
    assert momentum.with_parameters(window=50, scale=0.5).spec == "momentum:scale=0.5:window=50"


def test_the_first_needed_row_follows_from_warmup_or_halo(random_bars):
    bars = random_bars(200)
    assert declared(warmup=30).first_needed(bars, 100) == 70
    assert declared(warmup=30).first_needed(bars, 20) == 0
    asked = []

    def halo(bars, row):
        asked.append((len(bars), row))
        return {100: 5, 150: 149}[row]

    system = declared(warmup=30, halo=halo)
    assert system.first_needed(bars, 100) == 5
    assert system.first_needed(bars, 150) == 120, "a halo cannot promise less than the warm-up"
    assert asked == [(200, 100), (200, 150)]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 899), min_size=1, max_size=5), st.integers(0, 9))
def test_the_first_needed_row_of_a_context_depends_on_no_later_bar_or_other_row(rows, seed):
    bars = simulate_bars(900, seed=seed, gaps=3)
    rows = [row % len(bars) for row in rows]  # the gaps have no rows
    system = find_system("v2:context=4h").on_grid(3_600_000)
    alone = [system.first_needed(bars.take(slice(row + 1)), row) for row in rows]
    assert system.first_rows(bars, rows) == alone
    assert [system.first_needed(bars, row) for row in rows] == alone


def test_a_grid_matters_to_a_context_only():
    assert momentum.on_grid(3_600_000) is momentum
    assert momentum.with_context("4h").on_grid(3_600_000).step == 3_600_000


@pytest.mark.parametrize("spec", ["v2", "v4", "v4:short=4:medium=12", "v4:context=4h+1d"])
def test_systems_of_this_package_survive_pickling(random_bars, spec):
    system = find_system(spec)
    features = system.features
    again = pickle.loads(pickle.dumps(system))
    assert again == system
    assert again.features == features
    if not system.context:
        bars = random_bars(500)
        assert again.matrix(bars).tobytes() == system.matrix(bars).tobytes()


@pytest.mark.parametrize("parameters", [{}, {"window": 5}])
def test_a_decorated_system_survives_the_pickling_that_ray_does(random_bars, parameters):
    from ray import cloudpickle

    bars, system = random_bars(60), momentum.with_parameters(**parameters)
    again = cloudpickle.loads(cloudpickle.dumps(system))
    assert again.all_parameters == system.all_parameters
    assert again.warmup_bars == system.warmup_bars
    assert again.features == system.features
    assert again.matrix(bars).tobytes() == system.matrix(bars).tobytes()


@pytest.mark.parametrize("warmup", [2.5, lambda: 1 / 0, lambda: [1], "3"])
def test_a_warmup_must_be_a_whole_number(warmup):
    with pytest.raises(
        BitcornError, match=r"warm-up of feature system 'mine' with \{\} must be a whole number of bars"
    ):
        FeatureSystem(name="mine", version=1, function=lambda bars: {"x": bars.close}, warmup=warmup, declared=("x",))


@pytest.mark.parametrize("halo", [lambda bars, row: 1 / 0, lambda bars, row: "x"])
def test_a_halo_must_be_a_row(random_bars, halo):
    system = FeatureSystem(
        name="mine", version=1, function=lambda bars: {"x": bars.close}, warmup=3, declared=("x",), halo=halo
    )
    with pytest.raises(BitcornError, match="halo of feature system 'mine' at row 50 must be a row"):
        system.first_needed(random_bars(100), 50)


def test_whole_numbers_of_numpy_are_whole_numbers(random_bars):
    system = FeatureSystem(
        name="mine", version=1, function=lambda bars: {"x": bars.close}, warmup=np.int64(3), declared=("x",),
        halo=lambda bars, row: np.int64(row - 40),
    )  # fmt: skip
    assert (type(system.warmup_bars), type(system.first_needed(random_bars(100), 50))) == (int, int)


def test_a_parameter_named_context_is_refused():
    with pytest.raises(BitcornError, match="has a parameter named context"):
        FeatureSystem(name="mine", version=1, function=lambda bars, context=1: {}, warmup=0)


# Further columns


@feature_system(name="activity", warmup=1, inputs=["trades"])
def activity(bars):
    trades = bars.extra["trades"]
    return {"activity": trades / np.r_[np.nan, trades[:-1]]}


def with_trades(bars, **more):
    return replace(bars, extra={"trades": np.arange(1.0, len(bars) + 1), **more})


def test_a_system_reads_the_further_columns_that_it_names_and_no_others(random_bars):
    bars = with_trades(random_bars(50), funding=np.ones(50))
    np.testing.assert_allclose(activity.compute(bars)["activity"], np.arange(2, 51) / np.arange(1, 50), rtol=1e-6)
    seen = []
    feature_system(name="spy", warmup=0, inputs=["funding"])(
        lambda bars: {"x": seen.append(sorted(bars.extra)) or bars.close}
    ).compute(bars)
    assert seen[-1] == ["funding"]


def test_bars_without_a_column_that_is_needed_are_refused(random_bars):
    with pytest.raises(BitcornError, match=r"no further column trades \(they have none\): load them with it"):
        activity.compute(random_bars(50))


def test_further_columns_and_a_context_are_refused_together():
    with pytest.raises(BitcornError, match="reads trades, which bars of a higher timeframe do not have"):
        activity.with_context("4h")


# Output of the function


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda bars: {"x": bars["close"].shift(1)}, "TypeError: 'Bars' object is not subscriptable"),
        (lambda bars: bars.assign(x=1), "AttributeError: 'Bars' object has no attribute 'assign'"),
        (lambda bars: {"x": bars.closing}, "AttributeError: 'Bars' object has no attribute 'closing'"),
        (lambda bars: {"x": bars.close.shift(1)}, "AttributeError: 'numpy.ndarray' object has no attribute 'shift'"),
        (lambda bars: {"x": bars.timestamp.dt.hour}, "AttributeError: 'numpy.ndarray' object has no attribute 'dt'"),
    ],
)
def test_bars_used_as_a_dataframe_are_explained(random_bars, function, said):
    with pytest.raises(BitcornError, match=re.escape(f"feature system 'mine' failed: {said}")) as caught:
        call(function, "mine", random_bars(20), {})
    assert "bars are not a DataFrame" in str(caught.value)
    assert "bars.to_frame() returns a DataFrame" in str(caught.value)


def test_other_failures_are_reported_with_their_line(random_bars):
    def failing(bars):
        return {"x": np.asarray(bars.close).reshape(7, 3)}

    line = failing.__code__.co_firstlineno + 1
    with pytest.raises(BitcornError, match=rf"ValueError: cannot reshape .* \(line {line} of test_system.py\)$"):
        call(failing, "mine", random_bars(20), {})


def test_a_function_that_would_end_the_process_has_failed(random_bars):
    def leaving(bars):
        raise SystemExit(3)

    with pytest.raises(BitcornError, match="failed: SystemExit: 3"):
        call(leaving, "mine", random_bars(20), {})


@pytest.mark.parametrize("answer", [pd.Series(np.zeros(20), name="x"), (each for each in "x"), np.zeros(20)])
def test_a_series_is_neither_a_mapping_nor_a_frame(random_bars, answer):
    with pytest.raises(BitcornError, match=f"returned {type(answer).__name__}: return a mapping"):
        call(lambda bars: answer, "mine", random_bars(20), {})


def test_a_repeated_name_is_refused(random_bars):
    frame = pd.DataFrame(np.zeros((20, 3)), columns=["x", "y", "x"])
    with pytest.raises(BitcornError, match="returned x twice"):
        call(lambda bars: frame, "mine", random_bars(20), {})


HOURS = pd.date_range("2024-01-01", periods=20, freq="h")


@pytest.mark.parametrize(
    "value",
    [
        np.fft.fft(np.arange(20.0)),
        HOURS,
        HOURS - HOURS[0],
    ],
)
def test_values_that_are_not_real_numbers_are_refused(value):
    with pytest.raises(BitcornError, match="feature x of 'mine' has values that are not"):
        validated(value, "x", "mine", 20)


def test_masked_values_are_refused_and_an_empty_mask_is_not():
    values = np.arange(20.0)
    with pytest.raises(BitcornError, match="masked values: return NaN"):
        validated(np.ma.masked_where(values > 3, values), "x", "mine", 20)
    assert (validated(np.ma.masked_where(values > 30, values), "x", "mine", 20) == values).all()


def by_hour(series):
    """Rolling means within each hour of the day: pandas puts the rows of an hour together."""
    return series.groupby(HOURS.hour % 3).rolling(2, min_periods=1).mean()


SERIES = pd.Series(np.random.default_rng(0).normal(size=20))


@pytest.mark.parametrize("value", [SERIES.sort_values(), SERIES[::-1], by_hour(SERIES), SERIES.set_axis(HOURS[::-1])])
def test_a_series_in_another_order_than_the_bars_is_refused(value):
    with pytest.raises(BitcornError, match="a Series whose index is not increasing"):
        validated(value, "x", "mine", 20)


@pytest.mark.parametrize(
    "value", [SERIES, SERIES.set_axis(HOURS), SERIES.set_axis([0] * 20), by_hour(SERIES).droplevel(0).sort_index()]
)
def test_a_series_in_the_order_of_the_bars_is_taken(value):
    assert (validated(value, "x", "mine", 20) == value.to_numpy()).all()
