"""Receipts: what was computed from a source, so that an unchanged source is not even read.

A receipt is a hint. It counts only while the file's fingerprint and the system are the same and its entries are whole
in the cache; otherwise the bars decide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitcorn_ray.cache.store import FeatureCache, source_id
from bitcorn_ray.features.identity import SystemIdentity
from bitcorn_ray.fingerprint.libraries import version_of
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.options import Reading

_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class PartitionReceipt:
    """The computed entry of a partition: its key, its rows of features, and the defects of the bars.

    base: the timeframe that the bars were resampled from, None if they are stored. cleaning: counts of cleaned bars,
    None without a policy.
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
        """The partition, stored or resampled."""
        return Partition(self.symbol, self.timeframe, self.base)


@dataclass(frozen=True, kw_only=True)
class FileReceipt:
    """The computed partitions of a file. whole: these are all its partitions."""

    fingerprint: str
    whole: bool
    partitions: tuple[PartitionReceipt, ...]


def read_receipts(
    cache: FeatureCache, source: str | Path, identity: SystemIdentity, reading: Reading | None = None
) -> dict[str, FileReceipt]:
    """Return the receipts of a source's files by path."""
    stored = cache.storage.read_json(_name(source, identity, reading)) or {"files": {}}
    return {path: _file_receipt(record) for path, record in stored["files"].items()}


def write_receipts(
    cache: FeatureCache,
    source: str | Path,
    identity: SystemIdentity,
    receipts: Mapping[str, FileReceipt],
    reading: Reading | None = None,
) -> None:
    """Publish the receipts of a source's files. Raises BitcornError if the cache cannot be written."""
    files = {path: asdict(receipt) for path, receipt in receipts.items()}
    cache.storage.publish_json(_name(source, identity, reading), {"source": str(source), "files": files})


def _file_receipt(record: Mapping[str, Any]) -> FileReceipt:
    partitions = tuple(PartitionReceipt(**each) for each in record["partitions"])
    return FileReceipt(fingerprint=record["fingerprint"], whole=record["whole"], partitions=partitions)


def _name(source: str | Path, identity: SystemIdentity, reading: Reading | None) -> str:
    # Another version may read a file in another way, and so do other options.
    options = None if reading is None or reading == Reading() else asdict(reading)
    text = json.dumps([version_of(_PACKAGE), identity.digest, options])
    return f"sources/{source_id(source)}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
