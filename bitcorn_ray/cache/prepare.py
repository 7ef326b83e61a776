"""Features through the cache: the one path that front doors and Ray workers share.

1. Make the key from the bars and the system. 2. Read the entry; where there is none, compute it and publish it.
3. Link the database to it. With the cache off only the computing remains, and the features are equal bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.cache.identity import entry_key
from bitcorn_ray.cache.store import FeatureCache, StoredFeatures
from bitcorn_ray.features.registry import FeatureSystem
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.quality import quality_report

__all__ = ["PreparedFeatures", "Source", "prepare"]


@dataclass(frozen=True)
class Source:
    """Where bars came from: the database, the partition where it is known, and whether these are all of its bars."""

    db_path: Path
    partition: Partition | None = None
    complete: bool = False


@dataclass(frozen=True)
class PreparedFeatures:
    """Features of T bars.

    columns: (T - warmup,) float32 by feature name. quality: report of the bars. key: identity of the entry.
    hit: they came out of the cache.
    """

    key: str
    columns: dict[str, NDArray[np.float32]]
    quality: dict[str, Any]
    hit: bool


def prepare(bars: Bars, system: FeatureSystem, cache: FeatureCache | None, source: Source | None) -> PreparedFeatures:
    """Read or compute the features of usable bars; `cache` None computes always.

    Raises BitcornError as `FeatureSystem.compute` does, and where the cache cannot be written.
    """
    key = entry_key(bars, system)
    stored = cache.read(key, system) if cache else None
    hit = stored is not None
    if stored is None:
        stored = StoredFeatures(system.compute(bars), quality_report(bars))
        if cache:
            timestamp = None if bars.timestamp is None else bars.timestamp[system.warmup :]
            cache.write(key, system, stored, timestamp)
    if cache and source:
        cache.link(key, system.name, source.db_path, source.partition, source.complete)
    return PreparedFeatures(key, stored.columns, stored.quality, hit)
