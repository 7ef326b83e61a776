"""The cache: hits, appended bars, and sources that have not changed."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.bars import BYTES_A_BAR, appended, many_partitions, simulated_database
from benchmarks.timing import RUNS, Figure, measure, measure_fresh
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.data_loader import compute_features, load_market_data, prepare_features
from bitcorn_ray.features.compute import update
from bitcorn_ray.features.identity import plan_entry
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.simulate import simulate_bars

_V4 = SYSTEMS["v4"]
_MILLION = 1_000_000
_PARTITIONS = 100


def hit() -> list[Figure]:
    """A hit through prepare_features in a fresh process, imports done: bars hashed, chunks read, frame made."""
    figures = []
    with simulated_database() as (db, folder):
        held = set[Path]()
        for system, target in (("v2", 0.015), ("v4", 0.020)):
            bars = load_market_data(str(db), "SIM", "1h").dataframe
            prepare_features(bars, system, cache_dir=folder, db_path=str(db))
            code = (
                "import time\n"
                "from bitcorn_ray.data_loader import load_market_data, prepare_features\n"
                f"df = load_market_data({str(db)!r}, 'SIM', '1h').dataframe\n"
                "t = time.perf_counter()\n"
                f"result = prepare_features(df, {system!r}, cache_dir={str(folder)!r}, db_path={str(db)!r})\n"
                "t = time.perf_counter() - t\n"
                "assert result.quality_report['cache_hit']\n"
                "print(t)"
            )
            files = set((folder / "features").glob("*.parquet"))
            bare = _bare_read(system, files - held)
            held = files
            what = f"{system}, cache hit through prepare_features, fresh process (imports done)"
            figures += [measure_fresh(what, code, target, runs=9).beside(bare), bare]
    return figures


def _bare_read(system: str, files: set[Path]) -> Figure:
    read = (
        "import time, pyarrow.parquet as pq, pandas\n"
        f"files = {sorted(map(str, files))!r}\n"
        "t = time.perf_counter()\n"
        "for f in files: pq.read_table(f).to_pandas()\n"
        "print(time.perf_counter() - t)"
    )
    return measure_fresh(f"pyarrow.parquet.read_table of {system}'s chunks, to pandas", read)


def append() -> list[Figure]:
    """One bar appended to bars in memory: hash all, compute one chunk, publish it and the manifest."""
    figures = []
    for length in (_MILLION // 4, _MILLION):
        with tempfile.TemporaryDirectory() as folder:
            figures += _append(simulate_bars(length, seed=0, gaps=0), FeatureCache(Path(folder)))
    return figures


def _append(bars: Bars, cache: FeatureCache) -> list[Figure]:
    update(bars, _V4, cache, None)
    longer = [appended(bars, float(number)) for number in range(1, RUNS + 2)]
    planned = iter([(each, plan_entry(each, _V4, memo=cache)) for each in longer])

    def write() -> None:
        each, plan = next(planned)
        assert update(each, _V4, cache, None, plan=plan).computed == 1

    name = f"{len(bars):,} bars"
    content = np.random.default_rng(0).bytes(len(bars) * BYTES_A_BAR)
    bare = measure(f"sha256 of as many bytes as {name}", lambda: hashlib.sha256(content).digest())
    return [
        measure(f"all other work for 1 bar appended to {name} (v4)", write, 0.060),
        measure(f"hash {name} in memory", lambda: plan_entry(bars, _V4, memo=cache), 40e-9 * len(bars)).beside(bare),
        bare,
    ]


def unchanged() -> list[Figure]:
    """compute_features on a database that has not changed, Ray up; and on one whose file alone was touched."""
    from bitcorn_ray.on_ray.session import ray_session

    with many_partitions(_PARTITIONS, 2_000) as (db, folder), ray_session("local"):
        cache = folder / "cache"
        compute_features(db, system="v4", cache_dir=cache)

        def again() -> None:
            assert all(status.unread for status in compute_features(db, system="v4", cache_dir=cache))

        def touched() -> None:
            db.touch()
            done = compute_features(db, system="v4", cache_dir=cache)
            assert all(status.hit and not status.unread for status in done)

        unread = measure(f"compute_features on {_PARTITIONS} unchanged partitions", again, 0.5)
        read = measure("the same after the file was touched: all read, all hits, on Ray (which is up)", touched)
        return [unread.beside(read), read]
