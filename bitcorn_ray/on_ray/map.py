"""A map over jobs by Ray Data: balanced groups, largest first; a job that kills its worker does not stop the others.

1. Deal the jobs into a few groups per CPU. A task costs about 20 ms, too much for each of a thousand small partitions.
2. Retry a group whose worker dies. Its finished jobs are in the cache by then.
3. If it dies every time, run its jobs once more one by one, and return the jobs whose workers die again.
4. A worker with another installation refuses to work, which raises an error: see `versions`.
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

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.fingerprint.code import CodeIdentity
from bitcorn_ray.memory import keep_freed_memory
from bitcorn_ray.on_ray.monitoring import record_traffic
from bitcorn_ray.on_ray.pickling import pack, unpack
from bitcorn_ray.on_ray.versions import guarded
from bitcorn_ray.storage.traffic import traffic

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

    sizes: expected costs of the jobs, in any unit. code: of the feature system, whose user modules travel with the
    function. on_done: called with each result when its group is finished.
    Returns the results in the order of their arrival, and the jobs whose workers died every time.
    Raises BitcornError for a function that cannot be sent to workers, and for a worker with another installation.
    """
    packed = pack(work, code)
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))  # a head without CPUs may wait for its workers
    groups = [[jobs[index] for index in group] for group in _balanced(sizes, cpus * GROUPS_PER_CPU)]
    results, failed = _map_groups(packed, groups, on_done)
    lost = [group for group in failed if len(group) == 1]
    if singles := [[job] for group in failed if len(group) > 1 for job in group]:
        further, lost_singles = _map_groups(packed, singles, on_done)
        results, lost = results + further, lost + lost_singles
    return results, [job for group in lost for job in group]


def _map_groups(
    packed: bytes, groups: list[list[Job]], on_done: Callable[[Result], None]
) -> tuple[list[Result], list[list[Job]]]:
    """Return the results, and the groups without results."""
    waiting, results = dict(enumerate(groups)), list[Result]()

    def run(row: dict[str, Any]) -> dict[str, Any]:
        keep_freed_memory()
        before = traffic()
        done = unpack(packed)(pickle.loads(row["jobs"]))
        return {"group": row["group"], "results": pickle.dumps((done, traffic() - before)), "refused": ""}

    def refused(reason: str, row: dict[str, Any]) -> dict[str, Any]:
        return {"group": row["group"], "results": b"", "refused": reason}

    with one_operator():
        rows = [{"group": number, "jobs": pickle.dumps(group)} for number, group in waiting.items()]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        for row in dataset.map(guarded(run, refused), max_retries=_RETRIES).iter_rows():
            if row["refused"]:
                raise BitcornError(row["refused"])
            waiting.pop(row["group"])
            done, counts = pickle.loads(row["results"])
            record_traffic(counts)
            for result in done:
                on_done(result)
                results.append(result)
    return results, list(waiting.values())


@contextmanager
def one_operator() -> Iterator[None]:
    """Let Ray Data run a dataset of one operator quietly in the block; rows that fail are missing in its output."""
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    # There is no other operator to reserve resources for.
    context.op_resource_reservation_enabled = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray has no other limit of retries yet
        yield


def _balanced(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Return indices of the jobs in at most `count` groups of about equal size, the largest first (Graham's LPT)."""
    # Ties go to the group with the fewest jobs, so that jobs of size 0 are spread as well.
    groups: list[tuple[int, int, int, list[int]]] = [(0, 0, number, []) for number in range(min(count, len(sizes)))]
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        total, jobs, number, group = heapq.heappop(groups)
        group.append(index)
        heapq.heappush(groups, (total + sizes[index], jobs + 1, number, group))
    return [group for *_, group in sorted(groups, key=lambda group: -group[0])]
