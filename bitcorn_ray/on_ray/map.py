"""Jobs over the cluster by Ray Data: balanced groups, largest first, and no job that takes others down with it.

1. The jobs are dealt into a few groups for each CPU, the largest first and each to the group with the least so far: a
   task costs some 20 ms, so one for each of a thousand small partitions would cost more than the work.
2. A group whose worker dies is tried again a few times. What it has put into the cache by then is a hit.
3. If it dies every time, its jobs are run once more, each alone; what dies then is the culprit, and is reported.
4. A worker whose installation differs does nothing, and ends the command: see `versions`.
"""

from __future__ import annotations

import heapq
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray

from bitcorn_ray.cache.store import traffic
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.fingerprint.code import CodeIdentity
from bitcorn_ray.memory import keep_freed_memory
from bitcorn_ray.on_ray.monitoring import count_traffic
from bitcorn_ray.on_ray.pickling import pack, unpack
from bitcorn_ray.on_ray.versions import guarded

GROUPS_PER_CPU = 8
_RETRIES = 2  # of a group whose worker died

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_balanced(
    work: Callable[[list[Job]], list[Result]],
    jobs: Sequence[Job],
    sizes: Sequence[int],
    code: CodeIdentity,
    on_done: Callable[[Result], None],
) -> tuple[list[Result], list[Job]]:
    """Map a pure function over groups of jobs; it returns any number of results for its jobs.

    sizes: what the jobs are expected to cost, in any unit. code: of the feature system, whose own modules travel with
    the function. on_done: called with each result as its group finishes.
    Returns the results in the order of their arrival, and the jobs whose workers died each time.
    Raises BitcornError for a function that cannot be sent to workers, and where a worker has another installation than
    this process.
    """
    packed = pack(work, code)
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))  # a head without any may wait for its workers
    groups = [[jobs[place] for place in group] for group in _dealt(sizes, cpus * GROUPS_PER_CPU)]
    done, lost = _mapped(packed, groups, on_done)
    culprits = [group for group in lost if len(group) == 1]
    if together := [group for group in lost if len(group) > 1]:
        again, alone = _mapped(packed, [[job] for group in together for job in group], on_done)
        done, culprits = done + again, culprits + alone
    return done, [job for group in culprits for job in group]


def _mapped(
    packed: bytes, groups: list[list[Job]], on_done: Callable[[Result], None]
) -> tuple[list[Result], list[list[Job]]]:
    """Return the results, and the groups that gave none."""
    waiting, results = dict(enumerate(groups)), list[Result]()

    def run(row: dict[str, Any]) -> dict[str, Any]:
        keep_freed_memory()
        before = traffic()
        done = unpack(packed)(pickle.loads(row["jobs"]))
        return {"group": row["group"], "results": pickle.dumps((done, traffic() - before)), "refused": ""}

    def refused(why: str, row: dict[str, Any]) -> dict[str, Any]:
        return {"group": row["group"], "results": b"", "refused": why}

    with one_operator():
        rows = [{"group": number, "jobs": pickle.dumps(group)} for number, group in waiting.items()]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        for row in dataset.map(guarded(run, refused), max_retries=_RETRIES).iter_rows():
            if row["refused"]:
                raise BitcornError(row["refused"])
            waiting.pop(row["group"])
            done, moved = pickle.loads(row["results"])
            count_traffic(moved)
            for result in done:
                on_done(result)
                results.append(result)
    return results, list(waiting.values())


@contextmanager
def one_operator() -> Iterator[None]:
    """Let Ray Data run datasets of one operator in the block, quietly; rows that fail are noticed by their absence."""
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    # Nothing has to be reserved for another operator, and no CPU to wait for the first result's size.
    context.op_resource_reservation_enabled = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray has no other way yet to bound the retries
        yield


def _dealt(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Places of the jobs in at most `count` groups of about equal size, the largest group first (Graham's LPT rule)."""
    # Of groups with as much to do the one with the fewest jobs is next: jobs that cost nothing are spread as well.
    groups: list[tuple[int, int, int, list[int]]] = [(0, 0, number, []) for number in range(min(count, len(sizes)))]
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        total, jobs, number, group = heapq.heappop(groups)
        group.append(place)
        heapq.heappush(groups, (total + sizes[place], jobs + 1, number, group))
    return [group for *_, group in sorted(groups, key=lambda each: -each[0])]
