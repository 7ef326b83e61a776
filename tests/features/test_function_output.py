import re

import numpy as np
import pandas as pd
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.system import _call_feature_function as call
from bitcorn_ray.features.system import _validated as validated


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
    with pytest.raises(
        BitcornError, match=rf"ValueError: cannot reshape .* \(line {line} of test_function_output.py\)$"
    ):
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
def test_a_series_whose_rows_are_in_another_order_than_the_bars_is_refused(value):
    with pytest.raises(BitcornError, match="a Series whose index is not increasing"):
        validated(value, "x", "mine", 20)


@pytest.mark.parametrize(
    "value", [SERIES, SERIES.set_axis(HOURS), SERIES.set_axis([0] * 20), by_hour(SERIES).droplevel(0).sort_index()]
)
def test_a_series_in_the_order_of_the_bars_is_taken(value):
    assert (validated(value, "x", "mine", 20) == value.to_numpy()).all()
