"""Many partitions: Ray Data beside plain processes, and beside Qlib on the same work.

Nothing is deleted before the end: ext4 does not give out the inodes of files that were deleted in the last minutes, and
searching for others makes a new file cost 0.4 ms in place of 0.02. For the same reason TMPDIR should name a folder on
which nothing else works.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bars import many_partitions
from benchmarks.peers import run_peer
from benchmarks.timing import Figure
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.data_loader import compute_features
from bitcorn_ray.features.compute import compute_jobs, finish_features
from bitcorn_ray.features.plan import FeatureJob, FeatureWork, plan_features
from bitcorn_ray.features.registry import SYSTEMS

_PARTITIONS, _BARS, CPUS, _ROUNDS = 1_000, 2_000, 2, 3


def partitions() -> list[Figure]:
    """The same 1,000 partitions on Ray Data, which is up, and in two plain processes, which are, turn by turn.

    Listing the partitions, the receipt and the index belong to both.
    """
    from bitcorn_ray.on_ray.session import ray_session

    with (
        many_partitions(_PARTITIONS, _BARS) as (db, folder),
        ray_session("local", cpus=CPUS),
        plain_workers() as workers,
    ):
        on_ray, plain = side_by_side(db, folder, workers)
    name = f"{_PARTITIONS:,} partitions of {_BARS:,} bars from SQLite, v2 into the cache, cold"
    reference = Figure(f"the same, listing and index included, in {CPUS} plain processes", plain)
    return [Figure(f"{name}, Ray Data on {CPUS} CPUs", on_ray).beside(reference, 1.15), reference]


def side_by_side(db: Path, folder: Path, workers: list[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds of v2 of all partitions into a new cache: on Ray, which is up, and by plain workers, turn by turn."""
    on_ray, plain = list[float](), list[float]()
    compute_features(db, cache_dir=folder / "warm", symbols=["S0000"])
    for number in range(_ROUNDS):
        started = time.perf_counter()
        done = compute_features(db, cache_dir=folder / f"ray{number}")
        on_ray.append(time.perf_counter() - started)
        assert not any(status.error or status.hit for status in done)
        cache = FeatureCache(folder / f"plain{number}")
        started = time.perf_counter()
        plan = plan_features(db, SYSTEMS["v2"], cache)
        for place, worker in enumerate(workers):
            worker.send((plan.jobs[place :: len(workers)], plan.work))
        computed = [status for worker in workers for status in worker.recv()]
        assert len(finish_features(plan, computed, cache)) == len(done)
        plain.append(time.perf_counter() - started)
    return tuple(on_ray), tuple(plain)


def qlib() -> list[Figure]:
    """Qlib's published shape, 800 instruments of 3,300 daily bars, on as many processes, turn by turn.

    QLIB_PYTHON names the interpreter of an environment with pyqlib 0.9.7; without it nothing is measured.
    """
    from benchmarks.qlib_data import simulate_instruments, write_parquet, write_qlib
    from bitcorn_ray.on_ray.session import ray_session

    python = os.environ.get("QLIB_PYTHON")
    if not python:
        print("QLIB_PYTHON names no interpreter with pyqlib 0.9.7: not measured")
        return []
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_parquet(folder / "parquet", simulate_instruments())
        write_qlib(folder / "qlib", simulate_instruments())
        for file in (folder / "parquet").iterdir():
            os.utime(file, (time.time() - 60,) * 2)
        for cpus in (1, 2):
            peer, cold, warm = list[float](), list[float](), list[float]()
            with ray_session("local", cpus=cpus):
                compute_features(folder / "parquet", cache_dir=folder / "w", symbols=["SIM000", "SIM001"])
                for number in range(_ROUNDS):
                    peer.append(_qlib_seconds(python, folder / "qlib", cpus))
                    cache = folder / f"cache{cpus}-{number}"
                    for seconds in (cold, warm):
                        started = time.perf_counter()
                        done = compute_features(folder / "parquet", cache_dir=cache)
                        seconds.append(time.perf_counter() - started)
                        assert len(done) == 800
                        assert all(status.error is None and status.hit == (seconds is warm) for status in done)
            name = f"800 instruments x 3,300 daily bars x 14 features, {cpus} CPUs"
            reference = Figure(f"Qlib 0.9.7, {cpus} kernels", tuple(peer), peer=True)
            figures += [
                Figure(f"{name}, cold", tuple(cold)).beside(reference, 0.5),
                Figure(f"{name}, warm", tuple(warm)).beside(reference, 0.1),
                reference,
            ]
    return figures


def _qlib_seconds(python: str, folder: Path, kernels: int) -> float:
    return float(run_peer(python, "qlib_peer.py", [folder, "--kernels", kernels], folder.parent)["seconds"])


@contextmanager
def plain_workers() -> Iterator[list[Any]]:
    """Plain processes that compute jobs with one thread each, started and warmed up."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(CPUS)]
    processes = [context.Process(target=_serve, args=(far,)) for _, far in pipes]
    os.environ["OMP_NUM_THREADS"] = "1"
    for process in processes:
        process.start()
    for near, _ in pipes:
        near.recv()
    yield [near for near, _ in pipes]
    for near, _ in pipes:
        near.send(None)
    for process in processes:
        process.join()


def _serve(pipe: Any) -> None:
    import bitcorn_ray.market.diagnosis
    import bitcorn_ray.sources.source  # noqa: F401 - imported before the clock starts

    pipe.send(True)
    request: tuple[list[FeatureJob], FeatureWork] | None
    while (request := pipe.recv()) is not None:
        pipe.send(compute_jobs(*request))
