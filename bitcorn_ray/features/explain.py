"""Explain why a partition would hit or miss the cache, without computing anything.

The newest entry of the same partition and system is compared with what would be computed now: version, parameters, each
module of the code, library versions, and the bars one by one, by the hashes that chunks store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features.compute import missing_chunks
from bitcorn_ray.features.identity import EntryPlan, bar_hashes, plan_entry
from bitcorn_ray.features.plan import FeatureWork, map_partitions, plan_features
from bitcorn_ray.features.receipts import error_text
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars, show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.loading import LoadedBars
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import shown_source


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
    source_options: SourceOptions | None = None,
) -> list[Explanation]:
    """Explain every requested partition of a source; reads the bars of changed files.

    Raises BitcornError as `plan_features` does.
    """
    plan = plan_features(source, system, cache, symbols, timeframes, source_options)
    unchanged = ("its file has not changed, so it is not read",)
    found = [_explanation(status.partition, "hit", unchanged) for status in plan.done]
    found += map_partitions(
        "explain",
        plan.jobs,
        plan.work,
        partial(_explained, work=plan.work, cache=cache),
        lambda partition, _, error: _explanation(partition, "failure", (error_text(error),)),
    )
    return sorted(found, key=lambda found: (found.symbol, found.timeframe))


def _explanation(partition: Partition, outcome: str, causes: tuple[str, ...], **counts: int) -> Explanation:
    return Explanation(symbol=partition.symbol, timeframe=partition.timeframe, outcome=outcome, causes=causes, **counts)


def _explained(
    loaded: LoadedBars, path: str, fields: dict[str, Any], *, work: FeatureWork, cache: FeatureCache
) -> Explanation:
    plan = plan_entry(loaded.bars, work.system, work.code)
    missing = len(missing_chunks(cache, plan))
    causes: tuple[str, ...] = ("the bars have been computed before",)
    if missing:
        causes = tuple(_causes(loaded.bars, plan, cache, shown_source(path), loaded.partition))
    outcome = "miss" if missing else "hit"
    return _explanation(loaded.partition, outcome, causes, to_compute=missing, chunks=len(plan.chunks))


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
    for name in ("format", "version", "features", "warmup", "context", "step"):
        if old.get(name) != new[name]:
            yield f"{name}: {_brief(old.get(name))} became {_brief(new[name])}"
    yield from _differences("parameter", old["parameters"], new["parameters"])
    yield from _differences("file", dict(old.get("files", ())), dict(new.get("files", ())))
    yield from _differences("environment variable", old.get("env", {}), new.get("env", {}))
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
    stored = [_stored_hashes(cache, chunk["key"], chunk["rows"], timed) for chunk in entry["chunks"]]
    known = [hashes for hashes in stored if hashes is not None]
    if lost := len(stored) - len(known):
        yield f"{lost} of {len(stored)} chunks of the earlier entry are missing or damaged"
    if not known:
        return
    old, new = pd.concat(known, ignore_index=not timed), pd.Series(bar_hashes(bars), bars.timestamp)
    both, added = new.index.intersection(old.index), new.index.difference(old.index)
    last = old.index[-1]
    for change, times in (
        ("revised", both[(old[both] != new[both]).to_numpy()]),
        ("appended", added[added > last]),
        ("inserted", added[added < last]),
    ):
        if len(times):
            first, final = (int(row) for row in new.index.get_indexer(times[[0, -1]]))
            at = f", {bars.describe(first)} to {bars.describe(final)}" if timed else ""
            yield f"{len(times)} bars were {change}: rows {first}..{final}{at}"
    removed = old.index.difference(new.index)
    if len(removed) and not lost:
        first_time, last_time = (show_time(int(t)) if timed else f"row {t}" for t in removed[[0, -1]])
        yield f"{len(removed)} bars were removed between {first_time} and {last_time}"


def _stored_hashes(cache: FeatureCache, key: str, rows: int, timed: bool) -> pd.Series[int] | None:
    """Return the hashes of a chunk's bars by time, or None if the chunk is missing or damaged."""
    times = cache.read_column(key, "timestamp", np.int64, rows) if timed else None
    hashes = cache.read_column(key, "bar", np.uint32, rows)
    return None if hashes is None or (timed and times is None) else pd.Series(hashes, times)


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
