"""The feature cache: content-addressed bytes that any number of processes and machines share without locks.

    features/<chunk>.parquet     a chunk: columns of a stretch of rows (see `chunks`)
    features/<entry>.meta.json   the manifest: the chunks of an entry and what identifies them; published last
    data_quality/<entry>.json    a report that belongs to an entry
    links/<source>-<group>/<entry>.json  a source uses this entry
    sources/<source>-<system>.json       receipts of a source, see `features.receipts`
    uses/<entry>                 a byte for each hit; its time is the time of the last use
    code/<name>.json             facts of parsed sources, see `fingerprint.code.Memo`
    index.json                   a summary for people; derived, and never trusted

Names are hashes of what they contain. A missing, torn or damaged file is a miss and is written again.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.chunks import decode_chunk, encode_chunk
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import logger_of
from bitcorn_ray.storage.location import require_persistent, shown_uri
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import Storage, StoredFile
from bitcorn_ray.storage.traffic import count_traffic

FEATURE_CACHE_DIR = Path("cache/data_pipeline")
"""The default cache folder, below the working directory. The environment variable BITCORN_CACHE_DIR overrides it."""

FORMAT = 2  # of chunks and manifests; another format makes other keys
KEY_LENGTH = 32  # hexadecimal digits: 128 bits
GRACE_SECONDS = 3_600.0  # entries used more recently are never pruned: a running job may be reading them

_NOTE_USE_SECONDS = 600.0  # on an object store, uses are recorded no more often
_NOT_IN_INDEX = ("chunks", "hits", "last_used")
_READERS = 2  # threads that read chunks of a local entry: decoding releases Python's lock
_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
_log = logger_of(__name__)


def open_cache(cache_dir: Path | str | None = None) -> FeatureCache:
    """Return the cache in a folder or at a URI: the given one, else BITCORN_CACHE_DIR, else `FEATURE_CACHE_DIR`.

    Raises BitcornError for a local folder in a job of a cluster, whose other nodes could not see it.
    """
    if cache_dir is None or cache_dir is FEATURE_CACHE_DIR:
        cache_dir = os.environ.get("BITCORN_CACHE_DIR") or FEATURE_CACHE_DIR
    require_persistent(cache_dir, "the cache", "set BITCORN_CACHE_DIR or --cache-dir, such as s3://bucket/cache")
    return FeatureCache(cache_dir)


class FeatureCache:
    """The cache in one folder or at one URI; nothing is created before something is written.

    grace: seconds for which a used entry is kept when it is superseded or pruned.
    Raises BitcornError for a URI that pyarrow does not understand, and for a local file.
    """

    def __init__(self, location: str | Path, grace: float = GRACE_SECONDS) -> None:
        self.storage = Storage(location, "cache", "give another one or turn the cache off")
        self.grace = grace
        if self.storage.is_file:
            raise BitcornError(f"the cache at {self.storage.shown} is a file: give a folder")

    # Chunks

    def read_chunks(self, names: Sequence[str], chunks: Sequence[tuple[str, NDArray[np.float32]]]) -> set[str]:
        """Read chunks, each a key and an array (F, rows) to fill; return the keys that are missing or damaged.

        A damaged file is logged. It is replaced when its chunk is written again.
        """

        def read(chunk: tuple[str, NDArray[np.float32]]) -> int:
            key, out = chunk
            try:
                content = self.storage.read(chunk_name(key))
                for row, column in zip(out, decode_chunk(content, key, names, np.float32, out.shape[1]), strict=True):
                    row[:] = column
            except BitcornError as error:
                _log.warning(
                    "chunk %s in the cache %s is damaged, computing it again: %s", key, self.storage.shown, error
                )
                return 0
            except OSError:
                return 0
            return len(content)

        sizes = self.storage.side_by_side(read, list(chunks), _READERS)
        count_traffic(bytes_read=sum(sizes))
        return {key for (key, _), size in zip(chunks, sizes, strict=True) if not size}

    def missing_chunks(self, key: str, names: Sequence[str], rows: Mapping[str, int]) -> set[str]:
        """Return the chunks of an entry that the cache lacks; they are read only if their sizes are wrong.

        rows: number of rows of each chunk by its key.
        """
        existing = self.storage.existing(map(chunk_name, rows))
        missing = {chunk for chunk in rows if chunk_name(chunk) not in existing}
        manifest = None if missing else self.manifest(key)
        if missing or (manifest is not None and manifest["bytes"] == sum(file.size for file in existing.values())):
            return missing
        return self.read_chunks(names, [(chunk, np.empty((len(names), n), np.float32)) for chunk, n in rows.items()])

    def write_chunk(self, key: str, columns: Mapping[str, NDArray[Any]]) -> None:
        """Publish a chunk of columns (rows,). Raises BitcornError if the cache cannot be written."""
        content = encode_chunk(key, columns)
        self.storage.publish(chunk_name(key), content)
        count_traffic(bytes_written=len(content))

    def read_column(self, key: str, name: str, dtype: Any, rows: int) -> NDArray[Any] | None:
        """Return a column (rows,) of a chunk, or None if the chunk is missing or damaged."""
        try:
            return decode_chunk(self.storage.read(chunk_name(key)), key, [name], dtype, rows)[0]
        except (BitcornError, OSError):
            return None

    # Entries

    def write_entry(self, key: str, manifest: Mapping[str, Any]) -> None:
        """Publish the manifest of an entry, whose `chunks` (`key`, `rows`, ...) are in the cache.

        Raises BitcornError if the cache cannot be written.
        """
        sizes = self.storage.existing(chunk_name(chunk["key"]) for chunk in manifest["chunks"])
        record = {
            "key": key,
            **manifest,
            "bytes": sum(file.size for file in sizes.values()),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.storage.publish_json(manifest_name(key), record)

    def manifest(self, key: str) -> dict[str, Any] | None:
        """Return the manifest of an entry, or None if it is missing, damaged or of another format."""
        manifest = self.storage.read_json(manifest_name(key))
        return manifest if manifest is not None and is_understood(manifest) else None

    def whole_entries(self, keys: Collection[str]) -> set[str]:
        """Return the entries whose manifest and chunks are in the cache with the right sizes."""
        keys = list(dict.fromkeys(keys))
        read = zip(keys, self.storage.read_jsons(map(manifest_name, keys)), strict=True)
        manifests = {key: manifest for key, manifest in read if manifest}
        chunks = {key: {chunk_name(chunk["key"]) for chunk in each["chunks"]} for key, each in manifests.items()}
        existing = self.storage.existing(set().union(*chunks.values()))
        sizes = {key: sum(existing[name].size for name in names & existing.keys()) for key, names in chunks.items()}
        whole = {key for key, names in chunks.items() if names <= existing.keys()}
        return {key for key in whole if sizes[key] == manifests[key]["bytes"]}

    def quality(self, key: str) -> dict[str, Any] | None:
        """Return the quality report of an entry, or None."""
        return self.storage.read_json(f"data_quality/{key}.json")

    def write_quality(self, key: str, report: dict[str, Any]) -> None:
        """Publish the quality report of an entry. Raises BitcornError if the cache cannot be written."""
        self.storage.publish_json(f"data_quality/{key}.json", report, indent=1)

    def note_uses(self, keys: Collection[str]) -> None:
        """Count a hit of each entry, which then is in use for `prune`. A read-only cache counts none.

        On an object store only one hit in ten minutes is counted, because each costs requests.
        """
        # Uses within the grace period must be visible to `prune`.
        often = min(_NOTE_USE_SECONDS, self.grace / 2)
        noted = set[str]() if self.storage.is_local else self._in_use(keys, often)
        try:
            for key in set(keys) - noted:
                self.storage.add_mark(f"uses/{key}")
        except BitcornError:
            _log.debug("uses cannot be noted in %s", self.storage.shown)

    # Links

    def link(self, key: str, source: str | Path, group: str, record: Mapping[str, Any], complete: bool) -> list[str]:
        """Record that a source uses an entry; return the links that this one supersedes, for `forget`.

        group: entries of a source with equal groups replace each other. record: `symbol`, `timeframe` and `system`.
        complete: the entry covers all data of the source. Only then does it supersede older complete entries; entries
        of slices (a limit, a fold) supersede nothing and are not superseded.
        """
        folder = link_folder(source, group)
        name = f"{folder}/{key}.json"
        known = self.storage.read_json(name)
        if known is None or (complete and not known.get("complete")):
            self.storage.publish_json(name, {"key": key, "db_path": str(source), **record, "complete": complete})
        if not complete:
            return []
        others = [file.name for file in self.storage.files(folder) if file.name != name and file.name.endswith(".json")]
        links = zip(others, self.storage.read_jsons(others), strict=True)
        return [other for other, link in links if link is None or link.get("complete")]

    def links_of(self, source: str | Path) -> list[dict[str, Any]]:
        """Return the links of a source, newest first."""
        return [link for link in self.storage.read_jsons(self._link_names(source)) if link is not None]

    def _link_names(self, source: str | Path) -> list[str]:
        start = f"links/{source_id(source)}-"
        files = [f for f in self.storage.files("links") if f.name.startswith(start) and f.name.endswith(".json")]
        return [file.name for file in sorted(files, key=lambda file: -file.written)]

    def forget(self, links: Collection[str], grace: float | None = None) -> int:
        """Remove links, and the entries without any other link; return the number of removed entries.

        grace: keep entries, and their links, that were used in the last so many seconds; by default the cache's grace.
        """
        if not links:
            return 0
        in_use = self._in_use({key_of(name) for name in links}, self.grace if grace is None else grace)
        removed = [name for name in links if key_of(name) not in in_use]
        self.storage.delete(removed)
        linked = {key_of(file.name) for file in self.storage.files("links")}
        return self.remove_entries({key_of(name) for name in removed} - linked)

    def remove_entries(self, keys: Collection[str]) -> int:
        """Remove entries, and the chunks that no other entry has; return the number of entries that existed."""
        if not keys:
            return 0
        manifests = self.manifests(keys)
        # Manifests first: without its manifest an entry does not exist for any reader.
        for name in ("features/{}.meta.json", "data_quality/{}.json", "uses/{}"):
            self.storage.delete(name.format(key) for key in keys)
        needed = {chunk["key"] for manifest in self.manifests().values() for chunk in manifest["chunks"]}
        unneeded = {chunk["key"] for manifest in manifests.values() for chunk in manifest["chunks"]} - needed
        self.storage.delete(chunk_name(key) for key in unneeded)
        return len(manifests)

    def invalidate(self, source: str | Path | None = None) -> int:
        """Remove what a source uses, or everything, without a grace period; return the number of entries.

        With a source, entries that another source uses too are kept.
        """
        if source is None:
            files = [file for file in self.storage.files() if is_ours(file)]
            manifests = [file.name for file in files if is_manifest(file)]
            count = len(manifests)
            self.storage.delete(manifests)
            self.storage.delete({file.name for file in files} - set(manifests))
        else:
            names = self._link_names(source)
            count = len({key_of(name) for name in names})
            self.forget(names, grace=0.0)
            self.storage.delete([file.name for file in self.storage.files("sources") if source_id(source) in file.name])
        if count or self.storage.existing(["index.json"]):
            self.refresh_index()
        return count

    # Overview

    def manifests(self, keys: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the readable manifests of some entries, or of all, by key.

        They lack their field `identity`: the identities of all entries together take much memory.
        """

        def read(name: str) -> dict[str, Any] | None:
            manifest = self.storage.read_json(name)
            if manifest is None or not is_understood(manifest):
                return None
            return {field: value for field, value in manifest.items() if field != "identity"}

        names = [file.name for file in self.storage.files("features") if is_manifest(file)]
        if keys is not None:
            names = [name for name in names if key_of(name) in keys]
        found = zip(names, self.storage.side_by_side(read, names), strict=True)
        return {key_of(name): manifest for name, manifest in found if manifest is not None}

    def entries(self, keys: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Return the manifests of some entries, or of all, newest first, with `used_by`, `hits` and `last_used`."""
        links = [f.name for f in self.storage.files("links") if keys is None or key_of(f.name) in keys]
        used_by: dict[str, list[dict[str, Any]]] = {}
        for link in self.storage.read_jsons(links):
            if link is not None:
                used_by.setdefault(link["key"], []).append({k: link[k] for k in ("db_path", "symbol", "timeframe")})
        uses = {key_of(file.name): file for file in self.storage.files("uses")}
        made = {key_of(file.name): file.written for file in self.storage.files("features") if is_manifest(file)}
        entries = []
        for key, manifest in self.manifests(keys).items():
            use = uses.get(key, StoredFile(f"uses/{key}", 0, 0.0))
            last = datetime.fromtimestamp(max(use.written, made.get(key, 0.0)), UTC).isoformat(timespec="seconds")
            entries.append({**manifest, "used_by": used_by.get(key, []), "hits": use.size, "last_used": last})
        return sorted(entries, key=lambda entry: (entry["created"], entry["key"]), reverse=True)

    def refresh_index(self) -> None:
        """Write index.json. Manifests and links are read only of entries that it lacks."""
        existing = {key_of(file.name) for file in self.storage.files("features") if is_manifest(file)}
        listed = (self.storage.read_json("index.json") or {"entries": {}})["entries"]
        kept = {key: entry for key, entry in listed.items() if key in existing}
        new = {
            entry["key"]: {name: value for name, value in entry.items() if name not in _NOT_IN_INDEX}
            for entry in self.entries(existing - kept.keys())
        }
        self.storage.publish_json("index.json", {"entries": {**kept, **new}}, indent=1)

    def _in_use(self, keys: Collection[str], seconds: float) -> set[str]:
        """Return the entries that were made or used in the last so many seconds."""
        files = self.storage.existing(name for key in keys for name in (f"uses/{key}", manifest_name(key)))
        return {key_of(name) for name, file in files.items() if file.written > time.time() - seconds}

    # Facts of parsed sources, see `fingerprint.code.Memo`; only where reading them is faster than parsing

    def recall(self, name: str) -> dict[str, Any] | None:
        """Return the value stored under a name, or None."""
        return self.storage.read_json(f"code/{name}.json") if self.storage.is_local else None

    def keep(self, name: str, value: dict[str, Any]) -> None:
        """Store a value under a name, if the cache is an existing folder that can be written."""
        if self.storage.is_local and os.path.isdir(self.storage.address):
            try:
                self.storage.publish_json(f"code/{name}.json", value)
            except BitcornError:
                _log.debug("parsed sources cannot be stored in %s", self.storage.shown)


# Names of files


def chunk_name(key: str) -> str:
    """Return the file of a chunk."""
    return f"features/{key}.parquet"


def manifest_name(key: str) -> str:
    """Return the file of an entry's manifest."""
    return f"features/{key}.meta.json"


def key_of(name: str) -> str:
    """Return the key that a file is named after."""
    return name.rpartition("/")[2].partition(".")[0]


def source_id(source: str | Path) -> str:
    """Return the short name of a source: a hash of its real path, or of its URI without secrets."""
    text = str(source)
    return _hashed(shown_uri(text) if "://" in text else os.path.realpath(Path(source).expanduser()))


def link_folder(source: str | Path, group: str) -> str:
    """Return the folder of a source's links in a group. Both are hashed: symbols may hold any character."""
    return f"links/{source_id(source)}-{_hashed(group)}"


def is_understood(manifest: Mapping[str, Any]) -> bool:
    """Return True if a manifest is of the current format."""
    identity = manifest.get("identity")
    return isinstance(identity, dict) and identity.get("format") == FORMAT


def is_manifest(file: StoredFile) -> bool:
    """Return True if a file is the manifest of an entry."""
    return file.name.endswith(".meta.json") and is_ours(file)


def is_ours(file: StoredFile) -> bool:
    """Return True if this cache wrote a file. The older `data_pipeline` kept its files in the same folders."""
    folder = file.name.partition("/")[0]
    if folder in ("links", "sources", "uses", "code") or file.name.rpartition("/")[2].startswith(TEMPORARY):
        return True
    return folder in ("features", "data_quality") and _KEY.fullmatch(key_of(file.name)) is not None


def keys_in(record: Any) -> Iterator[str]:
    """Yield the keys of entries that a JSON record names, at any depth."""
    for value in record.values() if isinstance(record, dict) else record:
        if isinstance(value, dict | list):
            yield from keys_in(value)
    if isinstance(record, dict) and isinstance(record.get("key"), str):
        yield record["key"]


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
