"""Features of many partitions over a cluster: a plan, a list of jobs, one pure function, a thin map."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bitcorn_ray.cache.jobs import require_found
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.cache.workplan import FeaturePlan, PartitionStatus, compute_jobs, finish_features
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.source import shown_source
from bitcorn_ray.on_ray.session import ray_session

__all__ = ["run_features"]


def run_features(
    plan: FeaturePlan,
    cache: FeatureCache,
    on_done: Callable[[PartitionStatus], None] = lambda _: None,
    address: str | None = None,
) -> list[PartitionStatus]:
    """Do what a plan leaves to do, over the cluster by Ray Data; without jobs, Ray is not even started.

    It runs on the Ray that this process is connected to, else at ``address``, else on a private one.
    on_done: called with each partition's status as it arrives. Returns all statuses in the order of their partitions.
    Raises BitcornError for a cache that cannot be written, and where files do not hold what was asked for.
    """
    for status in plan.done:
        on_done(status)
    computed: list[PartitionStatus] = []
    if plan.jobs:
        cache.require_writable()  # says now, and not after hours
        with ray_session(address):
            from bitcorn_ray.on_ray.balanced import map_balanced

            sizes, work = [job.size for job in plan.jobs], partial(compute_jobs, work=plan.work)
            computed, lost = map_balanced(work, plan.jobs, sizes, plan.work.code, on_done)
        for job in lost:
            error = "the worker that computed it died each time: see Ray's logs for memory or a crashing library"
            named = job.label()
            status = PartitionStatus(
                symbol=named.symbol, timeframe=named.timeframe, source=shown_source(job.path), error=error
            )
            on_done(status)
            computed.append(status)
    statuses = finish_features(plan, computed, cache)
    if plan.jobs:
        cache.refresh_index()
    require_found(
        plan.jobs, (Partition(s.symbol, s.timeframe) for s in statuses), plan.work.symbols, plan.work.timeframes
    )
    return statuses
