import pyarrow as pa
import pytest

from bitcorn_ray.sources.formats.rows import UNORDERED, named_rows


def rows(names, values):
    """Rows of a format that reads what it is asked for."""
    batch = pa.RecordBatch.from_arrays([pa.array([value]) for value in values], names=names)
    return named_rows(names, lambda numbers, texts: iter([batch.select([*texts, *numbers])]), "x")


def test_rows_with_names_are_read_as_they_are_asked_for():
    found = rows(["t", "a", "b"], ["1", 2.0, 3.0])
    assert found.names == ["t", "a", "b"]
    assert [batch.to_pylist() for batch in found.read(["b"], ["t"])] == [[{"t": "1", "b": 3.0}]]
    assert not found.is_columnar


@pytest.mark.parametrize(
    ("prices", "order"), [((2, 3, 1, 2.5), "open high low close"), ((2, 2.5, 3, 1), "open close high low")]
)
def test_prices_without_names_have_the_order_that_they_say(prices, order):
    found = rows(list(UNORDERED), ["1", *map(float, prices), 7.0])
    assert found.names == ["timestamp", "open", "high", "low", "close", "volume"]
    [batch] = found.read(["close"], ["timestamp"])
    told = dict(zip(order.split(), map(float, prices), strict=True))
    assert batch.to_pylist() == [{"timestamp": "1", **told, "volume": 7.0}]
