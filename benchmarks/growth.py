"""How the work grows: with the bars, with the partitions, and with the hidden units.

The points of a curve are figures of one name with the size of each; `benchmarks.exponents` fits the power.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.bars import BYTES_A_BAR, many_partitions, minutes_database, simulated_minutes
from benchmarks.features import bare_calls_v2, bare_calls_v4, by_chunks
from benchmarks.market import bare_read, clean_read
from benchmarks.scale import CPUS, plain_workers, side_by_side
from benchmarks.timing import Figure, measure
from bitcorn_ray.cache.store import FeatureCache
from bitcorn_ray.features.identity import plan_entry
from bitcorn_ray.features.registry import SYSTEMS
from bitcorn_ray.market.bars import Bars

__all__ = ["growth_bars", "growth_hidden", "growth_partitions"]

_ROUNDS = 3


def growth_bars(sizes: Sequence[int] = (10_000, 100_000, 1_000_000, 10_000_000)) -> list[Figure]:
    """V2 and v4 in process, hashing, and reading from SQLite with the quality report, of so many one-minute bars."""
    figures = list[Figure]()
    for size in sizes:
        bars = simulated_minutes(size)
        figures += [replace(each, size=size) for each in (*_computed(bars), *_hashed(bars), *_read(bars))]
    return figures


def _computed(bars: Bars) -> list[Figure]:
    bare_v2 = measure("bare TA-Lib calls for v2's windows", lambda: bare_calls_v2(bars), runs=_ROUNDS)
    bare_v4 = measure("bare TA-Lib and numpy calls for v4's windows", lambda: bare_calls_v4(bars), runs=_ROUNDS)
    return [
        measure("v2, cold, in process", lambda: by_chunks(bars, SYSTEMS["v2"]), runs=_ROUNDS).beside(bare_v2),
        bare_v2,
        measure("v4, cold, in process", lambda: by_chunks(bars, SYSTEMS["v4"]), runs=_ROUNDS).beside(bare_v4),
        bare_v4,
    ]


def _hashed(bars: Bars) -> list[Figure]:
    content = bytes(len(bars) * BYTES_A_BAR)
    bare = measure("sha256 of as many bytes", lambda: hashlib.sha256(content).digest(), runs=_ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder))
        ours = measure("hash in memory", lambda: plan_entry(bars, SYSTEMS["v4"], memo=cache), runs=_ROUNDS)
    return [ours.beside(bare), bare]


def _read(bars: Bars) -> list[Figure]:
    with minutes_database(bars) as path:
        bare = measure("bare ADBC read of the same columns", lambda: bare_read(path, len(bars)), runs=_ROUNDS)
        ours = measure("read from SQLite with the quality report", lambda: clean_read(path), runs=_ROUNDS)
    return [ours.beside(bare), bare]


def growth_partitions(counts: Sequence[int] = (1, 10, 100, 1_000), bars: int = 2_000) -> list[Figure]:
    """V2 of so many partitions into the cache, cold, on Ray, which is up, beside plain processes, turn by turn."""
    from bitcorn_ray.on_ray.session import ray_session

    figures = list[Figure]()
    with ExitStack() as stack:  # folders are deleted at the end, for what `benchmarks.scale` says
        stack.enter_context(ray_session("local", cpus=CPUS))
        workers = stack.enter_context(plain_workers())
        for count in counts:
            db, folder = stack.enter_context(many_partitions(count, bars))
            on_ray, plain = side_by_side(db, folder, workers)
            reference = Figure(f"{CPUS} plain processes", plain, size=count)
            mine = Figure(f"partitions of {bars:,} bars, v2, cold, Ray Data on {CPUS} CPUs", on_ray, size=count)
            figures += [mine.beside(reference), reference]
    return figures


def growth_hidden(sizes: Sequence[int] = (32, 64, 128, 256, 512), windows: int = 1_500) -> list[Figure]:
    """Train with so many hidden units in the precision that "auto" chooses, beside the plain loop, turn by turn."""
    from benchmarks.plain_loop import BATCH, HORIZONS, SEQ_LEN
    from benchmarks.training import plain_elsewhere, random_data, turns
    from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig

    config = TrainingConfig(epochs=1 + _ROUNDS, patience=1 + _ROUNDS, batch_size=BATCH)
    figures = list[Figure]()
    for hidden in sizes:
        model = LSTMConfig(horizons=HORIZONS, hidden_size=hidden, seq_len=SEQ_LEN)
        data = random_data(windows, config, model)
        with plain_elsewhere(hidden, windows) as plain:
            ours, plains = turns(data, model, config, [plain])
        reference = Figure("1,000 windows of a plain loop", _each_thousand(plains, windows), size=hidden)
        mine = Figure("1,000 windows of ours", _each_thousand(ours, len(data.train_ends)), size=hidden)
        figures += [mine.beside(reference), reference]
    return figures


def _each_thousand(seconds: Sequence[float], windows: int) -> tuple[float, ...]:
    return tuple(1_000 * each / windows for each in seconds)
