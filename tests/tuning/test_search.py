import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.search import Trial, search_importance, suggester_of
from bitcorn_ray.tuning.space import Space, point_key

SMALL = Space.parse({"a": {"choice": ["x", "y"]}, "b": {"int": [1, 3]}})
WIDE = Space.parse({"a": {"uniform": [-1, 1]}, "b": {"loguniform": [0.001, 1]}, "c": {"choice": [[1], [2]]}})


def trial(point, state, *losses):
    return Trial(name="t", point=point, state=state, losses=losses)


def asked(suggester, loss=lambda point: 0.0):
    points = []
    while len(points) < 50 and (point := suggester.ask()) is not None:
        points.append(point)
        suggester.tell(trial(point, "finished", loss(point)))
    return points


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
def test_every_point_of_a_small_space_is_chosen_once(search):
    keys = [point_key(point) for point in asked(suggester_of(search, SMALL, 0))]
    assert len(keys) == len(set(keys)) == 6


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
def test_points_of_an_earlier_sweep_are_not_chosen_again(search):
    suggester = suggester_of(search, SMALL, 0)
    suggester.tell(trial({"a": "x", "b": 2}, "finished", 1.0, 2.0))
    suggester.tell(trial({"a": "y", "b": 2}, "stopped", 1.0))
    suggester.tell(trial({"a": "y", "b": 3}, "failed"))
    suggester.exclude({"a": "x", "b": 1})
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


def test_the_estimator_learns_from_earlier_sweeps():
    def loss(point):
        return (point["a"] - 0.5) ** 2

    resumed, fresh = suggester_of("tpe", WIDE, 0), suggester_of("tpe", WIDE, 0)
    for point in asked(suggester_of("random", WIDE, 9)):
        resumed.tell(trial(point, "finished", loss(point)))
    distances = [np.mean([loss(each.ask()) for _ in range(8)]) for each in (resumed, fresh)]
    assert distances[0] < distances[1] / 2


def test_a_stopped_trial_ranks_below_finished_ones():
    """Points that only stopped trials made look good are no better than chance."""
    resumed = suggester_of("tpe", WIDE, 0)
    for point in asked(suggester_of("random", WIDE, 9)):
        good = point["a"] > 0
        resumed.tell(trial(point, "finished" if good else "stopped", *([1.0, 1.0] if good else [-9.0])))
    assert np.mean([resumed.ask()["a"] > 0 for _ in range(8)]) > 0.7


def test_a_users_function_gets_the_trials_that_ended(monkeypatch):
    seen = []

    def mine(space, ended, rng):
        seen.append([(point, each.state, each.loss) for point, each in ended])
        return {"a": "x", "b": 1 + len(ended)} if len(ended) < 2 else None

    monkeypatch.setitem(sys.modules, "my_search", SimpleNamespace(mine=mine, wrong=lambda *_: {"z": 1}))
    points = [{"a": "x", "b": 1}, {"a": "x", "b": 2}]
    assert asked(suggester_of("my_search:mine", SMALL, 0)) == points
    assert seen == [[(point, "finished", 0.0) for point in points[:count]] for count in range(3)]
    with pytest.raises(BitcornError, match=r"returned \{'z': 1\}"):
        suggester_of("my_search:wrong", SMALL, 0).ask()
    with pytest.raises(BitcornError, match="no function 'absent'"):
        suggester_of("my_search:absent", SMALL, 0)


def test_an_unknown_search_is_refused():
    with pytest.raises(BitcornError, match="use tpe, random"):
        suggester_of("best", SMALL, 0)
    with pytest.raises(BitcornError, match="cannot be imported"):
        suggester_of("no_such_module:f", SMALL, 0)


def test_the_loss_of_a_trial_is_the_mean_of_its_folds():
    assert trial({}, "finished", 1.0, 3.0).loss == 2.0
    assert trial({}, "failed").loss is None


FIELDS = Space.parse(
    {
        "rate": {"loguniform": [1e-4, 1e-1]},
        "units": {"int": [4, 64, 4]},
        "cell": {"choice": ["lstm", "gru", [1, 2]]},
        "fixed": {"choice": [7]},
    }
)


def tried(loss, count=120, seed=0):
    rng = np.random.default_rng(seed)
    points = [
        {
            "rate": float(10 ** rng.uniform(-4, -1)),
            "units": int(4 * rng.integers(1, 17)),
            "cell": ["lstm", "gru", [1, 2]][rng.integers(3)],
            "fixed": 7,
        }
        for _ in range(count)
    ]
    return [(point, loss(point)) for point in points]


def test_the_field_that_determines_the_loss_is_the_most_important():
    by_rate = search_importance(FIELDS, tried(lambda p: np.log10(p["rate"]) ** 2 + 0.001 * p["units"]))
    assert by_rate["rate"] > 0.9
    by_cell = search_importance(FIELDS, tried(lambda p: float(p["cell"] == [1, 2])))
    assert by_cell["cell"] == max(by_cell.values()) > 0.9
    assert "fixed" not in by_cell


def test_importance_prints_nothing(capfd):
    code = "from test_search import *; search_importance(FIELDS, tried(lambda p: p['units'], count=20))"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
    assert capfd.readouterr() == ("", "")


def test_the_same_trials_have_the_same_importance():
    trials = tried(lambda p: p["units"] + np.log(p["rate"]))
    assert search_importance(FIELDS, trials) == search_importance(FIELDS, trials)


@pytest.mark.parametrize("loss", [lambda p: None, lambda p: np.nan, lambda p: 1.0])
def test_there_is_no_importance_without_enough_different_losses(loss):
    assert search_importance(FIELDS, tried(loss)) == {}
    assert search_importance(FIELDS, tried(lambda p: p["rate"], count=7)) == {}
    assert search_importance(Space(), [({}, 1.0)] * 10) == {}
