"""One measurement of a cluster, or of one long partition, in a process of its own, so that its memory is its own.

    python -m benchmarks.cluster_point nodes NODES LAKE WARM_UP FOLDER
    python -m benchmarks.cluster_point partition SYSTEM LAKE FOLDER

The first runs v2 of all partitions of a lake over a head without CPUs and so many nodes of one CPU, all on this
machine, after doing so with another lake, which starts the workers. The second does in this process what a worker does
with the one partition of a lake. Both write below the folder, and print a line of JSON: seconds, MiB and bytes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.memory import highest, peak, proc_mib
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features.compute import compute_jobs, finish_features
from bitcorn_ray.features.plan import FeaturePlan, plan_features
from bitcorn_ray.features.receipts import PartitionStatus
from bitcorn_ray.features.registry import SYSTEMS

_STORE_BYTES = 200_000_000  # of each node


def main() -> None:
    """Measure what the arguments say."""
    what, *arguments = sys.argv[1:]
    told = on_nodes(int(arguments[0]), *map(Path, arguments[1:])) if what == "nodes" else one_partition(*arguments)
    print(json.dumps(told))


def on_nodes(nodes: int, lake: Path, warm_up: Path, folder: Path) -> dict[str, float]:
    """Seconds of each part of the work, and what driver and object stores hold."""
    from ray.cluster_utils import Cluster

    from bitcorn_ray.on_ray.session import ray_session

    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    cluster: Any = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE_BYTES},
    )
    for _ in range(nodes):
        cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
    try:
        with ray_session(cluster.address):
            first = _features(warm_up, folder / "warm")
            before, started = proc_mib("RssAnon"), time.perf_counter()
            with highest(lambda: proc_mib("RssAnon")) as driver, highest(_stored) as store:
                told = _features(lake, folder / "cache")
            whole = time.perf_counter() - started
        return {**told, "first": first["mapping"], "whole": whole, "driver": driver[0] - before, "store": store[0]}
    finally:
        cluster.shutdown()


def _features(lake: Path, cache_dir: Path) -> dict[str, float]:
    """What `compute_features` does, step by step; computing is the sum over the workers."""
    from bitcorn_ray.on_ray.map import map_balanced

    cache, times = FeatureCache(cache_dir), [time.perf_counter()]
    plan = plan_features(lake, SYSTEMS["v2"], cache)
    times.append(time.perf_counter())
    done: list[PartitionStatus]
    done, lost = map_balanced(
        partial(compute_jobs, work=plan.work),
        plan.jobs,
        [job.size for job in plan.jobs],
        plan.work.code,
        lambda _: None,
    )
    times.append(time.perf_counter())
    _finish(plan, done, cache)
    times.append(time.perf_counter())
    assert not lost
    planning, mapping, finishing = (late - early for early, late in pairwise(times))
    computing = sum(status.seconds for status in done)
    return {"planning": planning, "mapping": mapping, "finishing": finishing, "computing": computing}


def _finish(plan: FeaturePlan, done: list[PartitionStatus], cache: FeatureCache) -> None:
    statuses = finish_features(plan, done, cache)
    failed = [status for status in statuses if status.error or status.hit]
    assert not failed, failed[0]


def one_partition(system: str, lake: str, folder: str) -> dict[str, float]:
    """Seconds of reading, computing and writing, the peak above what the libraries take, and bytes on disk."""
    cache = FeatureCache(folder)
    plan = plan_features(lake, SYSTEMS[system], cache)
    libraries, started = peak(), time.perf_counter()
    done = compute_jobs(plan.jobs, plan.work)
    seconds, most = time.perf_counter() - started, peak()
    _finish(plan, done, cache)
    return {
        "seconds": seconds,
        "rows": done[0].rows,
        "peak": most,
        "above": most - libraries,
        "bars_bytes": _bytes(Path(lake)),
        "features_bytes": _bytes(Path(folder) / "features"),
    }


def _stored() -> float:
    """MiB in the object stores of all nodes: Ray counts what is used as not available."""
    ray: Any = sys.modules["ray"]
    have, left = ray.cluster_resources(), ray.available_resources()
    return float(have.get("object_store_memory", 0.0) - left.get("object_store_memory", 0.0)) / 2**20


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.parquet"))


if __name__ == "__main__":
    main()
