"""Features and look-ahead audits of many partitions, distributed with Ray: a plan, a list of jobs, a thin map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.features.audit import AuditReport, audit
from bitcorn_ray.features.compute import compute_jobs, finish_features
from bitcorn_ray.features.plan import (
    FeatureJob,
    FeaturePlan,
    FeatureWork,
    map_partitions,
    plan_features,
    requested_jobs,
    require_found,
    timed,
)
from bitcorn_ray.features.receipts import PartitionStatus, error_text
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint.code import CodeIdentity
from bitcorn_ray.market.clean import cleaning_counts
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.on_ray.monitoring import record_partition
from bitcorn_ray.on_ray.session import ray_session
from bitcorn_ray.sources.loading import LoadedBars
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import open_source

Result = TypeVar("Result")

_WORKER_DIED = "its worker died on every attempt: see Ray's logs for memory or a crashing library"


def compute_features(
    source: str | Path,
    *,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    system: str | FeatureSystem = "v2",
    cache_dir: Path | str | None = None,
    address: str | None = None,
    on_plan: Callable[[FeaturePlan], None] = lambda _: None,
    on_done: Callable[[PartitionStatus], None] = lambda _: None,
    table: str | None = None,
    mapping: Mapping[str, str] | Sequence[str] = (),
    policy: CleaningPolicy | None = None,
    time_format: str | None = None,
    timezone: str | None = None,
) -> list[PartitionStatus]:
    """Bring the features of every partition of a source into the cache, in parallel on Ray.

    source: a SQLite database, a file of bars, or a folder or URI of such files. A file that has not changed since it
    was last computed is not read. If nothing has changed, Ray is not started.
    It runs on the Ray that this process is connected to, else at ``address``, else on a private one that ends with the
    call. symbols, timeframes: only these, in any spelling. system: its name, `module:function`, or the system itself.
    table, mapping, policy, time_format, timezone: as in `load_market_data`; each result counts what was cleaned.
    on_plan: called with the plan before Ray is started. on_done: called with each result as it arrives.
    A partition that fails has its reason in `error` and does not stop the others.
    Raises BitcornError for what makes all fail: no source, an unknown symbol, timeframe or system, a cache that cannot
    be written.
    """
    cache = open_cache(cache_dir)
    source_options = SourceOptions.of(table, mapping, policy=policy, time_format=time_format, timezone=timezone)
    plan = plan_features(source, find_system(system), cache, symbols, timeframes, source_options)
    if plan.jobs:
        cache.storage.require_writable()  # fail now, not after hours
    on_plan(plan)

    def record(status: PartitionStatus) -> None:
        record_partition(plan.work.system.spec, status)
        on_done(status)

    computed = list[PartitionStatus]()
    with ray_session(address) if plan.jobs else nullcontext():
        for status in plan.done:
            record(status)
        if plan.jobs:
            work = partial(compute_jobs, work=plan.work)
            computed = _map_jobs(work, plan.jobs, plan.work.code, record, PartitionStatus.failed)
    return finish_features(plan, computed, cache)


def _map_jobs(
    work: Callable[[list[FeatureJob]], list[Result]],
    jobs: list[FeatureJob],
    code: CodeIdentity,
    on_done: Callable[[Result], None],
    failed: Callable[[Partition, str, str], Result],
) -> list[Result]:
    """Map a function over jobs on Ray. failed: as in `map_partitions`, for jobs whose worker died on every attempt."""
    from bitcorn_ray.on_ray.map import map_balanced

    results, lost = map_balanced(work, jobs, [job.size for job in jobs], code, on_done)
    for job in lost:
        results.append(failed(job.label(), job.path, _WORKER_DIED))
        on_done(results[-1])
    return results


# Audits


@dataclass(frozen=True, kw_only=True)
class PartitionAudit:
    """Audit of one partition. error: why it was not audited. cleaning: as in `PartitionStatus`."""

    symbol: str
    timeframe: str
    report: AuditReport | None = None
    error: str | None = None
    seconds: float = 0.0
    cleaning: dict[str, int] | None = None


def run_audit(
    source: str | Path,
    system: FeatureSystem,
    *,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    cuts: int = 64,
    seed: int = 0,
    address: str | None = None,
    on_done: Callable[[PartitionAudit], None] = lambda _: None,
    source_options: SourceOptions | None = None,
) -> list[PartitionAudit]:
    """Audit a feature system on every partition of a source, see `audit.audit`, in parallel on Ray.

    Options are as in `compute_features`. Returns the audits in the order of their partitions.
    Raises BitcornError for what makes all fail: no source, an unknown symbol or timeframe, code without identity.
    """
    from bitcorn_ray.on_ray.pickling import pack

    work = FeatureWork.of(system, symbols, timeframes, source_options)
    jobs = requested_jobs(open_source(source, work.source_options), symbols, timeframes)
    with ray_session(address):
        audit_jobs = partial(_audit_jobs, work=work, cuts=cuts, seed=seed, packed=pack(system, work.code))
        audits = _map_jobs(audit_jobs, jobs, work.code, on_done, _failed_audit)
    require_found(jobs, (Partition(done.symbol, done.timeframe) for done in audits), symbols, timeframes)
    return sorted(audits, key=lambda done: Partition(done.symbol, done.timeframe))


def _audit_jobs(
    jobs: Iterable[FeatureJob], work: FeatureWork, cuts: int, seed: int, packed: bytes
) -> list[PartitionAudit]:
    """Audit the partitions of jobs. packed: the system, for copies that have computed nothing."""
    from bitcorn_ray.on_ray.pickling import unpack

    def process(loaded: LoadedBars, path: str, fields: dict[str, Any]) -> PartitionAudit:
        system, fresh = (copy.on_grid(loaded.bars.grid_step()) for copy in (work.system, unpack(packed)))
        return PartitionAudit(
            symbol=loaded.partition.symbol,
            timeframe=loaded.partition.timeframe,
            report=audit(loaded.bars, system, cuts=cuts, seed=seed, fresh=fresh),
            cleaning=None if loaded.cleaning is None else cleaning_counts(loaded.cleaning),
        )

    return list(timed(map_partitions("audit", jobs, work, process, _failed_audit)))


def _failed_audit(partition: Partition, path: str, error: Exception | str) -> PartitionAudit:
    return PartitionAudit(symbol=partition.symbol, timeframe=partition.timeframe, error=error_text(error))
