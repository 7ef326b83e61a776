import os
from functools import partial
from pathlib import Path

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.fingerprint.code import code_identity
from bitcorn_ray.forecasting.distribute import map_with_actors

CODE = code_identity(SYSTEMS["v2"].function)


class Squares:
    """Notes each time that it is made, and dies where it is told to."""

    def __init__(self, notes, deadly=None):
        self.deadly = deadly
        (Path(notes) / f"made-{os.getpid()}").write_text("")

    def __call__(self, job):
        if job == self.deadly:
            os._exit(1)
        return job, job**2


def test_each_job_is_done_once_by_actors_that_are_made_once(ray_cluster, tmp_path):
    seen = []
    done, lost = map_with_actors(partial(Squares, tmp_path), list(range(7)), [1] * 7, CODE, seen.append)
    assert sorted(done) == [(n, n**2) for n in range(7)]
    assert seen == done
    assert lost == []
    assert len(list(tmp_path.glob("made-*"))) <= 2  # as many as there are CPUs


def test_a_job_that_kills_its_actor_is_reported_and_the_others_go_on(ray_cluster, tmp_path):
    done, lost = map_with_actors(partial(Squares, tmp_path, 3), list(range(5)), [1] * 5, CODE, lambda _: None)
    assert sorted(done) == [(n, n**2) for n in (0, 1, 2, 4)]
    assert lost == [3]


def test_more_gpus_than_there_are_is_refused_at_once(ray_cluster, tmp_path):
    with pytest.raises(BitcornError, match="each model needs 1 GPUs, but Ray has 0"):
        map_with_actors(partial(Squares, tmp_path), [1], [1], CODE, lambda _: None, gpus=1)
