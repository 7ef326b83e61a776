"""Why a partition would hit or miss: the exact cause, found without computing anything.

The newest entry of the same partition and system is compared with what would be asked for now: version, parameters,
each module of the code, library versions, and the bars one by one, by the fingerprints that chunks keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.chunks import fingerprint_bars
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import EntryPlan, plan_entry
from bitcorn_ray.features.jobs import asked_of
from bitcorn_ray.features.plan import FeatureWork, plan_features
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars, show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.loading import load_partition
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.sources.source import PartitionReader, opened_source, shown_source

__all__ = ["Explanation", "explain", "library_changes", "system_changes"]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What would happen to a partition, "hit", "miss" or "failure", and why. to_compute: chunks, of how many."""

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
    """Explain every partition of a source; reads the bars of files that have changed.

    Raises BitcornError as `plan_features` does.
    """
    plan = plan_features(source, system, cache, symbols, timeframes, reading)
    found = [
        Explanation(
            symbol=s.symbol,
            timeframe=s.timeframe,
            outcome="hit",
            causes=("its file has not changed: it is not even read",),
        )
        for s in plan.done
    ]
    for path in sorted({job.path for job in plan.jobs}):
        jobs = [job for job in plan.jobs if job.path == path]
        named = {job.partition for job in jobs}
        try:
            with opened_source(path, plan.work.reading) as reader:
                every = asked_of(reader.partitions, symbols, timeframes)
                asked = every if None in named else [partition for partition in every if partition in named]
                found += [_explained(reader, partition, plan.work, cache, shown_source(path)) for partition in asked]
        except BitcornError as error:
            found.append(_failure(jobs[0].label(), error))
    return sorted(found, key=lambda each: (each.symbol, each.timeframe))


def _failure(partition: Partition, error: BitcornError) -> Explanation:
    return Explanation(symbol=partition.symbol, timeframe=partition.timeframe, outcome="failure", causes=(str(error),))


def _explained(
    reader: PartitionReader, partition: Partition, work: FeatureWork, cache: FeatureCache, path: str
) -> Explanation:
    try:
        bars = load_partition(reader, partition, work.reading.policy).bars
        plan = plan_entry(bars, work.system, memo=cache)
    except BitcornError as error:
        return _failure(partition, error)
    missing = cache.missing_chunks(plan)
    known = ["the bars have been computed before"]
    causes = tuple(_causes(bars, plan, cache, path, partition) if missing else known)
    return Explanation(
        symbol=partition.symbol,
        timeframe=partition.timeframe,
        outcome="miss" if missing else "hit",
        causes=causes,
        to_compute=len(missing),
        chunks=len(plan.chunks),
    )


def _causes(bars: Bars, plan: EntryPlan, cache: FeatureCache, path: str, partition: Partition) -> Iterator[str]:
    entries = _entries_before(plan, cache, path, partition)
    if not entries:
        yield f"no entry of {plan.identity.system.name} for it yet"
        return
    # Of several variants, the one that is most like what is asked for says most; of equals the newest.
    now = plan.identity.facts
    causes = [[*system_changes(entry["identity"], now), *library_changes(entry["identity"], now)] for entry in entries]
    nearest = min(range(len(entries)), key=lambda place: len(causes[place]))
    changes = [*causes[nearest], *_bar_changes(bars, entries[nearest], cache)]
    yield from changes or ["chunks of its entry are no longer in the cache: they were pruned or damaged"]


def _entries_before(plan: EntryPlan, cache: FeatureCache, path: str, partition: Partition) -> list[dict[str, Any]]:
    """Manifests of a partition and a system of this name, whatever its parameters, newest first."""
    links = [
        link
        for link in cache.links_of(path)
        if (link["symbol"], link["timeframe"]) == (partition.symbol, partition.timeframe) and link["complete"]
    ]
    manifests = (cache.manifest(link["key"]) for link in links)
    return [m for m in manifests if m is not None and m["identity"]["name"] == plan.identity.system.name]


def system_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Say what differs between two identities of a feature system (`SystemIdentity.facts`), libraries apart."""
    for what in ("format", "version", "features", "warmup", "context", "step"):
        if old.get(what) != new[what]:
            yield f"{what}: {_brief(old.get(what))} became {_brief(new[what])}"
    yield from _differences("parameter", old["parameters"], new["parameters"])
    for part, what in (("modules", "code of"), ("values", "a value in")):
        before, after = old["code"][part], new["code"][part]
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                verb = (
                    "changed"
                    if name in before and name in after
                    else "is no longer used"
                    if name in before
                    else "is new"
                )
                yield f"{what} {name} {verb}"
    if old["code"]["function"] != new["code"]["function"]:
        yield f"function {old['code']['function']} became {new['code']['function']}"


def library_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Say which libraries have another version in two identities of a feature system."""
    yield from _differences("library", old["code"]["libraries"], new["code"]["libraries"])


def _differences(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{what} {name}: {_brief(old.get(name))} became {_brief(new.get(name))}"


def _bar_changes(bars: Bars, before: Mapping[str, Any], cache: FeatureCache) -> Iterator[str]:
    timed = bars.timestamp is not None
    stored = [cache.read_bars(chunk["key"], timed) for chunk in before["chunks"]]
    if lost := sum(each is None for each in stored):
        yield f"{lost} of {len(stored)} chunks of the entry before are missing or damaged"
    kept = [each for each in stored if each is not None]
    if not kept:
        return
    old_prints = np.concatenate([prints for _, prints in kept])
    new_prints = fingerprint_bars(bars)
    if bars.timestamp is None:
        old_times, new_times = np.arange(len(old_prints)), np.arange(len(new_prints))
    else:
        old_times = np.concatenate([times for times, _ in kept if times is not None])
        new_times = bars.timestamp
    both, in_old, in_new = np.intersect1d(old_times, new_times, assume_unique=True, return_indices=True)
    yield from _rows("revised", in_new[old_prints[in_old] != new_prints[in_new]], bars)
    added = np.setdiff1d(new_times, old_times, assume_unique=True)
    yield from _rows("appended", np.searchsorted(new_times, added[added > old_times[-1]]), bars)
    yield from _rows("inserted", np.searchsorted(new_times, added[added < old_times[-1]]), bars)
    if not lost and (removed := np.setdiff1d(old_times, both, assume_unique=True)).size:
        first, last = (_shown(int(t), timed) for t in (removed[0], removed[-1]))
        yield f"{len(removed)} bars were removed between {first} and {last}"


def _rows(what: str, rows: NDArray[np.int64], bars: Bars) -> Iterator[str]:
    if len(rows):
        first, last = int(rows[0]), int(rows[-1])
        where = (
            f"rows {first}..{last}"
            if bars.timestamp is None
            else (f"rows {first}..{last}, {bars.describe(first)} to {bars.describe(last)}")
        )
        yield f"{len(rows)} bars were {what}: {where}"


def _shown(time: int, timed: bool) -> str:
    return show_time(time) if timed else f"row {time}"


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
