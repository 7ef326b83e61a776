"""Compute features through the cache, in this process or in a worker.

1. Split the bars into chunks and make their keys (`identity`).
2. Read the chunks that exist. Compute and publish the others, each from exactly its bars and their halo.
3. Publish the manifest of the entry and link the origin of the bars to it.

Without a cache only the computation remains, also chunk by chunk, so the features are equal bit for bit.
`compute_jobs` does this for many partitions of a source, and `finish_features` records what is now known of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import Chunk, EntryPlan, bar_hashes, plan_entry
from bitcorn_ray.features.plan import FeatureJob, FeaturePlan, FeatureWork
from bitcorn_ray.features.receipts import FileReceipt, PartitionStatus, read_receipts, write_receipts
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint.code import CodeIdentity, require_same_code
from bitcorn_ray.logging import log_failure, logged, logger_of
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.clean import cleaning_counts
from bitcorn_ray.market.diagnosis import quality_flags, quality_report
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.sources.loading import load_partition
from bitcorn_ray.sources.reader import PartitionReader
from bitcorn_ray.sources.source import open_file, shown_source
from bitcorn_ray.storage.traffic import count_traffic

_log = logger_of(__name__)


@dataclass(frozen=True)
class Origin:
    """Where bars come from. complete: they are all bars of the partition in the database or file."""

    path: str | Path
    partition: Partition | None = None
    complete: bool = False


@dataclass(frozen=True, kw_only=True)
class UpdatedEntry:
    """An entry that is whole in the cache.

    computed: number of chunks that were missing before. superseded: older links, for `FeatureCache.forget`.
    """

    plan: EntryPlan
    computed: int
    superseded: list[str]


@dataclass(frozen=True, kw_only=True)
class PreparedFeatures(UpdatedEntry):
    """An entry with its features. columns: (T - warmup,) float32 by feature name. quality: report of the bars."""

    columns: dict[str, NDArray[np.float32]]
    quality: dict[str, Any]

    @property
    def hit(self) -> bool:
        """Return True if all features came from the cache."""
        return self.computed == 0


def prepare(bars: Bars, system: FeatureSystem, cache: FeatureCache | None, origin: Origin | None) -> PreparedFeatures:
    """Return the features of usable bars, read from the cache or computed; without a cache always computed.

    Raises BitcornError for bars and systems that cannot be computed, and if the cache cannot be written.
    """
    plan = plan_entry(bars, system, memo=cache)
    system = plan.identity.system
    out = np.empty((len(system.features), len(bars)), np.float32)
    missing = list(plan.chunks)
    if cache:
        missing = read_chunks(cache, plan, out)
        _count(plan, missing)
    _compute(plan, missing, bars, cache, out)
    superseded, quality = list[str](), None
    if cache:
        superseded = _publish(plan, bars, cache, origin, missing)
        quality = cache.quality(plan.key)
    if quality is None:
        quality = quality_report(bars)
        if cache:
            with _required_if(bool(missing)):
                cache.write_quality(plan.key, quality)
    return PreparedFeatures(
        plan=plan,
        computed=len(missing),
        superseded=superseded,
        columns=dict(zip(system.features, out[:, system.warmup_bars :], strict=True)),
        quality=quality,
    )


def update(
    bars: Bars,
    system: FeatureSystem,
    cache: FeatureCache,
    origin: Origin | None,
    code: CodeIdentity | None = None,
    plan: EntryPlan | None = None,
) -> UpdatedEntry:
    """Compute the chunks of bars that the cache lacks; existing chunks are not read.

    code: of the system, as the driver identified it. plan: of these bars, if it has been made. Raises BitcornError as
    `prepare` does.
    """
    plan = plan or plan_entry(bars, system, code, memo=cache)
    rows = {chunk.key: chunk.stop - chunk.start for chunk in plan.chunks}
    keys = cache.missing_chunks(plan.key, plan.identity.system.features, rows)
    missing = [chunk for chunk in plan.chunks if chunk.key in keys]
    _count(plan, missing)
    _compute(plan, missing, bars, cache, None)
    return UpdatedEntry(plan=plan, computed=len(missing), superseded=_publish(plan, bars, cache, origin, missing))


def record_entry(entry: UpdatedEntry, cache: FeatureCache, origin: Origin | None) -> None:
    """Remove the entries that an entry supersedes, and add it to the cache's index if it is new."""
    partition = origin.partition if origin else None
    names = (partition.symbol, partition.timeframe) if partition else (None, None)
    if entry.computed:
        cache.add_to_index(entry.plan.key, origin.path if origin else None, *names)
    if cache.forget(entry.superseded):
        cache.refresh_index()


def read_chunks(cache: FeatureCache, plan: EntryPlan, out: NDArray[np.float32]) -> list[Chunk]:
    """Read the chunks of an entry into ``out`` (F, T); return those that are missing or damaged."""
    views = [(chunk.key, out[:, chunk.start : chunk.stop]) for chunk in plan.chunks]
    missing = cache.read_chunks(plan.identity.system.features, views)
    return [chunk for chunk in plan.chunks if chunk.key in missing]


def _count(plan: EntryPlan, missing: list[Chunk]) -> None:
    count_traffic(hits=len(plan.chunks) - len(missing), misses=len(missing))


