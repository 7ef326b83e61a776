"""Statuses of partitions, and receipts: what was computed from a source, so that an unchanged one is not even read.

A receipt is a hint. It counts only while the file's fingerprint and the system are the same and its entries are whole
in the cache; otherwise the bars decide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bitcorn_ray.cache.store import FeatureCache, source_id
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import SystemIdentity
from bitcorn_ray.fingerprint.libraries import version_of
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import shown_source

_PACKAGE = __name__.partition(".")[0]
_RECORDED = ("symbol", "timeframe", "key", "rows", "flags", "base", "cleaning")  # of a status in a receipt


@dataclass(frozen=True, kw_only=True)
class PartitionStatus:
    """Result of one partition.

    rows: of features. hit: nothing was computed; unread: the bars were not even read. chunks: of the entry; computed:
    how many of them were computed now. seconds: in the worker. flags: defects of the bars. error: None on success.
    base: the stored timeframe that the bars were resampled from, None if they are stored. cleaning: counts of cleaned
    bars, see `cleaning_counts`; None without a policy.
    """

    symbol: str
    timeframe: str
    source: str
    rows: int = 0
    hit: bool = False
    unread: bool = False
    chunks: int = 0
    computed: int = 0
    seconds: float = 0.0
    flags: str = ""
    key: str = ""
    error: str | None = None
    superseded: tuple[str, ...] = ()
    base: str | None = None
    cleaning: dict[str, int] | None = None

    @property
    def partition(self) -> Partition:
        """Return the partition, stored or resampled."""
        return Partition(self.symbol, self.timeframe, self.base)

    @classmethod
    def failed(cls, partition: Partition, path: str, error: Exception | str) -> PartitionStatus:
        """Return the status of a partition that failed."""
        source = shown_source(path)
        return cls(symbol=partition.symbol, timeframe=partition.timeframe, source=source, error=error_text(error))


@dataclass(frozen=True, kw_only=True)
class FileReceipt:
    """The computed partitions of a file, as records of their statuses. whole: these are all its partitions."""

    fingerprint: str
    whole: bool
    partitions: list[dict[str, Any]]

    @classmethod
    def of(cls, fingerprint: str, whole: bool, statuses: Iterable[PartitionStatus]) -> FileReceipt:
        """Return the receipt of computed partitions."""
        records = [{name: getattr(status, name) for name in _RECORDED} for status in statuses]
        return cls(fingerprint=fingerprint, whole=whole, partitions=records)

    def statuses(self, path: str) -> dict[Partition, PartitionStatus]:
        """Return the statuses of the partitions while the file at a path is unchanged."""
        statuses = [PartitionStatus(**record, source=path, hit=True, unread=True) for record in self.partitions]
        return {status.partition: status for status in statuses}


def read_receipts(
    cache: FeatureCache, source: str | Path, identity: SystemIdentity, source_options: SourceOptions | None = None
) -> dict[str, FileReceipt]:
    """Return the receipts of a source's files by path."""
    stored = cache.storage.read_json(_name(source, identity, source_options)) or {"files": {}}
    return {path: FileReceipt(**record) for path, record in stored["files"].items()}


def write_receipts(
    cache: FeatureCache,
    source: str | Path,
    identity: SystemIdentity,
    receipts: Mapping[str, FileReceipt],
    source_options: SourceOptions | None = None,
) -> None:
    """Publish the receipts of a source's files. Raises BitcornError if the cache cannot be written."""
    files = {path: vars(receipt) for path, receipt in receipts.items()}
    cache.storage.publish_json(_name(source, identity, source_options), {"source": str(source), "files": files})


def error_text(error: Exception | str) -> str:
    """Return the message of an error; of an unexpected one with its type."""
    return str(error) if isinstance(error, BitcornError | str) else f"{type(error).__name__}: {error}"


def _name(source: str | Path, identity: SystemIdentity, source_options: SourceOptions | None) -> str:
    # Another version may read a file in another way, and so do other options; the requested symbol is in the statuses.
    reading = replace(source_options or SourceOptions(), default_symbol=None)
    options = None if reading == SourceOptions() else asdict(reading)
    text = json.dumps([version_of(_PACKAGE), identity.digest, options])
    return f"sources/{source_id(source)}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
