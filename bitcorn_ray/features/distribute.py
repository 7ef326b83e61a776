"""Features of many partitions over a cluster: a plan, a list of jobs, one pure function, a thin map."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features.jobs import FeatureJob, require_found
from bitcorn_ray.features.plan import FeaturePlan, PartitionStatus, compute_jobs, finish_features
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.on_ray.monitoring import record_partition
from bitcorn_ray.on_ray.session import ray_session
from bitcorn_ray.sources.source import shown_source

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

    def told(status: PartitionStatus) -> None:
        record_partition(plan.work.system.spec, status)
        on_done(status)

    if plan.jobs:
        cache.require_writable()  # says now, and not after hours
    with ray_session(address) if plan.jobs else nullcontext():
        for status in plan.done:
            told(status)
        computed = _computed(plan, told) if plan.jobs else []
    statuses = finish_features(plan, computed, cache)
    if plan.jobs:
        cache.refresh_index()
    require_found(
        plan.jobs, (Partition(s.symbol, s.timeframe) for s in statuses), plan.work.symbols, plan.work.timeframes
    )
    return statuses


def _computed(plan: FeaturePlan, told: Callable[[PartitionStatus], None]) -> list[PartitionStatus]:
    """Do the jobs of a plan; those whose workers died each time are failures."""
    from bitcorn_ray.on_ray.map import map_balanced

    sizes, work = [job.size for job in plan.jobs], partial(compute_jobs, work=plan.work)
    computed, lost = map_balanced(work, plan.jobs, sizes, plan.work.code, told)
    for status in map(_died, lost):
        told(status)
        computed.append(status)
    return computed


def _died(job: FeatureJob) -> PartitionStatus:
    named = job.label()
    error = "the worker that computed it died each time: see Ray's logs for memory or a crashing library"
    return PartitionStatus(symbol=named.symbol, timeframe=named.timeframe, source=shown_source(job.path), error=error)
