"""Daily bars of many simulated instruments, as Parquet files and in Qlib's binary layout.

    python -m benchmarks.qlib_data FOLDER [--count N] [--bars T] [--seed S]

writes ``FOLDER/parquet`` and ``FOLDER/qlib``. Bars are on business days from 2007-01-01, without holidays.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

__all__ = ["simulate_instruments", "write_parquet", "write_qlib"]

Columns = dict[str, NDArray[Any]]

_FIRST_DAY = "2007-01-01"
_FIRST_PRICE = 20.0
_FIELDS = ("open", "high", "low", "close", "volume")


def simulate_instruments(count: int = 800, bars: int = 3300, seed: int = 0) -> Iterator[tuple[str, Columns]]:
    """Yield the name and the columns of each instrument: ``timestamp``, open, high, low, close and volume.

    timestamp: (bars,) int64, milliseconds UTC of the midnight that a business day begins with; the others float64.
    The close is a geometric random walk of 2 % a day from 20, the open the close before; high and low lie beyond both
    by 0.5 % or so; volume is lognormal. Each instrument has its own generator, so a smaller count gives the first ones.
    """
    timestamp = _business_days(bars).astype("datetime64[ms]").astype(np.int64)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        close = _FIRST_PRICE * np.exp(np.cumsum(rng.normal(0.0, 0.02, bars)))
        opened = np.concatenate(([_FIRST_PRICE], close[:-1]))
        yield (
            f"SIM{number:03d}",
            {
                "timestamp": timestamp,
                "open": opened,
                "high": np.maximum(opened, close) * (1 + np.abs(rng.normal(0.0, 0.005, bars))),
                "low": np.minimum(opened, close) * (1 - np.abs(rng.normal(0.0, 0.005, bars))),
                "close": close,
                "volume": rng.lognormal(10.0, 1.0, bars),
            },
        )


def write_parquet(folder: Path, instruments: Iterable[tuple[str, Columns]]) -> list[Path]:
    """Write one Parquet file an instrument, such as ``SIM000_1d.parquet``, and return their paths.

    Columns: ts (int64 milliseconds UTC), open, high, low, close and volume (float64).
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, columns in instruments:
        table = pa.table({"ts": columns["timestamp"], **{field: columns[field] for field in _FIELDS}})
        paths.append(folder / f"{name}_1d.parquet")
        pq.write_table(table, paths[-1])
    return paths


def write_qlib(folder: Path, instruments: Iterable[tuple[str, Columns]]) -> None:
    """Write what Qlib takes as ``provider_uri``: a calendar, the list of instruments, and a file for each field.

    A field's file is little-endian float32: the calendar's index of the first bar, then the values, so that they are
    rounded to some seven digits. The instruments must all have the same days, which become the calendar.
    """
    days: NDArray[np.datetime64] | None = None
    lines = []
    for name, columns in instruments:
        own = columns["timestamp"].astype("datetime64[ms]").astype("datetime64[D]")
        if days is None:
            days = own
        if not np.array_equal(days, own):
            raise ValueError(f"{name} has other days than the instruments before it")
        lines.append(f"{name}\t{days[0]}\t{days[-1]}\n")
        place = folder / "features" / name.lower()
        place.mkdir(parents=True, exist_ok=True)
        for field in _FIELDS:
            np.concatenate(([0.0], columns[field])).astype("<f4").tofile(place / f"{field}.day.bin")
    if days is None:
        raise ValueError("there are no instruments to write")
    _write_text(folder / "calendars" / "day.txt", "".join(f"{day}\n" for day in days))
    _write_text(folder / "instruments" / "all.txt", "".join(lines))


def _business_days(count: int) -> NDArray[np.datetime64]:
    return np.busday_offset(_FIRST_DAY, np.arange(count), roll="forward")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write simulated daily bars as Parquet files and for Qlib.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=800)
    parser.add_argument("--bars", type=int, default=3300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_parquet(args.folder / "parquet", simulate_instruments(args.count, args.bars, args.seed))
    write_qlib(args.folder / "qlib", simulate_instruments(args.count, args.bars, args.seed))


if __name__ == "__main__":
    _main()
