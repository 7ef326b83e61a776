"""Features and look-ahead audits of many partitions, distributed with Ray: a plan, a list of jobs, a thin map."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bitcorn_ray.cache.store import FeatureCache, open_cache
from bitcorn_ray.features.audit import AuditReport, audit
from bitcorn_ray.features.compute import compute_jobs, finish_features
from bitcorn_ray.features.identity import system_code
from bitcorn_ray.features.plan import (
    FeatureJob,
    FeaturePlan,
    plan_features,
    requested_of,
    requested_partitions,
    require_found,
)
from bitcorn_ray.features.receipts import PartitionStatus, error_text
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint.code import CodeIdentity, require_same_code
from bitcorn_ray.logging import logged, logger_of
from bitcorn_ray.market.clean import cleaning_counts
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.on_ray.monitoring import record_partition
from bitcorn_ray.on_ray.session import ray_session
from bitcorn_ray.sources.loading import load_partition
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.reader import PartitionReader
from bitcorn_ray.sources.source import open_file, open_source

Result = TypeVar("Result")

_WORKER_DIED = "its worker died on every attempt: see Ray's logs for memory or a crashing library"
_log = logger_of(__name__)


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
) -> list[PartitionStatus]:
    """Bring the features of every partition of a source into the cache, in parallel on Ray.

    source: a SQLite database, a file of bars, or a folder or URI of such files. A file that has not changed since it
    was last computed is not read. If nothing has changed, Ray is not started.
    It runs on the Ray that this process is connected to, else at ``address``, else on a private one that ends with the
    call. symbols, timeframes: only these, in any spelling. system: its name, `module:function`, or the system itself.
    table, mapping, policy: as in `load_market_data`; each result counts what was cleaned. on_plan: called with the plan
    before Ray is started. on_done: called with each result as it arrives.
    A partition that fails has its reason in `error` and does not stop the others.
    Raises BitcornError for what makes all fail: no source, an unknown symbol, timeframe or system, a cache that cannot
    be written.
    """
    cache = open_cache(cache_dir)
    reading = Reading.of(table, mapping, policy=policy)
    plan = plan_features(source, find_system(system), cache, symbols, timeframes, reading)
    if plan.jobs:
        cache.require_writable()  # fail now, not after hours
    on_plan(plan)
    return run_features(plan, cache, on_done, address)


def run_features(
    plan: FeaturePlan,
    cache: FeatureCache,
    on_done: Callable[[PartitionStatus], None] = lambda _: None,
    address: str | None = None,
) -> list[PartitionStatus]:
    """Run the jobs of a plan on Ray, see `compute_features`; return all statuses in the order of their partitions.

    Raises BitcornError for a cache that cannot be written, and if files lack a requested partition.
    """

    def record(status: PartitionStatus) -> None:
        record_partition(plan.work.system.spec, status)
        on_done(status)

    with ray_session(address) if plan.jobs else nullcontext():
        for status in plan.done:
            record(status)
        computed = list[PartitionStatus]()
        if plan.jobs:
            computed = _map_jobs(
                partial(compute_jobs, work=plan.work),
                plan.jobs,
                plan.work.code,
                record,
                lambda job: PartitionStatus.failed(job.label(), job.path, _WORKER_DIED),
            )
    statuses = finish_features(plan, computed, cache)
    if plan.jobs:
        cache.refresh_index()
    found = (Partition(status.symbol, status.timeframe) for status in statuses)
    require_found(plan.jobs, found, plan.work.symbols, plan.work.timeframes)
    return statuses


def _map_jobs(
    work: Callable[[list[FeatureJob]], list[Result]],
    jobs: list[FeatureJob],
    code: CodeIdentity,
    on_done: Callable[[Result], None],
    lost: Callable[[FeatureJob], Result],
) -> list[Result]:
    """Map a function over jobs on Ray. lost: makes the result of a job whose worker died on every attempt."""
    from bitcorn_ray.on_ray.map import map_balanced

    results, lost_jobs = map_balanced(work, jobs, [job.size for job in jobs], code, on_done)
    for result in map(lost, lost_jobs):
        results.append(result)
        on_done(result)
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


@dataclass(frozen=True, kw_only=True)
class _AuditWork:
    """What all audit jobs share. packed: the system, for a copy that has computed nothing."""

    system: FeatureSystem
    code: CodeIdentity
    symbols: tuple[str, ...] | None
    timeframes: tuple[str, ...] | None
    cuts: int
    seed: int
    reading: Reading
    packed: bytes = b""


def audit_jobs_of(
    source: str | Path,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> list[FeatureJob]:
    """Return the requested partitions of a source as jobs.

    Raises BitcornError for a source without bars, and for an unknown symbol or timeframe.
    """
    requested = requested_partitions(open_source(source, reading), {}, symbols, timeframes)
    return [
        FeatureJob(path=file.address, partition=partition, size=size)
        for file, of_file in requested
        for partition, size in of_file
    ]


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
    reading: Reading | None = None,
) -> list[PartitionAudit]:
    """Audit a feature system on every partition of a source, see `audit.audit`, in parallel on Ray.

    Options are as in `compute_features`. Returns the audits in the order of their partitions.
    Raises BitcornError for what makes all fail: no source, an unknown symbol or timeframe, code without identity.
    """
    from bitcorn_ray.on_ray.pickling import pack

    reading = (reading or Reading()).with_columns(system.inputs)
    jobs = audit_jobs_of(source, symbols, timeframes, reading)
    work = _AuditWork(
        system=system,
        code=system_code(system),
        symbols=None if symbols is None else tuple(symbols),
        timeframes=None if timeframes is None else tuple(timeframes),
        cuts=cuts,
        seed=seed,
        reading=reading,
    )
    with ray_session(address):
        work = replace(work, packed=pack(system, work.code))
        audits = _map_jobs(
            partial(_audit_jobs, work=work),
            jobs,
            work.code,
            on_done,
            lambda job: _failed_audit(job.label(), _WORKER_DIED),
        )
    require_found(jobs, (Partition(done.symbol, done.timeframe) for done in audits), symbols, timeframes)
    return sorted(audits, key=lambda done: Partition(done.symbol, done.timeframe))


def _audit_jobs(jobs: Iterable[FeatureJob], work: _AuditWork) -> list[PartitionAudit]:
    return [result for job in jobs for result in _audit_file(job, work)]


def _audit_file(job: FeatureJob, work: _AuditWork) -> list[PartitionAudit]:
    try:
        require_same_code(work.code)
        with open_file(job.path, work.reading) as reader:
            if job.partition:
                return [_audit_partition(reader, job.partition, work)]
            partitions = requested_of(reader.partitions, work.symbols, work.timeframes)
            return [_audit_partition(reader, partition, work) for partition in partitions]
    except Exception as error:  # reported by partition in the driver
        return [_failed_audit(job.label(), error_text(error))]


def _audit_partition(reader: PartitionReader, partition: Partition, work: _AuditWork) -> PartitionAudit:
    from bitcorn_ray.on_ray.pickling import unpack

    started = time.perf_counter()
    try:
        with logged(_log, "audit", partition=str(partition), system=work.system.spec):
            loaded = load_partition(reader, partition, work.reading.policy)
            step = loaded.bars.grid_step()
            fresh: Any = unpack(work.packed)
            report = audit(
                loaded.bars, work.system.on_grid(step), cuts=work.cuts, seed=work.seed, fresh=fresh.on_grid(step)
            )
    except Exception as error:  # one partition must not stop the others
        return _failed_audit(partition, error_text(error))
    return PartitionAudit(
        symbol=partition.symbol,
        timeframe=partition.timeframe,
        report=report,
        seconds=time.perf_counter() - started,
        cleaning=None if loaded.cleaning is None else cleaning_counts(loaded.cleaning),
    )


def _failed_audit(partition: Partition, error: str) -> PartitionAudit:
    return PartitionAudit(symbol=partition.symbol, timeframe=partition.timeframe, error=error)
