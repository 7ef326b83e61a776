"""The store: content-addressed chunks of features that any number of processes and machines share without locks.

    features/<chunk>.parquet     the features of a stretch of bars (see `chunk_file`)
    features/<entry>.meta.json   the manifest: which chunks make an entry, and what identifies them; published last
    data_quality/<entry>.json    the quality report of the bars
    links/<source>-<what>/<entry>.json   a database or file uses this entry for a partition and system
    sources/<source>-<system>.json       what was computed from a source, so that one that has not changed is not read
    uses/<entry>                 a byte for each hit; its time says when the entry was last used
    code/<source hash>.json      what a source file says (see `syntax`)
    index.json                   a snapshot for people; derived, never read as the truth

Names are hashes of what they hold. What is missing, torn or damaged is a miss and is written anew.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.chunks import decode_bars, decode_chunk, encode_chunk
from bitcorn_ray.cache.names import (
    chunk_name,
    is_manifest,
    is_ours,
    is_understood,
    key_of,
    link_folder,
    manifest_name,
    quality_name,
    source_id,
    use_name,
)
from bitcorn_ray.cache.traffic import Traffic, count_traffic
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import Chunk, EntryPlan
from bitcorn_ray.logging import logger_of
from bitcorn_ray.market.bars import Bars, show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.storage.storage import Storage, StoredFile

__all__ = ["GRACE_SECONDS", "FeatureCache"]

GRACE_SECONDS = 3_600.0  # what was used more recently is never pruned: a running job may be reading it
_NOTE_USE_SECONDS = 600.0  # where each takes requests, uses are noted no more often than this
_NOT_IN_INDEX = ("chunks", "identity")
_READERS = 2  # threads that read the chunks of a local entry: decoding leaves Python's lock alone
_log = logger_of(__name__)


class FeatureCache:
    """The cache in one folder or at one URI; nothing is created before something is written.

    grace: seconds for which what was used is kept when it is superseded or pruned.
    Raises BitcornError for a URI that pyarrow does not understand, and for a local file.
    """

    def __init__(self, location: str | Path, grace: float = GRACE_SECONDS) -> None:
        self.storage = Storage(location, "cache", "give another one or turn the cache off")
        self.grace = grace
        if self.storage.is_file:
            raise BitcornError(f"the cache at {self.storage.shown} is a file: give a folder")

    # Chunks

    def read_chunks(self, plan: EntryPlan, out: NDArray[np.float32]) -> list[Chunk]:
        """Read the chunks of an entry into ``out`` (F, T); returns those that are missing or damaged.

        A damaged file is logged; it is replaced when its chunk is written anew.
        """
        names = plan.identity.system.features

        def read(chunk: Chunk) -> int:
            try:
                content = self.storage.read(chunk_name(chunk.key))
                decode_chunk(content, chunk.key, names, out[:, chunk.start : chunk.stop])
            except BitcornError as error:
                _log.warning(
                    "chunk %s in the cache %s is damaged and computed anew: %s", chunk.key, self.storage.shown, error
                )
                return 0
            except OSError:
                return 0
            return len(content)

        sizes = self.storage.side_by_side(read, list(plan.chunks), _READERS)
        count_traffic(Traffic(bytes_read=sum(sizes)))
        return [chunk for chunk, size in zip(plan.chunks, sizes, strict=True) if not size]

    def missing_chunks(self, plan: EntryPlan) -> list[Chunk]:
        """Return the chunks of an entry that the cache does not have; they are read only where sizes are wrong."""
        there = self.storage.existing(chunk_name(chunk.key) for chunk in plan.chunks)
        missing = [chunk for chunk in plan.chunks if chunk_name(chunk.key) not in there]
        manifest = None if missing else self.manifest(plan.key)
        if missing or (manifest is not None and manifest["bytes"] == sum(file.size for file in there.values())):
            return missing
        rows = plan.chunks[-1].stop if plan.chunks else 0
        return self.read_chunks(plan, np.empty((len(plan.identity.system.features), rows), np.float32))

    def write_chunk(self, plan: EntryPlan, chunk: Chunk, matrix: NDArray[np.float32], bars: Bars) -> None:
        """Publish a chunk. matrix: (F, stop - start); bars: all bars. Raises BitcornError where that cannot be done."""
        own = bars.take(slice(chunk.start, chunk.stop))
        content = encode_chunk(chunk.key, plan.identity.system.features, matrix, own)
        self.storage.publish(chunk_name(chunk.key), content)
        count_traffic(Traffic(bytes_written=len(content)))

    def read_bars(self, key: str, timed: bool) -> tuple[NDArray[np.int64] | None, NDArray[np.uint32]] | None:
        """Times and fingerprints of the bars of a chunk, None where it is missing or damaged."""
        try:
            return decode_bars(self.storage.read(chunk_name(key)), key, timed)
        except (BitcornError, OSError):
            return None

    # Entries

    def write_entry(self, plan: EntryPlan, bars: Bars) -> None:
        """Publish an entry, whose chunks are there. Raises BitcornError where that cannot be done."""
        self.storage.publish_json(manifest_name(plan.key), self._manifest(plan, bars))

    def manifest(self, key: str) -> dict[str, Any] | None:
        """Return an entry's manifest, or None where it is missing, damaged or of another format."""
        manifest = self.storage.read_json(manifest_name(key))
        return manifest if manifest is not None and is_understood(manifest) else None

    def quality(self, key: str) -> dict[str, Any] | None:
        """Return the quality report of an entry's bars, or None."""
        return self.storage.read_json(quality_name(key))

    def write_quality(self, key: str, report: dict[str, Any]) -> None:
        """Publish the quality report of an entry's bars. Raises BitcornError where that cannot be done."""
        self.storage.publish_json(quality_name(key), report, indent=1)

    def note_uses(self, keys: Collection[str]) -> None:
        """Count a hit of each entry, which is in use then for `prune`; a cache that cannot be written is used without.

        Elsewhere than in a folder one hit in ten minutes is counted, not the others.
        """
        # No more often than needed: what was used within the grace period has to be known as such.
        often = min(_NOTE_USE_SECONDS, self.grace / 2)
        noted = set[str]() if self.storage.is_local else self._in_use(keys, often)
        try:
            for key in set(keys) - noted:
                self.storage.add_mark(use_name(key))
        except BitcornError:
            _log.debug("uses cannot be noted in %s", self.storage.shown)

    def require_writable(self) -> None:
        """Raise BitcornError where the cache cannot be written."""
        self.storage.require_writable()

    def _manifest(self, plan: EntryPlan, bars: Bars) -> dict[str, Any]:
        system, times = plan.identity.system, bars.timestamp
        sizes = self.storage.existing(chunk_name(chunk.key) for chunk in plan.chunks)

        def at(row: int) -> str | int:
            return row if times is None else show_time(int(times[row]))

        chunks = [
            {"key": chunk.key, "rows": chunk.stop - chunk.start, "from": at(chunk.start), "to": at(chunk.stop - 1)}
            for chunk in plan.chunks
        ]
        return {
            "key": plan.key,
            "system": system.spec,
            "version": system.version,
            "features": list(system.features),
            "warmup": system.warmup_bars,
            "rows": len(bars) - system.warmup_bars,
            "first_timestamp": None if times is None else show_time(int(times[system.warmup_bars])),
            "last_timestamp": None if times is None else show_time(int(times[-1])),
            "bytes": sum(file.size for file in sizes.values()),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "identity": dict(plan.identity.facts),
            "chunks": chunks,
        }

    # Links

    def link(self, key: str, system: str, source: str | Path, partition: Partition | None, complete: bool) -> list[str]:
        """Note that a database or file uses an entry for a partition and system.

        complete: the entry holds all bars that the source had; it then supersedes older such entries. Entries of slices
        (a limit, a fold) supersede nothing and are not superseded. Returns the superseded links, for `forget`.
        """
        folder = link_folder(source, partition, system)
        name = f"{folder}/{key}.json"
        known = self.storage.read_json(name)
        if known is None or (complete and not known.get("complete")):
            self.storage.publish_json(
                name,
                {
                    "key": key,
                    "db_path": str(source),
                    "symbol": partition.symbol if partition else None,
                    "timeframe": partition.timeframe if partition else None,
                    "system": system,
                    "complete": complete,
                },
            )
        if not complete:
            return []
        others = [file.name for file in self.storage.files(folder) if file.name != name and file.name.endswith(".json")]
        links = zip(others, self.storage.read_jsons(others), strict=True)
        return [other for other, link in links if link is None or link.get("complete")]

    def links_of(self, source: str | Path) -> list[dict[str, Any]]:
        """Every link of a database or file, with `written`, the time of it; newest first."""
        files = sorted(self._links_of(source), key=lambda file: -file.written)
        links = self.storage.read_jsons(file.name for file in files)
        return [{**link, "written": file.written} for file, link in zip(files, links, strict=True) if link]

    def _links_of(self, source: str | Path) -> list[StoredFile]:
        ours = f"links/{source_id(source)}-"
        return [f for f in self.storage.files("links") if f.name.startswith(ours) and f.name.endswith(".json")]

    def forget(self, links: Collection[str], grace: float | None = None) -> int:
        """Remove links, and the entries that no link needs any more; returns how many entries went.

        grace: keep the entries, and their links, that were used in the last so many seconds; by default the cache's.
        """
        if not links:
            return 0
        kept = self._in_use({key_of(name) for name in links}, self.grace if grace is None else grace)
        gone = [name for name in links if key_of(name) not in kept]
        self.storage.delete(gone)
        linked = {key_of(file.name) for file in self.storage.files("links")}
        return self.remove_entries({key_of(name) for name in gone} - linked)

    def remove_entries(self, keys: Collection[str]) -> int:
        """Remove entries, and the chunks that no other entry has; returns how many entries were there."""
        if not keys:
            return 0
        manifests = {key: manifest for key, manifest in self.manifests().items() if key in keys}
        # The manifests first: without it an entry does not exist for any reader.
        for name in (manifest_name, quality_name, use_name):
            self.storage.delete(name(key) for key in keys)
        needed = {chunk["key"] for manifest in self.manifests().values() for chunk in manifest["chunks"]}
        unneeded = {chunk["key"] for manifest in manifests.values() for chunk in manifest["chunks"]} - needed
        self.storage.delete(chunk_name(key) for key in unneeded)
        return len(manifests)

    def invalidate(self, source: str | Path | None = None) -> int:
        """Forget what a database or file uses, or everything, at once.

        With a source, removes its links and the entries that no link needs any more, and returns how many entries it
        used. Without, removes all that the cache wrote and returns the number of entries.
        """
        if source is None:
            files = [file for file in self.storage.files() if is_ours(file)]
            count = sum(file.name.endswith(".meta.json") for file in files)
            self.storage.delete(
                file.name for file in sorted(files, key=lambda file: not file.name.endswith(".meta.json"))
            )
        else:
            names = [file.name for file in self._links_of(source)]
            count = len({key_of(name) for name in names})
            self.forget(names, grace=0.0)
            self.storage.delete([file.name for file in self.storage.files("sources") if source_id(source) in file.name])
        if count or self.storage.existing(["index.json"]):
            self.refresh_index()
        return count

    # What is there

    def manifests(self, without: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        """Every readable manifest by its entry's key.

        without: fields that nobody wants, dropped as each is read: all identities together take much memory.
        """

        def read(name: str) -> dict[str, Any] | None:
            manifest = self.storage.read_json(name)
            if manifest is None or not is_understood(manifest):
                return None
            return {field: value for field, value in manifest.items() if field not in without}

        names = [file.name for file in self.storage.files("features") if is_manifest(file)]
        found = zip(names, self.storage.side_by_side(read, names), strict=True)
        return {key_of(name): manifest for name, manifest in found if manifest is not None}

    def entries(self, without: Collection[str] = ("identity",)) -> list[dict[str, Any]]:
        """Every manifest, without some fields, newest first.

        With `used_by` (the links to it), `hits` (see `note_uses`) and `last_used`.
        """
        used_by: dict[str, list[dict[str, Any]]] = {}
        for link in self.storage.read_jsons(file.name for file in self.storage.files("links")):
            if link is not None:
                used_by.setdefault(link["key"], []).append({k: link[k] for k in ("db_path", "symbol", "timeframe")})
        uses = {key_of(file.name): file for file in self.storage.files("uses")}
        made = {key_of(file.name): file.written for file in self.storage.files("features") if is_manifest(file)}
        entries = []
        for key, manifest in self.manifests(without).items():
            use = uses.get(key, StoredFile(use_name(key), 0, 0.0))
            seen = datetime.fromtimestamp(max(use.written, made.get(key, 0.0)), UTC).isoformat(timespec="seconds")
            entries.append({**manifest, "used_by": used_by.get(key, []), "hits": use.size, "last_used": seen})
        return sorted(entries, key=lambda entry: (entry["created"], entry["key"]), reverse=True)

    def refresh_index(self) -> None:
        """Write index.json anew from what is there."""
        self._write_index({entry["key"]: entry for entry in self.entries(_NOT_IN_INDEX)})

    def add_to_index(self, key: str, source: str | Path | None, partition: Partition | None) -> None:
        """Add a new entry to index.json without looking at all the others."""
        known = (self.storage.read_json("index.json") or {}).get("entries")
        if known is None:
            return self.refresh_index()
        symbol, timeframe = (partition.symbol, partition.timeframe) if partition else (None, None)
        used_by = [{"db_path": str(source), "symbol": symbol, "timeframe": timeframe}] if source else []
        self._write_index(known | {key: {**(self.manifest(key) or {}), "used_by": used_by}})

    def _write_index(self, entries: dict[str, dict[str, Any]]) -> None:
        brief = {
            key: {name: value for name, value in entry.items() if name not in _NOT_IN_INDEX}
            for key, entry in entries.items()
        }
        self.storage.publish_json("index.json", {"entries": brief}, indent=1)

    def _in_use(self, keys: Collection[str], seconds: float) -> set[str]:
        """Those of some entries that were made, or noted as used, in the last so many seconds."""
        files = self.storage.existing(name(key) for key in keys for name in (use_name, manifest_name))
        return {key_of(name) for name, file in files.items() if file.written > time.time() - seconds}

    # A memo of what sources say, for `identity`; only where it is quicker than to read them again

    def recall(self, name: str) -> dict[str, Any] | None:
        """Return what `keep` kept under a name."""
        return self.storage.read_json(f"code/{name}.json") if self.storage.is_local else None

    def keep(self, name: str, value: dict[str, Any]) -> None:
        """Keep a value under a name, a hash of what it says."""
        if self.storage.is_local:
            try:
                self.storage.publish_json(f"code/{name}.json", value)
            except BitcornError:
                _log.debug("the code memo cannot be written in %s", self.storage.shown)
