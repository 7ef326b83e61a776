"""What is to be computed from a source, and the pure function that computes it.

1. `plan_features` compares the source with its receipt: partitions of files that have not changed, and whose entries
   are whole, are done; the others become jobs. A file that changed is a job for each of its partitions that is asked
   for.
2. `compute_jobs` does jobs one after another, in this process or in a worker: read the bars, bring the cache up to
   date. A failure of one is its status's error and leaves the others alone.
3. `finish_features` writes the receipt of what is now known, and removes what the new entries supersede.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import SystemIdentity, identify, system_code
from bitcorn_ray.features.jobs import FeatureJob, asked_of, asked_partitions
from bitcorn_ray.features.prepare import Source, update
from bitcorn_ray.features.receipts import FileReceipt, PartitionReceipt, read_receipt, whole_entries, write_receipt
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint import CodeIdentity, require_same_code
from bitcorn_ray.logging import log_failure, logged, logger_of
from bitcorn_ray.market.clean import cleaning_counts
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.quality import quality_flags, quality_report
from bitcorn_ray.sources.loading import load_partition
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import (
    PartitionReader,
    fingerprint,
    opened_source,
    shown_source,
    source_files,
)
from bitcorn_ray.storage.location import Location

__all__ = [
    "FeaturePlan",
    "FeatureWork",
    "PartitionStatus",
    "compute_jobs",
    "finish_features",
    "plan_features",
]

_log = logger_of(__name__)


@dataclass(frozen=True, kw_only=True)
class PartitionStatus:
    """What became of a partition.

    rows: of features. hit: nothing was computed; unread: nor were the bars read. chunks: of the entry; computed: of
    these, now. seconds: in the worker. flags: what is wrong with the bars. error: None where it succeeded. base: the
    stored timeframe that the bars were put together from, None where they are stored. cleaning: what was done to the
    bars, see `cleaning_counts`; None without a policy.
    """

    symbol: str
    timeframe: str
    source: str
    rows: int = 0
    hit: bool = False
    unread: bool = False
    chunks: int = 0
    computed: int = 0
    seconds: float = 0.0
    flags: str = ""
    key: str = ""
    error: str | None = None
    superseded: tuple[str, ...] = ()
    base: str | None = None
    cleaning: dict[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureWork:
    """What all jobs share.

    code: the system's, as the driver identified it. cache: its address. symbols, timeframes: what is asked for.
    reading: how the source is to be read.
    """

    system: FeatureSystem
    code: CodeIdentity
    cache: str
    symbols: tuple[str, ...] | None
    timeframes: tuple[str, ...] | None
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True, kw_only=True)
class FeaturePlan:
    """Jobs that are left, and what is done without them. fingerprints: of the files, before any was read."""

    source: str
    work: FeatureWork
    identity: SystemIdentity
    jobs: list[FeatureJob]
    done: list[PartitionStatus]
    fingerprints: dict[str, str]
    receipts: dict[str, FileReceipt] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()  # files of which all partitions are asked for
    places: dict[str, Location] = field(default_factory=dict)  # of all files, by what is shown of them


def plan_features(
    source: str | Path,
    system: FeatureSystem,
    cache: FeatureCache,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> FeaturePlan:
    """Find out what is to be done; reads receipts and the names of partitions, no bars.

    symbols, timeframes: only these, in any spelling. reading: what the user says about the source.
    Raises BitcornError for a source without bars, an unknown symbol or timeframe, and a system that is refused.
    """
    root, files = shown_source(source), source_files(source)
    reading = (reading or Reading()).with_columns(system.inputs)
    code = system_code(system, cache)
    identity = identify(system, code)
    work = FeatureWork(
        system=system,
        code=code,
        cache=cache.storage.address,
        symbols=None if symbols is None else tuple(symbols),
        timeframes=None if timeframes is None else tuple(timeframes),
        reading=reading,
    )
    prints = {file.place.shown: text for file in files if (text := fingerprint(file.place))}
    receipts = {
        path: receipt
        for path, receipt in read_receipt(cache, root, identity, reading).items()
        if prints.get(path) == receipt.fingerprint
    }
    there = whole_entries(cache, (p.key for receipt in receipts.values() for p in receipt.partitions))
    done, jobs = list[PartitionStatus](), list[FeatureJob]()
    asked_all = symbols is None and timeframes is None
    for file, wanted in asked_partitions(files, receipts, symbols, timeframes, reading):
        known = {p.partition: p for p in receipts[file.place.shown].partitions} if file.place.shown in receipts else {}
        for partition, size in wanted:
            receipt = known.get(partition) if partition else None
            if receipt is not None and receipt.key in there:
                done.append(_unread(receipt, file.place.shown))
            else:
                jobs.append(FeatureJob(path=file.address, partition=partition, size=size))
    return FeaturePlan(
        source=root,
        work=work,
        identity=identity,
        jobs=jobs,
        done=done,
        fingerprints=prints,
        receipts=receipts,
        whole=frozenset(file.place.shown for file in files) if asked_all else frozenset(),
        places={file.place.shown: file.place for file in files},
    )


def compute_jobs(jobs: Iterable[FeatureJob], work: FeatureWork) -> list[PartitionStatus]:
    """Do jobs one after another, each file opened once; the same in a plain process and in a worker."""
    jobs = list(jobs)
    try:
        require_same_code(work.code)
    except BitcornError as error:
        return [_failed(job.label(), job.path, error) for job in _logged_failures(jobs, error)]
    cache = FeatureCache(work.cache)
    statuses = list[PartitionStatus]()
    for path, of_file in groupby(sorted(jobs, key=lambda job: job.path), key=lambda job: job.path):
        statuses += _compute_file(path, list(of_file), work, cache)
    return statuses


def finish_features(
    plan: FeaturePlan, computed: Sequence[PartitionStatus], cache: FeatureCache
) -> list[PartitionStatus]:
    """Write the receipt and remove what is superseded; returns all statuses in the order of their partitions."""
    cache.note_uses([status.key for status in plan.done])
    cache.forget([link for status in computed for link in status.superseded])
    everything = [*plan.done, *computed]
    receipts = dict(plan.receipts)
    by_file: dict[str, list[PartitionStatus]] = {}
    for status in everything:
        by_file.setdefault(status.source, []).append(status)
    for path, statuses in by_file.items():
        print_before = plan.fingerprints.get(path)
        # A file that changed while it was read has no receipt: no one knows which state was seen.
        if print_before is None or fingerprint(plan.places[path]) != print_before:
            receipts.pop(path, None)
            continue
        kept = receipts[path].partitions if path in receipts else ()
        fresh = {status_receipt.partition: status_receipt for status_receipt in _receipts(statuses)}
        merged = {**{receipt.partition: receipt for receipt in kept}, **fresh}
        whole = (path in plan.whole and not any(s.error for s in statuses)) or (
            path in receipts and receipts[path].whole
        )
        receipts[path] = FileReceipt(fingerprint=print_before, whole=whole, partitions=tuple(merged.values()))
    if receipts != read_receipt(cache, plan.source, plan.identity, plan.work.reading):
        write_receipt(cache, plan.source, plan.identity, receipts, plan.work.reading)
    return sorted(everything, key=lambda status: (Partition(status.symbol, status.timeframe), status.source))


def _compute_file(
    path: str, jobs: list[FeatureJob], work: FeatureWork, cache: FeatureCache
) -> Iterator[PartitionStatus]:
    started, left = time.perf_counter(), list(jobs)
    try:
        with opened_source(path, work.reading) as reader:
            while left:
                job = left[0]
                asked = [job.partition] if job.partition else None
                for partition in asked or asked_of(reader.partitions, work.symbols, work.timeframes):
                    yield replace(_compute(reader, partition, path, work, cache), seconds=time.perf_counter() - started)
                    started = time.perf_counter()
                left.pop(0)
    except Exception as error:  # reported by name in the driver
        for job in _logged_failures(left, error):
            yield _failed(job.label(), path, error)


def _compute(
    reader: PartitionReader, partition: Partition, path: str, work: FeatureWork, cache: FeatureCache
) -> PartitionStatus:
    try:
        with logged(_log, "features", partition=str(partition), system=work.system.spec) as found:
            loaded = load_partition(reader, partition, work.reading.policy)
            bars, partition = loaded.bars, loaded.partition
            done = update(bars, work.system, cache, Source(shown_source(path), partition, complete=True), work.code)
            flags = quality_flags(quality_report(loaded.found, partition.timeframe, list_gaps=False))
            found.update(bars=len(bars), chunks=len(done.plan.chunks), computed=done.computed)
    except Exception as error:  # one partition must not take the others with it
        return _failed(partition, path, error)
    return PartitionStatus(
        symbol=partition.symbol,
        timeframe=partition.timeframe,
        source=shown_source(path),
        rows=len(bars) - done.plan.identity.system.warmup_bars,
        hit=done.computed == 0,
        chunks=len(done.plan.chunks),
        computed=done.computed,
        flags=", ".join(flags),
        key=done.plan.key,
        superseded=tuple(done.superseded),
        base=partition.base,
        cleaning=None if loaded.cleaning is None else cleaning_counts(loaded.cleaning),
    )


def _logged_failures(jobs: Iterable[FeatureJob], error: Exception) -> Iterator[FeatureJob]:
    """Yield jobs that failed together, each logged."""
    for job in jobs:
        log_failure(_log, "features", error, partition=str(job.label()))
        yield job


def _failed(partition: Partition, path: str, error: Exception) -> PartitionStatus:
    text = str(error) if isinstance(error, BitcornError) else f"{type(error).__name__}: {error}"
    return PartitionStatus(
        symbol=partition.symbol, timeframe=partition.timeframe, source=shown_source(path), error=text
    )


def _unread(receipt: PartitionReceipt, path: str) -> PartitionStatus:
    return PartitionStatus(
        symbol=receipt.symbol,
        timeframe=receipt.timeframe,
        source=path,
        rows=receipt.rows,
        hit=True,
        unread=True,
        flags=receipt.flags,
        key=receipt.key,
        base=receipt.base,
        cleaning=receipt.cleaning,
    )


def _receipts(statuses: Iterable[PartitionStatus]) -> Iterator[PartitionReceipt]:
    for status in statuses:
        if status.error is None:
            yield PartitionReceipt(
                symbol=status.symbol,
                timeframe=status.timeframe,
                key=status.key,
                rows=status.rows,
                flags=status.flags,
                base=status.base,
                cleaning=status.cleaning,
            )
