"""Receipts: what was computed from a source, so that one that has not changed is not even read.

A receipt is a hint, never the truth: it counts only while each file's fingerprint is the same, the system is the same,
and the entries that it names are in the cache whole. Anything else, and the bars decide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitcorn_ray.cache.names import chunk_name, manifest_name, source_id
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features.identity import SystemIdentity
from bitcorn_ray.fingerprint import version_of
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.options import Reading

__all__ = ["FileReceipt", "PartitionReceipt", "keys_of_receipt", "read_receipt", "whole_entries", "write_receipt"]

_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class PartitionReceipt:
    """What a partition of a file gave: the entry's key, its rows of features, what is wrong with the bars.

    base: the timeframe that its bars were put together from, None where they are stored. cleaning: what was done to the
    bars, None without a policy.
    """

    symbol: str
    timeframe: str
    key: str
    rows: int
    flags: str
    base: str | None = None
    cleaning: dict[str, int] | None = None

    @property
    def partition(self) -> Partition:
        """The partition, as stored or put together."""
        return Partition(self.symbol, self.timeframe, self.base)


@dataclass(frozen=True, kw_only=True)
class FileReceipt:
    """What a file gave. whole: these are all its partitions."""

    fingerprint: str
    whole: bool
    partitions: tuple[PartitionReceipt, ...]


def read_receipt(
    cache: FeatureCache, source: str | Path, identity: SystemIdentity, reading: Reading | None = None
) -> dict[str, FileReceipt]:
    """Receipts of a source's files by path; empty where there are none."""
    stored = cache.storage.read_json(_name(source, identity, reading)) or {"files": {}}
    return {path: _file_receipt(record) for path, record in stored["files"].items()}


def write_receipt(
    cache: FeatureCache,
    source: str | Path,
    identity: SystemIdentity,
    receipts: Mapping[str, FileReceipt],
    reading: Reading | None = None,
) -> None:
    """Publish the receipts of a source's files. Raises BitcornError where that cannot be done."""
    files = {path: asdict(receipt) for path, receipt in receipts.items()}
    cache.storage.publish_json(_name(source, identity, reading), {"source": str(source), "files": files})


def keys_of_receipt(record: Mapping[str, Any]) -> list[str]:
    """Keys of the entries that a stored record of receipts names."""
    return [partition["key"] for receipt in record["files"].values() for partition in receipt["partitions"]]


def whole_entries(cache: FeatureCache, keys: Iterable[str]) -> set[str]:
    """Return those of some entries whose manifest and chunks are all in the cache, none of them cut."""
    keys = list(dict.fromkeys(keys))
    read = zip(keys, cache.storage.read_jsons(manifest_name(key) for key in keys), strict=True)
    manifests = {key: manifest for key, manifest in read if manifest}
    chunks = {key: {chunk_name(chunk["key"]) for chunk in each["chunks"]} for key, each in manifests.items()}
    there = cache.storage.existing(set().union(*chunks.values()))
    sizes = {key: sum(there[name].size for name in names & there.keys()) for key, names in chunks.items()}
    return {key for key, names in chunks.items() if names <= there.keys() and sizes[key] == manifests[key]["bytes"]}


def _file_receipt(record: Mapping[str, Any]) -> FileReceipt:
    partitions = tuple(PartitionReceipt(**each) for each in record["partitions"])
    return FileReceipt(fingerprint=record["fingerprint"], whole=record["whole"], partitions=partitions)


def _name(source: str | Path, identity: SystemIdentity, reading: Reading | None) -> str:
    # Another version may read a file differently, and so does one who says more about it.
    said = None if reading is None or reading == Reading() else asdict(reading)
    read_as = json.dumps([version_of(_PACKAGE), identity.digest, said])
    of_system = hashlib.sha256(read_as.encode()).hexdigest()[:16]
    return f"sources/{source_id(source)}-{of_system}.json"
