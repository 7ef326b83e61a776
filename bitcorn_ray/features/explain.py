"""Explain why a partition would hit or miss the cache, without computing anything.

The newest entry of the same partition and system is compared with what would be computed now: version, parameters, each
module of the code, library versions, and the bars one by one, by the hashes that chunks store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import EntryPlan, bar_hashes, plan_entry
from bitcorn_ray.features.plan import FeatureWork, plan_features, requested_of
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars, show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.loading import load_partition
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.reader import PartitionReader
from bitcorn_ray.sources.source import open_file, shown_source


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Expected outcome of a partition, "hit", "miss" or "failure". to_compute: missing ones of its ``chunks``."""

    symbol: str
    timeframe: str
    outcome: str
    causes: tuple[str, ...]
    to_compute: int = 0
    chunks: int = 0


def explain(
    source: str | Path,
    system: FeatureSystem,
    cache: FeatureCache,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    reading: Reading | None = None,
) -> list[Explanation]:
    """Explain every requested partition of a source; reads the bars of changed files.

    Raises BitcornError as `plan_features` does.
    """
    plan = plan_features(source, system, cache, symbols, timeframes, reading)
    unchanged = ("its file has not changed, so it is not read",)
    found = [_explanation(Partition(s.symbol, s.timeframe), "hit", unchanged) for s in plan.done]
    for path in sorted({job.path for job in plan.jobs}):
        jobs = [job for job in plan.jobs if job.path == path]
        named = {job.partition for job in jobs}
        try:
            with open_file(path, plan.work.reading) as reader:
                of_file = requested_of(reader.partitions, symbols, timeframes)
                of_file = of_file if None in named else [partition for partition in of_file if partition in named]
                found += [_explained(reader, partition, plan.work, cache, path) for partition in of_file]
        except BitcornError as error:
            found.append(_explanation(jobs[0].label(), "failure", (str(error),)))
    return sorted(found, key=lambda found: (found.symbol, found.timeframe))


def _explanation(partition: Partition, outcome: str, causes: tuple[str, ...], **counts: int) -> Explanation:
    return Explanation(symbol=partition.symbol, timeframe=partition.timeframe, outcome=outcome, causes=causes, **counts)


def _explained(
    reader: PartitionReader, partition: Partition, work: FeatureWork, cache: FeatureCache, path: str
) -> Explanation:
    try:
        bars = load_partition(reader, partition, work.reading.policy).bars
        plan = plan_entry(bars, work.system, memo=cache)
    except BitcornError as error:
        return _explanation(partition, "failure", (str(error),))
    rows = {chunk.key: chunk.stop - chunk.start for chunk in plan.chunks}
    missing = len(cache.missing_chunks(plan.key, plan.identity.system.features, rows))
    causes: tuple[str, ...] = ("the bars have been computed before",)
    if missing:
        causes = tuple(_causes(bars, plan, cache, shown_source(path), partition))
    outcome = "miss" if missing else "hit"
    return _explanation(partition, outcome, causes, to_compute=missing, chunks=len(plan.chunks))


def _causes(bars: Bars, plan: EntryPlan, cache: FeatureCache, path: str, partition: Partition) -> Iterator[str]:
    entries = _earlier_entries(plan, cache, path, partition)
    if not entries:
        yield f"no entry of {plan.identity.system.name} for it yet"
        return
    # Of several variants the one with the fewest differences explains most; of equals the newest.
    now = plan.identity.facts
    differences = [
        (number, [*system_changes(entry["identity"], now), *library_changes(entry["identity"], now)])
        for number, entry in enumerate(entries)
    ]
    nearest, changes = min(differences, key=lambda item: (len(item[1]), item[0]))
    changes += _bar_changes(bars, entries[nearest], cache)
    yield from changes or ["chunks of its entry are no longer in the cache: they were pruned or damaged"]


