import sys
from types import SimpleNamespace

import numpy as np
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.search import Outcome, suggester_of
from bitcorn_ray.tuning.space import Space, point_key

SMALL = Space.parse({"a": {"choice": ["x", "y"]}, "b": {"int": [1, 3]}})
WIDE = Space.parse({"a": {"uniform": [-1, 1]}, "b": {"loguniform": [0.001, 1]}, "c": {"choice": [[1], [2]]}})


def asked(suggester, loss=lambda point: 0.0):
    points = []
    while len(points) < 50 and (point := suggester.ask()) is not None:
        points.append(point)
        suggester.tell(point, Outcome("finished", (loss(point),)))
    return points


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
def test_every_point_of_a_small_space_is_chosen_once(search):
    keys = [point_key(point) for point in asked(suggester_of(search, SMALL, 0))]
    assert len(keys) == len(set(keys)) == 6


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
def test_points_of_an_earlier_sweep_are_not_chosen_again(search):
    suggester = suggester_of(search, SMALL, 0)
    suggester.tell({"a": "x", "b": 2}, Outcome("finished", (1.0, 2.0)))
    suggester.tell({"a": "y", "b": 2}, Outcome("stopped", (1.0,)))
    suggester.tell({"a": "y", "b": 3}, Outcome("failed"))
    suggester.expect({"a": "x", "b": 1})
    points = asked(suggester)
    assert len(points) == 2
    assert {"a": "x", "b": 1} not in points
    assert not [point for point in points if point["b"] == 2]


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_seed_gives_the_same_points(search):
    one, other = (asked(suggester_of(search, WIDE, 3)) for _ in range(2))
    assert one == other
    assert all(-1 <= point["a"] <= 1 and 0.001 <= point["b"] <= 1 and point["c"] in ([1], [2]) for point in one)
    assert one != asked(suggester_of(search, WIDE, 4))


def test_the_estimator_learns_from_what_it_is_told_and_from_earlier_sweeps():
    def loss(point):
        return (point["a"] - 0.5) ** 2

    told, fresh = suggester_of("tpe", WIDE, 0), suggester_of("tpe", WIDE, 0)
    for point in asked(suggester_of("random", WIDE, 9)):
        told.tell(point, Outcome("finished", (loss(point),)))
    distances = [np.mean([loss(each.ask()) for _ in range(8)]) for each in (told, fresh)]
    assert distances[0] < distances[1] / 2


def test_a_function_of_the_user_sees_what_was_told(monkeypatch):
    seen = []

    def mine(space, told, rng):
        seen.append(len(told))
        return {"a": "x", "b": 1 + len(told)} if len(told) < 2 else None

    monkeypatch.setitem(sys.modules, "my_search", SimpleNamespace(mine=mine, wrong=lambda *_: {"z": 1}))
    assert asked(suggester_of("my_search:mine", SMALL, 0)) == [{"a": "x", "b": 1}, {"a": "x", "b": 2}]
    assert seen == [0, 1, 2]
    with pytest.raises(BitcornError, match=r"returned \{'z': 1\}"):
        suggester_of("my_search:wrong", SMALL, 0).ask()
    with pytest.raises(BitcornError, match="no function 'absent'"):
        suggester_of("my_search:absent", SMALL, 0)


def test_what_is_no_search_is_refused():
    with pytest.raises(BitcornError, match="use tpe, random"):
        suggester_of("best", SMALL, 0)
    with pytest.raises(BitcornError, match="cannot be imported"):
        suggester_of("no_such_module:f", SMALL, 0)


def test_an_outcome_is_the_mean_of_its_folds():
    assert Outcome("finished", (1.0, 3.0)).loss == 2.0
    assert Outcome("failed").loss is None
