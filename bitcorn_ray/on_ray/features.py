"""Features of many partitions over a cluster: a list of jobs, one pure function, a thin map."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from bitcorn_ray.cache.prepare import Source, prepare
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.clean import drop_duplicates
from bitcorn_ray.market.database import read_bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.quality import quality_flags, quality_report

__all__ = ["FeatureJob", "PartitionStatus", "compute_partition", "map_partitions"]

_BLOCKS_PER_CPU = 4  # a task costs some 20 ms: a few blocks a CPU balance the load, one a partition would not


@dataclass(frozen=True)
class FeatureJob:
    """One partition to compute; db_path and cache_dir are absolute."""

    db_path: str
    symbol: str
    timeframe: str
    system: str
    cache_dir: str


@dataclass(frozen=True)
class PartitionStatus:
    """What became of a partition. rows: of features. seconds: in the worker. error: None where it succeeded."""

    symbol: str
    timeframe: str
    rows: int = 0
    hit: bool = False
    seconds: float = 0.0
    flags: str = ""
    key: str = ""
    error: str | None = None


def compute_partition(job: FeatureJob) -> PartitionStatus:
    """Bring one partition's features into the cache; the same in a plain process and in a worker.

    Any failure becomes the status's error: one partition must not take the others of its block with it.
    """
    started = time.perf_counter()
    try:
        stored, partition = read_bars(job.db_path, job.symbol, job.timeframe)
        bars = drop_duplicates(stored)
        source = Source(Path(job.db_path), partition, complete=True)
        prepared = prepare(bars, SYSTEMS[job.system], FeatureCache(job.cache_dir), source)
        flags = quality_flags(quality_report(stored, partition.timeframe))
    except Exception as error:  # reported by name in the driver, which fails
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return PartitionStatus(job.symbol, job.timeframe, seconds=time.perf_counter() - started, error=text)
    return PartitionStatus(
        symbol=partition.symbol,
        timeframe=partition.timeframe,
        rows=len(next(iter(prepared.columns.values()))),
        hit=prepared.hit,
        seconds=time.perf_counter() - started,
        flags=", ".join(flags),
        key=prepared.key,
    )


def map_partitions(jobs: list[FeatureJob], on_done: Callable[[PartitionStatus], None]) -> list[PartitionStatus]:
    """Run `compute_partition` over the cluster by Ray Data; `on_done` is called as each result arrives.

    Returns the statuses in the order of their partitions.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # What happens is in the statuses; what fails comes as an exception.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    blocks = max(1, min(len(jobs), cpus * _BLOCKS_PER_CPU))
    dataset = ray.data.from_items([asdict(job) for job in jobs], override_num_blocks=blocks)
    done = []
    for row in dataset.map(_compute_row).iter_rows():
        status = PartitionStatus(**row)
        on_done(status)
        done.append(status)
    return sorted(done, key=lambda status: Partition(status.symbol, status.timeframe))


def _compute_row(row: dict[str, Any]) -> dict[str, Any]:
    return asdict(compute_partition(FeatureJob(**row)))
