import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.sources.numbers import parse_numbers

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(FLOATS), st.booleans())
def test_text_reads_as_python_reads_it(values, chunked):
    column = pa.chunked_array([[repr(value) for value in values]], pa.string())
    numbers, bad = parse_numbers(column if chunked else column.combine_chunks())
    assert numbers.tolist() == values
    assert not bad.any()


def test_what_is_missing_is_nan_and_what_is_no_number_is_told():
    texts = ["1.5", None, "", " nan ", "NULL", "-", "1.7.5", "+2", ".5", "3.", "n.a.", "1e-3", "0x10", "１"]
    numbers, bad = parse_numbers(pa.array(texts))
    assert [text for text, wrong in zip(texts, bad, strict=True) if wrong] == ["1.7.5", "n.a.", "0x10", "１"]
    assert numbers[[0, 7, 8, 9, 11]].tolist() == [1.5, 2.0, 0.5, 3.0, 0.001]
    assert np.isnan(numbers[[1, 2, 3, 4, 5, 6, 10]]).all()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3]),
        pa.array([1.0, None, 3.0], pa.float32()),
        pa.array(["1", None, "3"]).dictionary_encode(),
        pa.array([1, None, 3]).cast(pa.decimal128(30, 4)),
        pa.array(["1", None, "3"], pa.large_string()),
        pa.chunked_array([[1], [None, 3]]),
    ],
)
def test_every_type_of_numbers_is_read(column):
    numbers, bad = parse_numbers(column)
    np.testing.assert_array_equal(numbers, [1.0, np.nan, 3.0])
    assert not bad.any()
    assert numbers.dtype == np.float64


def test_large_integers_are_rounded():
    assert parse_numbers(pa.array([2**60 + 1]))[0].tolist() == [float(2**60 + 1)]


def test_what_is_neither_numbers_nor_text_is_bad():
    assert parse_numbers(pa.array([b"1"]))[1].all()
    assert parse_numbers(pa.nulls(2))[1].tolist() == [False, False]
