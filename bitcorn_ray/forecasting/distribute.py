"""Map jobs over a pool of Ray Data actors, each of which loads the model once.

A job whose actor dies is retried; a job that kills its actor every time is returned, and the others continue.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.fingerprint.code import CodeIdentity
from bitcorn_ray.on_ray.map import one_operator
from bitcorn_ray.on_ray.monitoring import record_traffic
from bitcorn_ray.on_ray.pickling import pack, unpack
from bitcorn_ray.on_ray.versions import guarded
from bitcorn_ray.storage.traffic import traffic

_RETRIES = 2  # of a job whose actor died
_REFUSED = "refused"  # the one result that is a mapping

Job = TypeVar("Job")
Result = TypeVar("Result")


class _Actor:
    """An actor that makes its worker when it starts, and runs one job at a time."""

    def __init__(self, make: bytes) -> None:
        self._work: Callable[[Any], Any] = unpack(make)()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        before = traffic()
        result = self._work(pickle.loads(row["job"]))
        return {"index": row["index"], "result": pickle.dumps((result, traffic() - before), protocol=5)}


def map_with_actors(
    make: Callable[[], Callable[[Job], Result]],
    jobs: Sequence[Job],
    sizes: Sequence[int],
    code: CodeIdentity,
    on_done: Callable[[Result], None],
    gpus: float = 0.0,
) -> tuple[list[Result], list[Job]]:
    """Map a worker over jobs on the connected Ray cluster.

    make: called once in each actor, returns the worker. sizes: expected costs of the jobs; the largest start first.
    code: of the feature system, whose modules are sent with the jobs. on_done: called with each result as it arrives.
    gpus: for each actor.
    Returns the results in the order of their arrival, and the jobs whose actors died at every attempt.
    Raises BitcornError for more GPUs than Ray has, a worker that cannot be pickled, and a node with another
    installation than this process.
    """
    waiting, results = dict(enumerate(jobs)), list[Result]()
    actor: Any = _Actor  # Ray accepts classes; its annotations do not
    with one_operator():
        largest_first = sorted(waiting, key=lambda index: -sizes[index])
        rows = [{"index": index, "job": pickle.dumps(waiting[index])} for index in largest_first]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            actor,
            fn_constructor_args=[pack(guarded(make, _refusing), code)],
            compute=ray.data.ActorPoolStrategy(size=_pool_size(len(jobs), gpus), max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            num_gpus=gpus or None,
            max_restarts=_RETRIES,
            max_task_retries=_RETRIES,
        )
        for row in dataset.iter_rows():
            result, counts = pickle.loads(row["result"])
            record_traffic(counts)
            if isinstance(result, dict) and _REFUSED in result:
                raise BitcornError(result[_REFUSED])
            waiting.pop(row["index"])
            results.append(result)
            on_done(results[-1])
    return results, list(waiting.values())


def _refusing(why: str) -> Callable[[Any], dict[str, str]]:
    """Return a worker that reports the refusal of a node; an error in the actor's constructor would hang Ray Data."""
    return lambda job: {_REFUSED: why}


def _pool_size(jobs: int, gpus: float) -> int:
    """Return the number of actors: one for each CPU, at most one for each job, and as many as have their GPUs."""
    resources = ray.cluster_resources()
    size = min(jobs, max(1, int(resources.get("CPU", 1))))
    if gpus > 0:
        with_gpu = int(resources.get("GPU", 0.0) / gpus)
        if with_gpu < 1:
            raise BitcornError(
                f"each model needs {gpus:g} GPUs, but Ray has {resources.get('GPU', 0.0):g}: use fewer, or CPUs"
            )
        size = min(size, with_gpu)
    return size
