"""The bars that benchmarks measure on: simulated ones, and real ones where they are."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.files import read_file
from bitcorn_ray.market.ingest import write_bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars

__all__ = ["BARS", "REAL", "appended", "many_partitions", "real_minutes", "settled", "simulated_database"]

BARS = 70_000
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
