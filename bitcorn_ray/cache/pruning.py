"""Looking after the cache: how large it is, whether it is whole, and what can go.

Nothing that was used within the cache's grace period is removed by `prune`, as a running job may be reading it, and
nothing that was written within it, as a job may be about to name it in a manifest. A reader whose chunk is gone all the
same computes it anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from bitcorn_ray.cache.chunks import decode_bars, decode_chunk
from bitcorn_ray.cache.names import chunk_name, is_ours, key_of
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.receipts import keys_of_receipt
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import StoredFile

__all__ = ["Damage", "Pruned", "prune", "stats", "verify"]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A file that cannot be read whole, and why."""

    file: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What `prune` removed, or would remove; in_use: entries that had to go by their age or size, but are in use."""

    entries: list[str]
    chunks: int
    bytes: int
    in_use: list[str]
    bytes_left: int


def stats(cache: FeatureCache) -> dict[str, Any]:
    """Count entries, chunks and bytes, in plain values."""
    entries = cache.entries()
    files = {file.name: file for file in cache.storage.files("features")}
    chunks = {chunk_name(chunk["key"]) for entry in entries for chunk in entry["chunks"]}
    orphans = [file for name, file in files.items() if name.endswith(".parquet") and name not in chunks]
    uses = sorted(entry["last_used"] for entry in entries)
    return {
        "folder": cache.storage.shown,
        "entries": len(entries),
        "chunks": len(chunks & files.keys()),
        "rows": sum(entry["rows"] for entry in entries),
        "hits": sum(entry["hits"] for entry in entries),
        "bytes": sum(file.size for file in cache.storage.files()),
        "unreferenced_bytes": sum(file.size for file in orphans),
        "longest_unused_since": uses[0] if uses else None,
        "last_used": uses[-1] if uses else None,
    }


def verify(cache: FeatureCache, repair: bool = False) -> list[Damage]:
    """Read everything with its checksums; returns the files that are missing, torn, damaged or foreign.

    repair: remove what is damaged, and the entries that name it, so that the next user computes it anew.
    """
    damaged = list(_damaged_records(cache))
    wanted: dict[str, tuple[tuple[str, ...], int, bool]] = {}
    manifests = cache.manifests()
    for manifest in manifests.values():
        timed = manifest["first_timestamp"] is not None
        wanted |= {c["key"]: (tuple(manifest["features"]), c["rows"], timed) for c in manifest["chunks"]}
    problems = cache.storage.side_by_side(lambda item: _chunk_problem(cache, *item), list(wanted.items()), 2)
    damaged += [
        Damage(file=chunk_name(key), problem=problem) for key, problem in zip(wanted, problems, strict=True) if problem
    ]
    if repair:
        gone = {key for key, problem in zip(wanted, problems, strict=True) if problem}
        cache.storage.delete(damage.file for damage in damaged)
        cache.remove_entries({key for key, each in manifests.items() if gone & {c["key"] for c in each["chunks"]}})
    return damaged


def prune(
    cache: FeatureCache, max_bytes: int | None = None, older_than: float | None = None, dry_run: bool = False
) -> Pruned:
    """Remove entries by age and by size.

    Those that were not used for ``older_than`` seconds go, then the longest unused until ``max_bytes`` are left.

    Chunks that no entry names, notes of entries that are gone, and what killed writers left behind, go as well once
    they are older than the grace period.
    """
    now = time.time()
    entries = sorted(cache.entries(), key=lambda entry: str(entry["last_used"]))
    age = {entry["key"]: now - datetime.fromisoformat(entry["last_used"]).timestamp() for entry in entries}
    files = {file.name: file for file in cache.storage.files()}
    sizes = {key_of(name): file.size for name, file in files.items() if name.endswith(".parquet")}
    holders: dict[str, int] = {}
    for entry in entries:
        for chunk in entry["chunks"]:
            holders[chunk["key"]] = holders.get(chunk["key"], 0) + 1
    orphans = [file for file in files.values() if _is_left_behind(file, holders) and now - file.written > cache.grace]
    left = sum(file.size for file in files.values()) - sum(file.size for file in orphans)
    gone, in_use = list[str](), list[str]()
    for entry in entries:
        key = entry["key"]
        too_old = older_than is not None and age[key] > older_than
        too_much = max_bytes is not None and left > max_bytes
        if not (too_old or too_much):
            continue
        if age[key] <= cache.grace:
            in_use.append(key)
            continue
        gone.append(key)
        for chunk in entry["chunks"]:
            holders[chunk["key"]] -= 1
            left -= sizes.get(chunk["key"], 0) if holders[chunk["key"]] == 0 else 0
    if not dry_run:
        cache.storage.delete(name for name in files if name.startswith("links/") and key_of(name) in gone)
        cache.remove_entries(gone)
        cache.storage.delete(file.name for file in orphans)
        cache.storage.delete(_notes_of_none(cache, files, {entry["key"] for entry in entries} - set(gone), now))
    before = sum(file.size for file in files.values())
    freed = sum(held == 0 for held in holders.values()) + sum(file.name.endswith(".parquet") for file in orphans)
    return Pruned(entries=gone, chunks=freed, bytes=before - left, in_use=in_use, bytes_left=left)


def _is_left_behind(file: StoredFile, holders: dict[str, int]) -> bool:
    """Tell whether a file is a chunk of ours that no entry names, or the temporary file of a writer."""
    folder, _, name = file.name.rpartition("/")
    if name.startswith(TEMPORARY):
        return True
    return folder == "features" and name.endswith(".parquet") and is_ours(file) and key_of(name) not in holders


def _notes_of_none(cache: FeatureCache, files: dict[str, StoredFile], kept: set[str], now: float) -> list[str]:
    """Receipts and notes of use that name no entry that is kept, older than the grace period; without any, all hints.

    What sources say (`code/`) is needed for as long as there is an entry that its code made.
    """
    old = [name for name, file in files.items() if now - file.written > cache.grace]
    receipts = [name for name in old if name.startswith("sources/")]
    named = zip(receipts, cache.storage.read_jsons(receipts), strict=True)
    idle = [name for name, receipt in named if receipt is None or not kept & set(keys_of_receipt(receipt))]
    idle += [name for name in old if name.startswith("uses/") and key_of(name) not in kept]
    return idle if kept else [*idle, *(name for name in old if name.startswith("code/"))]


def _damaged_records(cache: FeatureCache) -> Iterator[Damage]:
    names = [f.name for f in cache.storage.files() if f.name.endswith(".json") and is_ours(f)]
    for name, value in zip(names, cache.storage.read_jsons(names), strict=True):
        if value is None:
            yield Damage(file=name, problem="it is torn or its checksum differs")


def _chunk_problem(cache: FeatureCache, key: str, wanted: tuple[tuple[str, ...], int, bool]) -> str | None:
    names, rows, timed = wanted
    try:
        content = cache.storage.read(chunk_name(key))
        decode_chunk(content, key, names, np.empty((len(names), rows), np.float32))
        decode_bars(content, key, timed)
    except BitcornError as error:
        return str(error)
    except OSError:
        return "it is missing"
    return None
