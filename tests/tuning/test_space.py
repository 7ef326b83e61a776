import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.space import Dimension, Space, point_key


def test_a_space_is_read_and_its_points_are_all_combinations():
    space = Space.parse({"a": {"choice": ["x", [1, 2]]}, "b": {"int": [2, 6, 2]}})
    assert space.names == ("a", "b")
    assert space.size == 6
    assert list(space.points())[:4] == [{"a": "x", "b": b} for b in (2, 4, 6)] + [{"a": [1, 2], "b": 2}]
    assert len(list(space.points(2))) == 2


def test_without_dimensions_there_is_one_point():
    assert Space.parse(None) == Space()
    assert list(Space().points()) == [{}]
    assert Space().size == 1


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert Dimension.parse("a", {"loguniform": ["1e-4", 0.01]}).values == (1e-4, 0.01)


def test_a_continuous_space_has_no_size_and_no_points():
    space = Space.parse({"a": {"uniform": [0, 1]}})
    assert space.size is None
    with pytest.raises(BitcornError, match="a is searched by uniform, which no grid can cover"):
        list(space.points())


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([1, 2], "give one of choice"),
        ({"choice": 3}, "give a list"),
        ({"chioce": [3]}, "use one of choice"),
        ({"choice": []}, "at least one"),
        ({"choice": [1, 1]}, "different values"),
        ({"int": [1, 2.5]}, "integers"),
        ({"int": [8, 4]}, "then a greater maximum"),
        ({"uniform": [0, 1, 2]}, "the minimum and the maximum"),
        ({"uniform": ["low", 1]}, "the minimum and the maximum"),
        ({"loguniform": [0, 1]}, "above 0"),
    ],
)
def test_malformed_dimensions_are_refused(given, match):
    with pytest.raises(BitcornError, match=match):
        Dimension.parse("model.hidden_size", given)
    with pytest.raises(BitcornError, match="give fields"):
        Space.parse([given])


def test_equal_points_have_one_key():
    assert point_key({"a": 1, "b": (1, 2)}) == point_key({"b": [1, 2], "a": 1})
