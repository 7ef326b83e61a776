"""Compute features through the cache, in this process or in a worker.

1. Split the bars into chunks and make their keys (`identity`).
2. Read the chunks that exist. Compute and publish the others, each from exactly its bars and their halo.
3. Publish the manifest of the entry and link the origin of the bars to it.

Without a cache only the computation remains, also chunk by chunk, so the features are equal bit for bit.
`compute_jobs` does this for many partitions of a source, and `finish_features` records what is now known of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import Chunk, EntryPlan, bar_hashes, plan_entry
from bitcorn_ray.features.plan import FeatureJob, FeaturePlan, FeatureWork, map_partitions, require_found, timed
from bitcorn_ray.features.receipts import FileReceipt, PartitionStatus, read_receipts, write_receipts
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint.code import CodeIdentity
from bitcorn_ray.logging import logger_of
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.clean import cleaning_counts
from bitcorn_ray.market.diagnosis import quality_flags, quality_report
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.sources.loading import LoadedBars
from bitcorn_ray.sources.source import require_one_file, shown_source
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
    missing = read_chunks(cache, plan, out) if cache else list(plan.chunks)
    superseded = _complete(plan, missing, bars, cache, origin, out)
    quality = cache.quality(plan.key) if cache else None
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
    missing = missing_chunks(cache, plan)
    return UpdatedEntry(
        plan=plan, computed=len(missing), superseded=_complete(plan, missing, bars, cache, origin, None)
    )


def record_entry(entry: UpdatedEntry, cache: FeatureCache) -> None:
    """Remove the entries that an entry supersedes, and bring the cache's index up to date."""
    if cache.forget(entry.superseded) or entry.computed:
        cache.refresh_index()


def read_chunks(cache: FeatureCache, plan: EntryPlan, out: NDArray[np.float32]) -> list[Chunk]:
    """Read the chunks of an entry into ``out`` (F, T); return those that are missing or damaged."""
    views = [(chunk.key, out[:, chunk.start : chunk.stop]) for chunk in plan.chunks]
    missing = cache.read_chunks(plan.identity.system.features, views)
    return [chunk for chunk in plan.chunks if chunk.key in missing]


def missing_chunks(cache: FeatureCache, plan: EntryPlan) -> list[Chunk]:
    """Return the chunks of an entry that the cache lacks; see `FeatureCache.missing_chunks`."""
    rows = {chunk.key: chunk.stop - chunk.start for chunk in plan.chunks}
    missing = cache.missing_chunks(plan.key, plan.identity.system.features, rows)
    return [chunk for chunk in plan.chunks if chunk.key in missing]


def _complete(
    plan: EntryPlan,
    missing: list[Chunk],
    bars: Bars,
    cache: FeatureCache | None,
    origin: Origin | None,
    out: NDArray[np.float32] | None,
) -> list[str]:
    """Compute the missing chunks of an entry into ``out`` (F, T) and the cache, and publish the entry.

    Returns the links that it supersedes.
    """
    for chunk in missing:
        matrix = _compute(chunk, plan.identity.system, bars)
        if out is not None:
            out[:, chunk.start : chunk.stop] = matrix
        if cache:
            own = bars.take(slice(chunk.start, chunk.stop))
            columns: dict[str, NDArray[Any]] = {"timestamp": own.timestamp} if own.timed else {}
            columns |= {"bar": bar_hashes(own), **dict(zip(plan.identity.system.features, matrix, strict=True))}
            cache.write_chunk(chunk.key, columns)
    if cache is None:
        return []
    count_traffic(hits=len(plan.chunks) - len(missing), misses=len(missing))
    with _required_if(bool(missing)):
        if missing or cache.manifest(plan.key) is None:
            cache.write_entry(plan.key, plan.manifest(bars))
        if not missing:
            cache.note_uses([plan.key])
        if origin is not None:
            return _link(plan, cache, origin)
    return []


def _compute(chunk: Chunk, system: FeatureSystem, bars: Bars) -> NDArray[np.float32]:
    """Return the features (F, rows) of a chunk, computed from exactly its bars and their halo."""
    try:
        return system.matrix(bars.take(slice(chunk.first, chunk.stop)))[:, chunk.start - chunk.first :]
    except BitcornError:
        bars.require_usable()  # names the bar by its row among all bars
        raise


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
    process = partial(_compute_partition, work=work, cache=FeatureCache(work.cache))
    return list(timed(map_partitions("features", jobs, work, process, PartitionStatus.failed)))


def _compute_partition(
    loaded: LoadedBars, path: str, fields: dict[str, Any], *, work: FeatureWork, cache: FeatureCache
) -> PartitionStatus:
    bars, partition = loaded.bars, loaded.partition
    done = update(bars, work.system, cache, Origin(shown_source(path), partition, complete=True), work.code)
    flags = quality_flags(quality_report(loaded.found, partition.timeframe, list_gaps=False))
    fields.update(bars=len(bars), chunks=len(done.plan.chunks), computed=done.computed)
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


def finish_features(
    plan: FeaturePlan, computed: Sequence[PartitionStatus], cache: FeatureCache
) -> list[PartitionStatus]:
    """Write the receipts, remove superseded entries and refresh the index of the cache.

    Returns all statuses in the order of their partitions. Raises BitcornError if files lack a requested partition.
    """
    cache.note_uses([status.key for status in plan.done])
    cache.forget([link for status in computed for link in status.superseded])
    symbols, timeframes = plan.work.symbols, plan.work.timeframes
    statuses, receipts = [*plan.done, *computed], dict(plan.receipts)
    require_one_file((Partition(status.symbol, status.timeframe), status.source) for status in statuses)
    by_file: dict[str, list[PartitionStatus]] = {}
    for status in statuses:
        by_file.setdefault(status.source, []).append(status)
    for path, of_file in by_file.items():
        before, known = plan.fingerprints.get(path), receipts.pop(path, None)
        # A file that changed while it was read gets no receipt: it is unknown which state was read.
        if before is None or plan.files[path].fingerprint() != before:
            continue
        merged = known.statuses(path) if known else {}
        merged |= {status.partition: status for status in of_file if status.error is None}
        read_whole = symbols is None and timeframes is None and not any(status.error for status in of_file)
        receipts[path] = FileReceipt.of(before, read_whole or bool(known and known.whole), merged.values())
    if receipts != read_receipts(cache, plan.source, plan.identity, plan.work.source_options):
        write_receipts(cache, plan.source, plan.identity, receipts, plan.work.source_options)
    if plan.jobs:
        cache.refresh_index()
    require_found(plan.jobs, (Partition(status.symbol, status.timeframe) for status in statuses), symbols, timeframes)
    return sorted(statuses, key=lambda status: (Partition(status.symbol, status.timeframe), status.source))