def _compute(
    plan: EntryPlan, chunks: list[Chunk], bars: Bars, cache: FeatureCache | None, out: NDArray[np.float32] | None
) -> None:
    """Compute chunks, each from its bars and their halo, into ``out`` (F, T) and the cache."""
    system = plan.identity.system
    for chunk in chunks:
        try:
            matrix = system.matrix(bars.take(slice(chunk.first, chunk.stop)))[:, chunk.start - chunk.first :]
        except BitcornError:
            bars.require_usable()  # names the bar by its row among all bars
            raise
        if out is not None:
            out[:, chunk.start : chunk.stop] = matrix
        if cache:
            own = bars.take(slice(chunk.start, chunk.stop))
            columns: dict[str, NDArray[Any]] = {"timestamp": own.timestamp} if own.timed else {}
            columns["bar"] = bar_hashes(own)
            cache.write_chunk(chunk.key, columns | dict(zip(system.features, matrix, strict=True)))


def _publish(
    plan: EntryPlan, bars: Bars, cache: FeatureCache, origin: Origin | None, computed: list[Chunk]
) -> list[str]:
    """Publish the manifest, if it is missing, and the link; return the links that it supersedes."""
    with _required_if(bool(computed)):
        if computed or cache.manifest(plan.key) is None:
            cache.write_entry(plan.key, plan.manifest(bars))
        if not computed:
            cache.note_uses([plan.key])
        if origin is not None:
            return _link(plan, cache, origin)
    return []


def _link(plan: EntryPlan, cache: FeatureCache, origin: Origin) -> list[str]:
    spec, partition = plan.identity.system.spec, origin.partition
    names = [normalise_symbol(partition.symbol), partition.timeframe] if partition else []
    record = {
        "symbol": partition.symbol if partition else None,
        "timeframe": partition.timeframe if partition else None,
        "system": spec,
    }
    return cache.link(plan.key, origin.path, json.dumps([*names, spec]), record, origin.complete)


@contextmanager
def _required_if(required: bool) -> Iterator[None]:
    """Ignore write errors on a cache hit, so that a read-only cache still works."""
    try:
        yield
    except BitcornError as error:
        if required:
            raise
        _log.debug("a cache hit was not recorded: %s", error)


# Partitions of a source


def compute_jobs(jobs: Iterable[FeatureJob], work: FeatureWork) -> list[PartitionStatus]:
    """Bring the cache up to date for jobs, each file opened once; the same in a plain process and in a worker.

    A failure becomes the error of its status and does not stop the other jobs.
    """
    jobs = sorted(jobs, key=lambda job: job.path)
    try:
        require_same_code(work.code)
    except BitcornError as error:
        return _all_failed(jobs, error)
    cache = FeatureCache(work.cache)
    files = [(path, list(of_file)) for path, of_file in groupby(jobs, key=lambda job: job.path)]
    return [status for path, of_file in files for status in _compute_file(path, of_file, work, cache)]


def _compute_file(
    path: str, jobs: list[FeatureJob], work: FeatureWork, cache: FeatureCache
) -> Iterator[PartitionStatus]:
    started, left = time.perf_counter(), list(jobs)
    try:
        with open_file(path, work.reading) as reader:
            while left:
                partitions = [left[0].partition] if left[0].partition else work.requested(reader.partitions)
                for partition in partitions:
                    status = _compute_partition(reader, partition, path, work, cache)
                    yield replace(status, seconds=time.perf_counter() - started)
                    started = time.perf_counter()
                left.pop(0)
    except Exception as error:  # reported by partition in the driver
        yield from _all_failed(left, error)


def _compute_partition(
    reader: PartitionReader, partition: Partition, path: str, work: FeatureWork, cache: FeatureCache
) -> PartitionStatus:
    try:
        with logged(_log, "features", partition=str(partition), system=work.system.spec) as fields:
            loaded = load_partition(reader, partition, work.reading.policy)
            bars, partition = loaded.bars, loaded.partition
            origin = Origin(shown_source(path), partition, complete=True)
            done = update(bars, work.system, cache, origin, work.code)
            flags = quality_flags(quality_report(loaded.found, partition.timeframe, list_gaps=False))
            fields.update(bars=len(bars), chunks=len(done.plan.chunks), computed=done.computed)
    except Exception as error:  # one partition must not stop the others
        return PartitionStatus.failed(partition, path, error)
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


def _all_failed(jobs: Iterable[FeatureJob], error: Exception) -> list[PartitionStatus]:
    for job in jobs:
        log_failure(_log, "features", error, partition=str(job.label()))
    return [PartitionStatus.failed(job.label(), job.path, error) for job in jobs]


def finish_features(
    plan: FeaturePlan, computed: Sequence[PartitionStatus], cache: FeatureCache
) -> list[PartitionStatus]:
    """Write the receipts and remove superseded entries; return all statuses in the order of their partitions."""
    cache.note_uses([status.key for status in plan.done])
    cache.forget([link for status in computed for link in status.superseded])
    statuses = [*plan.done, *computed]
    receipts = dict(plan.receipts)
    by_file: dict[str, list[PartitionStatus]] = {}
    for status in statuses:
        by_file.setdefault(status.source, []).append(status)
    for path, of_file in by_file.items():
        before = plan.fingerprints.get(path)
        # A file that changed while it was read gets no receipt: it is unknown which state was read.
        if before is None or plan.files[path].fingerprint() != before:
            receipts.pop(path, None)
            continue
        known = receipts.get(path)
        merged = {receipt.partition: receipt for receipt in known.partitions} if known else {}
        merged |= {status.partition: status for status in of_file if status.error is None}
        whole = path in plan.whole and not any(status.error for status in of_file)
        receipts[path] = FileReceipt.of(before, whole or bool(known and known.whole), merged.values())
    if receipts != read_receipts(cache, plan.source, plan.identity, plan.work.reading):
        write_receipts(cache, plan.source, plan.identity, receipts, plan.work.reading)
    return sorted(statuses, key=lambda status: (Partition(status.symbol, status.timeframe), status.source))
