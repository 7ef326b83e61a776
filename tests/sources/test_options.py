import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.options import SourceOptions


def test_plain_values_make_a_reading_that_compares_by_value():
    first = SourceOptions.of("candles", {"open": "o", "ts": "t"}, ["trades", "trades"])
    assert first == SourceOptions.of("candles", ["ts=t,open=o"], ("trades",))
    assert hash(first) == hash(SourceOptions("candles", (("open", "o"), ("timestamp", "t")), ("trades",)))
    assert SourceOptions.of() == SourceOptions()
    assert SourceOptions.of(columns=["a"]).with_columns(["b", "a"]).columns == ("a", "b")


def test_a_mapping_of_a_name_that_is_none_of_ours_is_refused():
    with pytest.raises(BitcornError, match="mapping 'price=o' is not"):
        SourceOptions.of(mapping={"price": "o"})
