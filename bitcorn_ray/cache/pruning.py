"""Size, integrity and pruning of the cache.

`prune` removes nothing that was used or written within the cache's grace period: a running job may be reading it, or be
about to name it in a manifest. A reader whose chunk is removed all the same computes it again.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from bitcorn_ray.cache.chunks import decode_chunk
from bitcorn_ray.cache.store import FeatureCache, chunk_name, is_ours, key_of, keys_in
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import StoredFile


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A damaged file and what is wrong with it."""

    file: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What `prune` removed, or would remove. in_use: entries that are too old or too large, but in use."""

    entries: list[str]
    chunks: int
    bytes: int
    in_use: list[str]
    bytes_left: int


def stats(cache: FeatureCache) -> dict[str, Any]:
    """Return counts of entries, chunks, rows, hits and bytes, and the times of the oldest and newest use."""
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
    """Read everything with its checksums; return the files that are missing, torn, damaged or foreign.

    repair: remove damaged files and the entries that need them, so that they are computed again.
    """
    records = [file.name for file in cache.storage.files() if file.name.endswith(".json") and is_ours(file)]
    read = zip(records, cache.storage.read_jsons(records), strict=True)
    damaged = [Damage(file=name, problem="it is torn or its checksum differs") for name, value in read if value is None]
    manifests = cache.manifests()
    chunks = {chunk["key"]: (chunk, manifest) for manifest in manifests.values() for chunk in manifest["chunks"]}
    problems = cache.storage.side_by_side(lambda item: _chunk_problem(cache, *item), list(chunks.values()), 2)
    bad = {key: problem for key, problem in zip(chunks, problems, strict=True) if problem}
    damaged += [Damage(file=chunk_name(key), problem=problem) for key, problem in bad.items()]
    if repair:
        cache.storage.delete(damage.file for damage in damaged)
        cache.remove_entries({key for key, each in manifests.items() if any(c["key"] in bad for c in each["chunks"])})
    return damaged


def prune(
    cache: FeatureCache, max_bytes: int | None = None, older_than: float | None = None, dry_run: bool = False
) -> Pruned:
    """Remove entries unused for ``older_than`` seconds, then the longest unused until ``max_bytes`` are left.

    Chunks without an entry, records of removed entries, and temporary files of killed writers are removed as well once
    they are older than the grace period.
    """
    now = time.time()
    entries = sorted(cache.entries(), key=lambda entry: str(entry["last_used"]))
    age = {entry["key"]: now - datetime.fromisoformat(entry["last_used"]).timestamp() for entry in entries}
    files = {file.name: file for file in cache.storage.files()}
    sizes = {key_of(name): file.size for name, file in files.items() if name.endswith(".parquet")}
    holders = Counter(chunk["key"] for entry in entries for chunk in entry["chunks"])
    orphans = [file for file in files.values() if _is_left_behind(file, holders) and now - file.written > cache.grace]
    left = sum(file.size for file in files.values()) - sum(file.size for file in orphans)
    removed, in_use = list[str](), list[str]()
    for entry in entries:
        key = entry["key"]
        too_old = older_than is not None and age[key] > older_than
        too_much = max_bytes is not None and left > max_bytes
        if not (too_old or too_much):
            continue
        if age[key] <= cache.grace:
            in_use.append(key)
            continue
        removed.append(key)
        for chunk in entry["chunks"]:
            holders[chunk["key"]] -= 1
            left -= sizes.get(chunk["key"], 0) if holders[chunk["key"]] == 0 else 0
    if not dry_run:
        cache.storage.delete(name for name in files if name.startswith("links/") and key_of(name) in removed)
        cache.remove_entries(removed)
        cache.storage.delete(file.name for file in orphans)
        cache.storage.delete(_idle_records(cache, files, {entry["key"] for entry in entries} - set(removed), now))
    before = sum(file.size for file in files.values())
    freed = sum(count == 0 for count in holders.values()) + sum(file.name.endswith(".parquet") for file in orphans)
    return Pruned(entries=removed, chunks=freed, bytes=before - left, in_use=in_use, bytes_left=left)


def _is_left_behind(file: StoredFile, holders: Counter[str]) -> bool:
    """Return True if a file is a chunk that no entry names, or the temporary file of a writer."""
    folder, _, name = file.name.rpartition("/")
    if name.startswith(TEMPORARY):
        return True
    return folder == "features" and name.endswith(".parquet") and is_ours(file) and key_of(name) not in holders


def _idle_records(cache: FeatureCache, files: dict[str, StoredFile], kept: set[str], now: float) -> list[str]:
    """Return receipts, uses and parsed sources older than the grace period that belong to no kept entry."""
    old = [name for name, file in files.items() if now - file.written > cache.grace]
    receipts = [name for name in old if name.startswith("sources/")]
    named = zip(receipts, cache.storage.read_jsons(receipts), strict=True)
    idle = [name for name, receipt in named if receipt is None or not kept & set(keys_in(receipt))]
    idle += [name for name in old if name.startswith("uses/") and key_of(name) not in kept]
    return idle if kept else [*idle, *(name for name in old if name.startswith("code/"))]


def _chunk_problem(cache: FeatureCache, chunk: dict[str, Any], manifest: dict[str, Any]) -> str | None:
    timed, key, rows = manifest["first_timestamp"] is not None, chunk["key"], chunk["rows"]
    try:
        content = cache.storage.read(chunk_name(key))
        decode_chunk(content, key, manifest["features"], np.float32, rows)
        decode_chunk(content, key, ["bar"], np.uint32, rows)
        decode_chunk(content, key, ["timestamp"] if timed else [], np.int64, rows)
    except BitcornError as error:
        return str(error)
    except OSError:
        return "it is missing"
    return None
