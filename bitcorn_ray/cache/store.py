"""The store: content-addressed Parquet entries in a folder that any number of processes share without locks.

    features/<key>.parquet       timestamp and the features, float32, warm-up dropped; page checksums inside
    features/<key>.meta.json     what the entry is; published last, so that an entry without it does not exist
    data_quality/<key>.json      the quality report of the bars
    links/<database>/<what>/<key>.json   a database uses this entry for a partition and system
    index.json                   a snapshot of all this for people; derived, never read as the truth

A link has a file of its own, named by its key, so that two writers never overwrite each other's. What cannot be read is
a miss and is written anew.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bitcorn_ray.cache.identity import KEY_LENGTH
from bitcorn_ray.cache.publish import TEMPORARY, publish, publish_json
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import FeatureSystem
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.partition import Partition, normalise_symbol

__all__ = ["FeatureCache", "StoredFeatures"]

_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
_KEY_FIELD = b"bitcorn_key"
# Float noise does not compress: plain pages are read back fastest.
_PARQUET = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}


@dataclass(frozen=True)
class StoredFeatures:
    """What an entry holds: (T - warmup,) float32 by feature name, and the quality report of the bars."""

    columns: dict[str, NDArray[np.float32]]
    quality: dict[str, Any]


class FeatureCache:
    """The cache in one folder, which is created when something is first written."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._features = self.folder / "features"
        self._quality = self.folder / "data_quality"
        self._links = self.folder / "links"

    # Entries

    def read(self, key: str, system: FeatureSystem) -> StoredFeatures | None:
        """Return an entry, or None where it is missing or cannot be read whole."""
        try:
            meta = json.loads((self._features / f"{key}.meta.json").read_bytes())
            quality = json.loads((self._quality / f"{key}.json").read_bytes())
            path = self._features / f"{key}.parquet"
            # One thread and a memory map: a few megabytes are read before a pool of threads has started.
            with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
                table = file.read(columns=list(system.features), use_threads=False)
        except (OSError, ValueError):  # pyarrow's errors are among these
            return None
        named = (table.schema.metadata or {}).get(_KEY_FIELD)
        if named != key.encode() or not isinstance(meta, dict) or table.num_rows != meta.get("rows"):
            return None
        return StoredFeatures({name: table.column(name).to_numpy() for name in system.features}, quality)

    def write(
        self, key: str, system: FeatureSystem, stored: StoredFeatures, timestamp: NDArray[np.int64] | None
    ) -> None:
        """Publish an entry. timestamp: (T - warmup,) int64 milliseconds.

        Raises BitcornError where the folder cannot be written.
        """
        table = _to_arrow(key, stored.columns, timestamp)
        rows = table.num_rows
        path = self._features / f"{key}.parquet"
        try:
            publish(path, lambda temporary: pq.write_table(table, temporary, **_PARQUET))
            publish_json(self._quality / f"{key}.json", stored.quality)
            publish_json(
                self._features / f"{key}.meta.json",
                {
                    "key": key,
                    "system": system.name,
                    "version": system.version,
                    "features": list(system.features),
                    "warmup": system.warmup,
                    "rows": rows,
                    "first_timestamp": None if timestamp is None or rows == 0 else show_time(int(timestamp[0])),
                    "last_timestamp": None if timestamp is None or rows == 0 else show_time(int(timestamp[-1])),
                    "bytes": path.stat().st_size,
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise BitcornError(
                f"the cache folder {self.folder} cannot be written: {error}; give another cache folder or turn the "
                "cache off"
            ) from error

    # Links

    def link(self, key: str, system: str, db_path: Path, partition: Partition | None, complete: bool) -> None:
        """Note that a database uses an entry for a partition and system.

        complete: the entry holds all bars that the database had; it then takes the place of an older such entry,
        which is dropped. Entries of slices (a limit, a fold) are never dropped here.
        """
        folder = self._links / _database_id(db_path) / _link_id(partition, system)
        path = folder / f"{key}.json"
        known = _read_json(path)
        if known is None or (complete and not known.get("complete")):
            content = {
                "key": key,
                "db_path": str(db_path),
                "symbol": partition.symbol if partition else None,
                "timeframe": partition.timeframe if partition else None,
                "system": system,
                "complete": complete,
            }
            try:
                publish_json(path, content)
            except OSError as error:
                raise BitcornError(f"the cache folder {self.folder} cannot be written: {error}") from error
        if complete:
            for other in folder.glob("*.json"):
                if other != path and (_read_json(other) or {}).get("complete"):
                    other.unlink(missing_ok=True)
                    self._remove_unneeded(other.stem)

    def invalidate(self, db_path: str | Path | None = None) -> int:
        """Forget what a database uses, or everything.

        With a database, removes its links and the entries that no link needs any more, and returns how many entries it
        used. Without, removes all entries and returns their number.
        """
        if db_path is None:
            count = len(self._keys())
            for path in self._own_files():
                path.unlink(missing_ok=True)
        else:
            links = list((self._links / _database_id(Path(db_path))).glob("*/*.json"))
            for link in links:
                link.unlink(missing_ok=True)
            keys = {link.stem for link in links}
            for key in keys:
                self._remove_unneeded(key)
            count = len(keys)
        if self.folder.is_dir():
            self.refresh_index()
        return count

    # What is there

    def entries(self) -> list[dict[str, Any]]:
        """Every entry's meta data with `used_by`: the databases and partitions that link to it; newest first."""
        used_by: dict[str, list[dict[str, Any]]] = {}
        for path in self._links.glob("*/*/*.json"):
            if (link := _read_json(path)) is not None:
                used_by.setdefault(path.stem, []).append({k: link.get(k) for k in ("db_path", "symbol", "timeframe")})
        metas = (_read_json(self._features / f"{key}.meta.json") for key in self._keys())
        found = [{**meta, "used_by": used_by.get(meta["key"], [])} for meta in metas if meta and "key" in meta]
        return sorted(found, key=lambda meta: (meta["created"], meta["key"]), reverse=True)

    def refresh_index(self) -> None:
        """Write index.json anew from what is in the folder."""
        entries = {entry["key"]: entry for entry in self.entries()}
        try:
            publish_json(self.folder / "index.json", {"entries": entries})
        except OSError as error:
            raise BitcornError(f"the cache folder {self.folder} cannot be written: {error}") from error

    def _keys(self) -> list[str]:
        return [path.name.removesuffix(".meta.json") for path in self._features.glob("*.meta.json") if _is_ours(path)]

    def _remove_unneeded(self, key: str) -> None:
        if any(self._links.glob(f"*/*/{key}.json")):
            return
        # The meta file first: without it the entry does not exist for any reader.
        for path in (
            self._features / f"{key}.meta.json",
            self._features / f"{key}.parquet",
            self._quality / f"{key}.json",
        ):
            path.unlink(missing_ok=True)

    def _own_files(self) -> Iterator[Path]:
        """Every file that this store has written, meta files first; not what else lies there (older entries)."""
        patterns = ((self._features, "*.meta.json"), (self._features, "*.parquet"), (self._quality, "*.json"))
        for folder, pattern in (*patterns, (self._links, "*/*/*.json")):
            yield from filter(_is_ours, folder.glob(pattern))
        yield from self.folder.glob(f"**/{TEMPORARY}*")


def _to_arrow(key: str, columns: dict[str, NDArray[np.float32]], timestamp: NDArray[np.int64] | None) -> pa.Table:
    arrays: dict[str, pa.Array] = {name: pa.array(column) for name, column in columns.items()}
    if timestamp is not None:
        arrays = {"timestamp": pa.array(timestamp, pa.timestamp("ms", "UTC")), **arrays}
    # Not nullable: NaN is a value here, and pages without levels are read a third faster. The key inside the file tells
    # an entry from another one's file under its name.
    fields = [pa.field(name, array.type, nullable=False) for name, array in arrays.items()]
    return pa.table(list(arrays.values()), schema=pa.schema(fields, metadata={_KEY_FIELD: key}))


def _is_ours(path: Path) -> bool:
    """Tell whether a file is named by a key of ours."""
    return _KEY.fullmatch(path.name.partition(".")[0]) is not None


def _database_id(db_path: Path) -> str:
    return hashlib.sha256(str(db_path.expanduser().resolve()).encode()).hexdigest()[:16]


def _link_id(partition: Partition | None, system: str) -> str:
    # Hashed, as a symbol may hold characters that a file name must not.
    names = [normalise_symbol(partition.symbol), partition.timeframe] if partition else []
    return hashlib.sha256(json.dumps([*names, system]).encode()).hexdigest()[:16]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