def _earlier_entries(plan: EntryPlan, cache: FeatureCache, path: str, partition: Partition) -> list[dict[str, Any]]:
    """Return the manifests of a partition and a system of this name, whatever its parameters, newest first."""
    links = [
        link
        for link in cache.links_of(path)
        if (link["symbol"], link["timeframe"]) == (partition.symbol, partition.timeframe) and link["complete"]
    ]
    manifests = (cache.manifest(link["key"]) for link in links)
    return [m for m in manifests if m is not None and m["identity"]["name"] == plan.identity.system.name]


def system_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences of two identities of a feature system (`SystemIdentity.facts`), except libraries."""
    for what in ("format", "version", "features", "warmup", "context", "step"):
        if old.get(what) != new[what]:
            yield f"{what}: {_brief(old.get(what))} became {_brief(new[what])}"
    yield from _differences("parameter", old["parameters"], new["parameters"])
    for part, what in (("modules", "code of"), ("values", "a value in")):
        before, after = old["code"][part], new["code"][part]
        for name in sorted(before.keys() | after.keys()):
            if name not in after:
                yield f"{what} {name} is no longer used"
            elif name not in before:
                yield f"{what} {name} is new"
            elif before[name] != after[name]:
                yield f"{what} {name} changed"
    if old["code"]["function"] != new["code"]["function"]:
        yield f"function {old['code']['function']} became {new['code']['function']}"


def library_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield the libraries with different versions in two identities of a feature system."""
    yield from _differences("library", old["code"]["libraries"], new["code"]["libraries"])


def _differences(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{what} {name}: {_brief(old.get(name))} became {_brief(new.get(name))}"


def _bar_changes(bars: Bars, entry: Mapping[str, Any], cache: FeatureCache) -> Iterator[str]:
    timed = bars.timed
    stored = [_stored_bars(cache, chunk["key"], chunk["rows"], timed) for chunk in entry["chunks"]]
    if lost := stored.count(None):
        yield f"{lost} of {len(stored)} chunks of the earlier entry are missing or damaged"
    known = [chunk for chunk in stored if chunk is not None]
    if not known:
        return
    old_hashes, new_hashes = np.concatenate([hashes for _, hashes in known]), bar_hashes(bars)
    if not timed:
        old_times, new_times = np.arange(len(old_hashes)), np.arange(len(new_hashes))
    else:
        old_times, new_times = np.concatenate([times for times, _ in known]), bars.timestamp
    both, in_old, in_new = np.intersect1d(old_times, new_times, assume_unique=True, return_indices=True)
    yield from _rows("revised", in_new[old_hashes[in_old] != new_hashes[in_new]], bars)
    added = np.setdiff1d(new_times, old_times, assume_unique=True)
    yield from _rows("appended", np.searchsorted(new_times, added[added > old_times[-1]]), bars)
    yield from _rows("inserted", np.searchsorted(new_times, added[added < old_times[-1]]), bars)
    if not lost and (removed := np.setdiff1d(old_times, both, assume_unique=True)).size:
        first, last = (show_time(int(t)) if timed else f"row {t}" for t in (removed[0], removed[-1]))
        yield f"{len(removed)} bars were removed between {first} and {last}"


def _stored_bars(
    cache: FeatureCache, key: str, rows: int, timed: bool
) -> tuple[NDArray[np.int64], NDArray[np.uint32]] | None:
    """Return the times and hashes of a chunk's bars, or None if the chunk is missing or damaged."""
    times = cache.read_column(key, "timestamp", np.int64, rows) if timed else np.zeros(0, np.int64)
    hashes = cache.read_column(key, "bar", np.uint32, rows)
    return None if times is None or hashes is None else (times, hashes)


def _rows(what: str, rows: NDArray[np.int64], bars: Bars) -> Iterator[str]:
    if len(rows):
        first, last = int(rows[0]), int(rows[-1])
        times = f", {bars.describe(first)} to {bars.describe(last)}" if bars.timed else ""
        yield f"{len(rows)} bars were {what}: rows {first}..{last}{times}"


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
