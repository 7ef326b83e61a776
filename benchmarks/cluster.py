"""Many partitions on several nodes, and one as long as they get: what docs/scale.md computes from.

The nodes are Ray's own, each with one CPU, all on this machine: more of them than it has cores share these, so that
what is measured is what nodes cost, and not what they bring.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.timing import Figure, seconds_of
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.export import export_bars
from bitcorn_ray.sources.ingest import write_bars

__all__ = ["LONG_BARS", "SHORT_BARS", "cluster", "long_label", "long_partition", "node_label", "tasks"]

SHORT_BARS, LONG_BARS = 500, 8 * 365 * 1_440
_CPUS, _ROUNDS = 2, 3
_PARTS = {
    "whole": ("all of it", "s"),
    "planning": ("of it listing partitions and entries", "s"),
    "mapping": ("of it the map over the nodes", "s"),
    "finishing": ("of it the receipt and the index", "s"),
    "computing": ("reading, computing and writing, summed over workers", "s"),
    "idle": ("workers that wait, CPU-seconds a partition", "s"),
    "driver": ("what the driver's memory grows by", "MiB"),
    "store": ("most that the object stores held", "MiB"),
}
_FIRST = "the first map on a new cluster"
_LONG = {
    "seconds": ("read, computed and written", 1.0, "s"),
    "above": ("peak above the libraries", 1.0, "MiB"),
    "peak": ("peak of the process", 1.0, "MiB"),
    "features_bytes": ("its features in the cache", 2.0**-20, "MiB"),
    "bars_bytes": ("its bars as Parquet", 2.0**-20, "MiB"),
}


def node_label(nodes: int, part: str) -> str:
    """Name of a figure of `cluster`; part: "first", or a name that `cluster_point` tells."""
    return f"{nodes} node{'s' * (nodes > 1)}: {_FIRST if part == 'first' else _PARTS[part][0]}"


def long_label(system: str, part: str) -> str:
    """Name of a figure of `long_partition`."""
    return f"{system}: {_LONG[part][0]}"


def cluster(counts: Sequence[int] = (10, 100, 1_000, 5_000), nodes: Sequence[int] = (1, 2, 4)) -> list[Figure]:
    """V2 of so many partitions of 500 bars in a Parquet lake, cold, on so many nodes, each time in new processes."""
    figures = list[Figure]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lakes = {count: _lake(folder / f"lake{count}", count) for count in counts}
        warm_up = _lake(folder / "warm-up", 8 * max(nodes))
        for many in nodes:
            first = list[float]()
            for count in counts:
                told = _point("nodes", many, lakes[count], warm_up, folder / f"nodes{many}-{count}")
                first.append(told["first"])
                told["idle"] = (told["mapping"] * many - told["computing"]) / count
                figures += [
                    Figure(node_label(many, part), (told[part],), unit=unit, size=count)
                    for part, (_, unit) in _PARTS.items()
                ]
            figures.append(Figure(node_label(many, "first"), tuple(first)))
    return figures


def tasks(counts: Sequence[int] = (100, 1_000)) -> list[Figure]:
    """Groups of one job that does nothing, each a task of Ray Data: what the driver can hand out."""
    from bitcorn_ray.features.registry import SYSTEMS
    from bitcorn_ray.fingerprint.code import code_identity
    from bitcorn_ray.on_ray.pickling import pack
    from bitcorn_ray.on_ray.session import ray_session

    figures = []
    with ray_session("local", cpus=_CPUS):
        packed = pack(_nothing, code_identity(SYSTEMS["v2"].function))
        for count in counts:
            groups = [[number] for number in range(count)]
            run = partial(_handed_out, packed, groups)
            run()
            figures.append(
                Figure(
                    f"a task that does nothing, of so many on {_CPUS} CPUs",
                    tuple(seconds_of(run) / count for _ in range(_ROUNDS)),
                    size=count,
                )
            )
    return figures


def _handed_out(packed: bytes, groups: list[list[int]]) -> None:
    from bitcorn_ray.on_ray import map as balanced

    done: list[int]
    done, lost = balanced._map_groups(packed, groups, lambda _: None)
    assert (len(done), lost) == (len(groups), [])


def long_partition(bars: int = LONG_BARS) -> list[Figure]:
    """Eight years of one-minute bars of a symbol, from a Parquet lake into the cache, as a worker does it."""
    figures = list[Figure]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        minutes = simulate_bars(bars, seed=0, step_ms=60_000, gaps=0)
        write_bars([("simulated", Partition("SIM", "1m"), minutes)], folder / "market.db")
        export_bars(folder / "market.db", folder / "lake")
        for system in ("v2", "v4"):
            told = [_point("partition", system, folder / "lake", folder / f"{system}-{n}") for n in range(_ROUNDS)]
            figures += [
                Figure(long_label(system, part), tuple(each[part] * scale for each in told), unit=unit)
                for part, (_, scale, unit) in _LONG.items()
            ]
    return figures


def _lake(folder: Path, count: int) -> Path:
    written = (("x", Partition(f"S{n:04d}", "1h"), simulate_bars(SHORT_BARS, seed=n, gaps=0)) for n in range(count))
    write_bars(list(written), folder.with_suffix(".db"))
    export_bars(folder.with_suffix(".db"), folder)
    return folder


def _point(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.cluster_point", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parent.parent)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _nothing(jobs: list[int]) -> list[int]:
    return jobs
