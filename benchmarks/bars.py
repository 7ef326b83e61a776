"""The bars that benchmarks measure on: simulated ones, and real ones where they are."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bitcorn_ray.datasets.folds import FoldRows, Span
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources.files import read_file
from bitcorn_ray.sources.ingest import write_bars

__all__ = [
    "BARS",
    "BYTES_A_BAR",
    "REAL",
    "appended",
    "many_partitions",
    "minutes_database",
    "real_minutes",
    "settled",
    "simulated_database",
    "simulated_minutes",
]

BARS = 70_000
BYTES_A_BAR = 48
REAL = Path(os.environ.get("BITCORN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@contextmanager
def simulated_database() -> Iterator[tuple[Path, Path]]:
    """Make a database with one partition, SIM 1h, and a folder for the cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bars = simulate_bars(BARS, seed=0, gaps=0)
        write_bars([("simulated", Partition("SIM", "1h"), bars)], folder / "market.db")
        os.environ["BITCORN_CACHE_DIR"] = str(folder / "cache")
        yield folder / "market.db", folder / "cache"


@contextmanager
def many_partitions(count: int, bars: int) -> Iterator[tuple[Path, Path]]:
    """Make a database with many equally long partitions, and a folder for caches."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = (("x", Partition(f"S{n:04d}", "1h"), simulate_bars(bars, seed=n, gaps=0)) for n in range(count))
        write_bars(list(written), folder / "market.db")
        settled(folder / "market.db")
        yield folder / "market.db", folder


def simulated_minutes(count: int) -> Bars:
    """One-minute bars: 100,000 simulated ones, one after another as often as are needed."""
    some = simulate_bars(100_000, seed=0, gaps=0, step_ms=60_000)
    columns = {name: np.resize(column, count) for name, column in some.columns().items()}
    columns["timestamp"] = int(some.timestamp[0]) // 86_400_000 * 86_400_000 + 60_000 * np.arange(count)
    return Bars(**columns)  # type: ignore[arg-type]


@contextmanager
def minutes_database(bars: Bars) -> Iterator[Path]:
    """Make a database with one partition, SIM 1m."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "market.db"
        write_bars([("simulated", Partition("SIM", "1m"), bars)], path)
        yield path


def settled(database: Path) -> None:
    """Let a database have been written a while ago."""
    for path in (database, *database.parent.glob(f"{database.name}-*")):
        os.utime(path, (time.time() - 60,) * 2)


def appended(bars: Bars, volume: float) -> Bars:
    """The bars with one more at the end."""
    columns = {name: np.append(column, column[-1:]) for name, column in bars.columns().items()}
    columns["timestamp"][-1] += 3_600_000
    columns["volume"][-1] = volume
    return Bars(**columns)  # type: ignore[arg-type]


def real_minutes() -> Bars | None:
    """1,025,708 real one-minute bars, or None where the data are not on this machine."""
    path = REAL / "bars" / "BTCUSD_1m.parquet"
    return read_file(path)[0][1] if path.is_file() else None


def fold_at_rows(fit_end: int, validation_end: int, test_end: int, horizon: int) -> FoldRows:
    """Return the fold of one partition whose ranges end at given rows, purged by the longest horizon in bars."""
    return FoldRows(
        Span(0, fit_end - horizon + 1), Span(fit_end, validation_end - horizon + 1), Span(validation_end, test_end)
    )
