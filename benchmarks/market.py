"""Raw bars in: ingesting files, reading a database, inspecting many partitions, resampling, and the memory of it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from benchmarks.bars import BYTES_A_BAR, many_partitions, minutes_database, simulated_minutes
from benchmarks.timing import Figure, measure
from bitcorn_ray.market.bars import Bars, drop_duplicates
from bitcorn_ray.market.diagnosis import quality_report
from bitcorn_ray.market.resample import resample_bars
from bitcorn_ray.sources.inspect import inspect_source
from bitcorn_ray.sources.source import open_source

__all__ = ["ingest", "inspect", "read", "resample"]

INGESTED, READ = 5_000_000, 1_000_000
_COLUMNS = "ts, open, high, low, close, volume"

# The peak is above what the imports take. It is that of this program (VmHWM): what `resource` says a process inherits.
_PEAK = """
import json, re, time
import numpy, pyarrow, pyarrow.compute, pyarrow.csv, pyarrow.parquet, adbc_driver_sqlite.dbapi
{imports}
def peak():
    return int(re.search(r"VmHWM:\\s+([0-9]+)", open("/proc/self/status").read())[1]) / 1024
before, started = peak(), time.perf_counter()
{work}
print(json.dumps([time.perf_counter() - started, peak() - before]))
"""


def ingest() -> list[Figure]:
    """Ingest 5,000,000 one-minute bars into a new database, and once more, from CSV and from Parquet."""
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in _written(folder):
            for what, runs in (("new", 2), ("again", 1)):
                done = [_ingested(file, folder / "market.db", what == "new") for _ in range(runs)]
                seconds, peaks = zip(*done, strict=True)
                text = f"{INGESTED:,} rows of {file.suffix[1:].upper()} ({what})"
                rates = tuple(INGESTED / each for each in seconds)
                figures += [
                    Figure(f"ingest {text}", rates, 300_000, "rows/s"),
                    Figure(f"peak of memory, ingesting {text}", peaks, unit="MiB"),
                ]
    return figures


def read() -> list[Figure]:
    """Read 1,000,000 bars from SQLite into clean Arrow-backed arrays with the report, beside what others take."""
    with minutes_database(simulated_minutes(READ)) as path:
        bare = measure("bare ADBC read of the same columns", lambda: bare_read(path, READ))
        ours = measure("read 1,000,000 bars from SQLite with the quality report", lambda: clean_read(path))
        pandas = measure("pandas.read_sql of the same columns", lambda: _by_pandas(path), runs=2)
        work = f"bars = drop_duplicates(open_source({str(path)!r}).read('SIM', '1m')[0]); quality_report(bars, '1m')"
        seconds, peak = _peak(
            "from bitcorn_ray.market.bars import drop_duplicates\n"
            "from bitcorn_ray.market.diagnosis import quality_report\n"
            "from bitcorn_ray.sources.source import open_source",
            work,
        )
    held = Figure("the bars themselves", (READ * BYTES_A_BAR / 2**20,), unit="MiB")
    memory = Figure("peak of that in a fresh process, above the libraries", (peak,), unit="MiB").beside(held, 3.0)
    alone = Figure("read 1,000,000 bars with the quality report, in a fresh process, once", (seconds,))
    return [ours.beside(bare, 1.3), bare, pandas, alone, memory, held]


def inspect() -> list[Figure]:
    """Inspect a database with 1,000 partitions of 1,000 bars."""
    with many_partitions(1_000, 1_000) as (path, _):
        bare = measure("count and ends of each partition, grouped by SQLite", lambda: _grouped(path))
        what = "inspect a database of 1,000 partitions of 1,000 bars"
        return [measure(what, lambda: inspect_source(path), 1.0).beside(bare), bare]


def resample() -> list[Figure]:
    """Resample 1,000,000 one-minute bars to one hour."""
    bars = simulated_minutes(READ)
    frame = bars.to_frame().set_index("timestamp")
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    pandas = measure("the same by pandas' resample", lambda: frame.resample("1h").agg(rules))
    what = "resample 1,000,000 one-minute bars to 1h"
    return [measure(what, lambda: resample_bars(bars, "1m", "1h"), 0.050).beside(pandas), pandas]


def _written(folder: Path) -> Iterator[Path]:
    """Write the bars as exchanges do, prices with eight decimals at most."""
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    columns = simulated_minutes(INGESTED).columns()
    rounded = {name: column if name == "timestamp" else column.round(8) for name, column in columns.items()}
    table = pa.table(rounded)
    csv.write_csv(table, folder / "SIM_1m.csv")
    yield folder / "SIM_1m.csv"
    pq.write_table(table, folder / "SIM_1m.parquet")
    yield folder / "SIM_1m.parquet"


def _ingested(file: Path, db: Path, new: bool) -> tuple[float, float]:
    if new:
        for path in db.parent.glob(f"{db.name}*"):
            path.unlink()
    return _peak("from bitcorn_ray.sources.ingest import ingest_files", f"ingest_files([{str(file)!r}], {str(db)!r})")


def _peak(imports: str, work: str) -> tuple[float, float]:
    """Do work in a fresh process; returns its seconds, and its peak above the imports in MiB."""
    code = _PEAK.format(imports=imports, work=work)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def bare_read(path: Path, bars: int) -> pa.Table:
    """Read the same columns of so many bars by ADBC alone, in one batch."""
    from adbc_driver_sqlite import dbapi

    options = {"adbc.sqlite.query.batch_rows": bars}
    with dbapi.connect(str(path)) as connection, connection.cursor(adbc_stmt_kwargs=options) as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM ohlcv WHERE symbol = 'SIM' AND timeframe = '1m' ORDER BY ts")
        return cursor.fetch_arrow_table()


def clean_read(path: Path) -> Bars:
    """Read bars, clean them and make the quality report."""
    stored, partition = open_source(path).read("SIM", "1m")
    bars = drop_duplicates(stored)
    quality_report(stored, partition.timeframe)
    return bars


def _grouped(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT symbol, timeframe, count(*), min(ts), max(ts) FROM ohlcv GROUP BY symbol, timeframe"
        ).fetchall()


def _by_pandas(path: Path) -> pd.DataFrame:
    with closing(sqlite3.connect(path)) as connection:
        return pd.read_sql(
            f"SELECT {_COLUMNS} FROM ohlcv WHERE symbol = 'SIM' AND timeframe = '1m' ORDER BY ts", connection
        )
