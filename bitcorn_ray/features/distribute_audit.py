"""The look-ahead audit of a feature system over all partitions of a source, on the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.audit import AuditReport, audit
from bitcorn_ray.features.identity import system_code
from bitcorn_ray.features.jobs import FeatureJob, asked_of, asked_partitions, require_found
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint import CodeIdentity, require_same_code
from bitcorn_ray.logging import logged, logger_of
from bitcorn_ray.market.clean import cleaning_counts
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.on_ray.session import ray_session
from bitcorn_ray.sources.loading import load_partition
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import PartitionReader, opened_source, source_files

__all__ = ["PartitionAudit", "audit_jobs", "run_audit", "source_jobs"]

_log = logger_of(__name__)


@dataclass(frozen=True, kw_only=True)
class PartitionAudit:
    """What the audit of a partition gave: a report, or the error that kept it from being made.

    cleaning: what was done to the bars before, see `cleaning_counts`; None without a policy.
    """

    symbol: str
    timeframe: str
    report: AuditReport | None = None
    error: str | None = None
    seconds: float = 0.0
    cleaning: dict[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class _Work:
    system: FeatureSystem
    stored: bytes  # the system, packed before it has computed anything
    code: CodeIdentity
    symbols: tuple[str, ...] | None
    timeframes: tuple[str, ...] | None
    cuts: int
    seed: int
    reading: Reading


def source_jobs(
    source: str | Path,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> list[FeatureJob]:
    """Return a job for each partition of a source, or file of it, that is asked for.

    Raises BitcornError for a source without bars, and an unknown symbol or timeframe.
    """
    return [
        FeatureJob(path=file.address, partition=partition, size=size)
        for file, wanted in asked_partitions(source_files(source), {}, symbols, timeframes, reading)
        for partition, size in wanted
    ]


def run_audit(
    source: str | Path,
    system: FeatureSystem,
    *,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    cuts: int = 64,
    seed: int = 0,
    on_done: Callable[[PartitionAudit], None] = lambda _: None,
    address: str | None = None,
    reading: Reading | None = None,
) -> list[PartitionAudit]:
    """Audit a system on every partition of a source; see `features.audit` for what is done.

    cuts, seed: as `audit` has them. on_done: called with each result as it arrives. It runs on the Ray that this
    process is connected to, else at ``address``, else on a private one. Returns the results in the order of their
    partitions. reading: what the user says about the source, with the policy by which its bars are repaired.
    Raises BitcornError for a source without bars, and an unknown symbol or timeframe.
    """
    reading = (reading or Reading()).with_columns(system.inputs)
    jobs = source_jobs(source, symbols, timeframes, reading)
    work = _Work(
        system=system,
        stored=b"",
        code=system_code(system),
        symbols=None if symbols is None else tuple(symbols),
        timeframes=None if timeframes is None else tuple(timeframes),
        cuts=cuts,
        seed=seed,
        reading=reading,
    )
    with ray_session(address):
        from bitcorn_ray.on_ray.map import map_balanced
        from bitcorn_ray.on_ray.pickling import pack

        work = replace(work, stored=pack(system, work.code))
        sizes = [job.size for job in jobs]
        done, lost = map_balanced(partial(audit_jobs, work=work), jobs, sizes, work.code, on_done)
    for job in lost:
        named = job.label()
        error = "the worker that audited it died each time: see Ray's logs for memory or a crashing library"
        done.append(PartitionAudit(symbol=named.symbol, timeframe=named.timeframe, error=error))
        on_done(done[-1])
    require_found(jobs, (Partition(r.symbol, r.timeframe) for r in done), symbols, timeframes)
    return sorted(done, key=lambda result: Partition(result.symbol, result.timeframe))


def audit_jobs(jobs: Sequence[FeatureJob], work: _Work) -> list[PartitionAudit]:
    """Audit partitions one after another; the same in a plain process and in a worker.

    Any failure becomes the error of its partition.
    """
    return [result for job in jobs for result in _audit_file(job, work)]


def _audit_file(job: FeatureJob, work: _Work) -> list[PartitionAudit]:
    try:
        require_same_code(work.code)
        with opened_source(job.path, work.reading) as reader:
            every = asked_of(reader.partitions, work.symbols, work.timeframes)
            return [_audited(reader, partition, work) for partition in ([job.partition] if job.partition else every)]
    except Exception as error:  # reported by name in the driver
        return [_failed(job.label(), error)]


def _audited(reader: PartitionReader, partition: Partition, work: _Work) -> PartitionAudit:
    started = time.perf_counter()
    from bitcorn_ray.on_ray.pickling import unpack

    try:
        with logged(_log, "audit", partition=str(partition), system=work.system.spec):
            loaded = load_partition(reader, partition, work.reading.policy)
            step = loaded.bars.grid_step()
            untouched = unpack(work.stored).on_grid(step)
            system = work.system.on_grid(step)
            report = audit(loaded.bars, system, cuts=work.cuts, seed=work.seed, untouched=untouched)
    except Exception as error:  # one partition must not take the others with it
        return _failed(partition, error)
    seconds = time.perf_counter() - started
    return PartitionAudit(
        symbol=partition.symbol,
        timeframe=partition.timeframe,
        report=report,
        seconds=seconds,
        cleaning=None if loaded.cleaning is None else cleaning_counts(loaded.cleaning),
    )


def _failed(partition: Partition, error: Exception) -> PartitionAudit:
    text = str(error) if isinstance(error, BitcornError) else f"{type(error).__name__}: {error}"
    return PartitionAudit(symbol=partition.symbol, timeframe=partition.timeframe, error=text)
