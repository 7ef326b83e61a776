"""Features through the cache: the one path that front doors and Ray workers share.

1. Cut the bars into chunks and make their keys. 2. Read the chunks that are there; compute and publish the others, each
from exactly its bars and their halo. 3. Publish the entry and link its source to it. With the cache off only the
computing remains, chunk by chunk as well, and the features are equal bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.cache.traffic import Traffic, count_traffic
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import Chunk, EntryPlan, plan_entry
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.fingerprint import CodeIdentity
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.quality import quality_report

__all__ = ["PreparedFeatures", "Source", "UpdatedEntry", "prepare", "update"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where bars came from: a database or file, the partition where it is known, and whether these are all its bars."""

    path: str | Path
    partition: Partition | None = None
    complete: bool = False


@dataclass(frozen=True, kw_only=True)
class UpdatedEntry:
    """An entry that is in the cache whole.

    computed: how many of its chunks were not there before. superseded: older links, see `FeatureCache.link`.
    """

    plan: EntryPlan
    computed: int
    superseded: list[str]


@dataclass(frozen=True, kw_only=True)
class PreparedFeatures(UpdatedEntry):
    """An entry with its content.

    columns: (T - warmup,) float32 by feature name. quality: report of the bars.
    """

    columns: dict[str, NDArray[np.float32]]
    quality: dict[str, Any]

    @property
    def hit(self) -> bool:
        """Whether all of it came out of the cache."""
        return self.computed == 0


def prepare(bars: Bars, system: FeatureSystem, cache: FeatureCache | None, source: Source | None) -> PreparedFeatures:
    """Read or compute the features of usable bars; `cache` None computes always.

    Raises BitcornError for bars and systems that cannot be computed, and where the cache cannot be written.
    """
    plan = plan_entry(bars, system, memo=cache)
    system = plan.identity.system
    out = np.empty((len(system.features), len(bars)), np.float32)
    missing = cache.read_chunks(plan, out) if cache else list(plan.chunks)
    if cache:
        _count(plan, missing)

    def take(chunk: Chunk, matrix: NDArray[np.float32]) -> None:
        out[:, chunk.start : chunk.stop] = matrix

    _compute(plan, missing, bars, cache, take)
    superseded, quality = list[str](), None
    if cache:
        superseded = _publish(plan, bars, cache, source, missing)
        quality = cache.quality(plan.key)
    if quality is None:
        quality = quality_report(bars)
        if cache:
            with _needed(bool(missing)):
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
    source: Source | None,
    code: CodeIdentity | None = None,
    plan: EntryPlan | None = None,
) -> UpdatedEntry:
    """Bring the cache up to date with bars: only chunks that are missing are computed, and none is read.

    code: of the system, as the driver identified it. plan: of these bars, where it has been made. Raises BitcornError
    as `prepare` does.
    """
    plan = plan or plan_entry(bars, system, code, memo=cache)
    missing = cache.missing_chunks(plan)
    _count(plan, missing)
    _compute(plan, missing, bars, cache, lambda chunk, matrix: None)
    return UpdatedEntry(plan=plan, computed=len(missing), superseded=_publish(plan, bars, cache, source, missing))


def _count(plan: EntryPlan, missing: list[Chunk]) -> None:
    count_traffic(Traffic(hits=len(plan.chunks) - len(missing), misses=len(missing)))


def _compute(
    plan: EntryPlan,
    chunks: list[Chunk],
    bars: Bars,
    cache: FeatureCache | None,
    take: Callable[[Chunk, NDArray[np.float32]], None],
) -> None:
    for chunk in chunks:
        needed = bars.take(slice(chunk.first, chunk.stop))
        try:
            matrix = plan.identity.system.matrix(needed)[:, chunk.start - chunk.first :]
        except BitcornError:
            bars.require_usable()  # tells of all bars, by their place among all
            raise
        take(chunk, matrix)
        if cache:
            cache.write_chunk(plan, chunk, matrix, bars)


def _publish(
    plan: EntryPlan, bars: Bars, cache: FeatureCache, source: Source | None, computed: list[Chunk]
) -> list[str]:
    """Publish the manifest where it is missing, and the link; returns the links that it supersedes."""
    with _needed(bool(computed)):
        if computed or cache.manifest(plan.key) is None:
            cache.write_entry(plan, bars)
        if not computed:
            cache.note_uses([plan.key])
        if source is not None:
            spec = plan.identity.system.spec
            return cache.link(plan.key, spec, source.path, source.partition, source.complete)
    return []


@contextmanager
def _needed(needed: bool) -> Iterator[None]:
    """Let a write fail where it is not needed: a cache that may only be read serves its hits all the same."""
    try:
        yield
    except BitcornError as error:
        if needed:
            raise
        _log.debug("a hit was not noted: %s", error)
