import os
import time

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.on_ray.nodes import ask_nodes, at_once, room_for
from bitcorn_ray.tuning.config import Resources


def test_each_node_answers_for_itself(ray_cluster):
    (answer,) = ask_nodes(os.getpid)
    assert answer.error is None
    assert answer.value != os.getpid()
    assert answer.resources["CPU"] == 2


def test_what_a_node_cannot_do_is_its_error(ray_cluster):
    def fail():
        raise ValueError("no such thing")

    (answer,) = ask_nodes(fail)
    assert answer.error == "ValueError: no such thing"


def test_a_silent_node_is_not_waited_for(ray_cluster):
    (answer,) = ask_nodes(lambda: time.sleep(60), timeout=0.5)
    assert answer.error == "did not answer within 0.5 seconds"
    assert ask_nodes(os.getpid)[0].error is None


@pytest.fixture
def cluster_of(monkeypatch):
    """A function that lets Ray seem to have nodes of so many CPUs and GPUs."""
    import ray

    def make(*nodes):
        listed = [
            {"Alive": alive, "Resources": {"CPU": cpus, **({"GPU": gpus} if gpus else {})}}
            for alive, cpus, gpus in [*((True, *node) for node in nodes), (False, 64.0, 8.0)]
        ]
        monkeypatch.setattr(ray, "nodes", lambda: listed)
        totals = {"CPU": sum(cpus for cpus, _ in nodes), "GPU": sum(gpus for _, gpus in nodes)}
        monkeypatch.setattr(ray, "cluster_resources", lambda: totals)

    return make


def test_room_is_counted_node_by_node(cluster_of):
    cluster_of((0.0, 0.0), (3.0, 0.0), (8.0, 1.0))
    assert room_for(1, 0) == 11
    assert room_for(2, 0) == 5
    assert room_for(0.1, 0) == 110
    assert room_for(1, 0.25) == 4
    assert room_for(4, 1) == 1
    assert room_for(9, 0) == 0


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus"),
    [
        ([(2, 0)], (1, 1), 2),
        ([(2, 0)], (1, 4), 1),
        ([(0, 0), (1, 0), (1, 0)], (1, 1), 1),  # both CPUs are on no one node
        ([(8, 0)] * 4, (4, 4), 8),
        ([(8, 0)] * 4, (5, 5), 4),
        ([(8, 0), (2, 0)], (2, 2), 4),
        ([(8, 0)] * 2, (1, 64), 1),
    ],
)
def test_workers_of_a_training_find_room_on_the_nodes(cluster_of, nodes, workers, cpus):
    from bitcorn_ray.training.distribute import _cpus_per_worker

    cluster_of(*((float(have), float(gpus)) for have, gpus in nodes))
    assert _cpus_per_worker(*workers, 0) == cpus


@pytest.mark.parametrize("waiting", [0, 1])
def test_as_many_are_under_way_as_there_is_room_for_and_some_wait(cluster_of, waiting):
    cluster_of((2.0, 0.0), (2.0, 0.0))
    assert at_once(1, 0, waiting) == 4 + waiting
    cluster_of((2.0, 0.0))  # a node is lost, and then all
    assert at_once(1, 0, waiting) == 2 + waiting
    cluster_of()
    assert at_once(1, 0, waiting) == 1 + waiting


def test_a_trial_that_no_node_holds_is_refused(cluster_of):
    from bitcorn_ray.tuning.distribute import _require_room

    cluster_of((2.0, 0.0), (2.0, 0.0))
    _require_room(Resources(cpu=2))
    with pytest.raises(BitcornError, match=r"a trial takes 3 CPUs and 0 GPUs, but Ray has 4 CPUs .* no node as many"):
        _require_room(Resources(cpu=3))
