from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.sources import files
from bitcorn_ray.sources.files import FilesReader, read_file
from bitcorn_ray.sources.folders import names_in_path
from bitcorn_ray.sources.formats.formats import opened_rows
from bitcorn_ray.storage.location import Location

HOUR = 3_600_000
TIMES = {
    "ms": lambda ms: ms,
    "s": lambda ms: ms // 1_000,
    "ns": lambda ms: ms * 1_000_000,
    "mixed": lambda ms: np.where(np.arange(len(ms)) % 3 == 0, ms // 1_000, ms),
    "float": lambda ms: ms / 1_000.0,
    "timestamp": lambda ms: pd.to_datetime(ms, unit="ms", utc=True),
    "naive": lambda ms: pd.to_datetime(ms, unit="ms"),
    "text": lambda ms: pd.to_datetime(ms, unit="ms").strftime("%Y-%m-%d %H:%M:%S"),
}


def frame(form, rows=120, seed=3, reverse=False):
    bars = simulate_bars(rows, seed=seed, gaps=0)
    made = bars.to_frame().rename(columns={"timestamp": "ts"})
    made["ts"] = TIMES[form](bars.timestamp)
    return made[::-1].reset_index(drop=True) if reverse else made


def span(times):
    return len(times), show_time(int(times.min())), show_time(int(times.max()))


def whole(path):
    """What reading the whole file gives."""
    location = Location.of(path)
    return {partition: span(bars.timestamp) for partition, bars in read_file(location, *names_in_path(location))}


def inspected(path):
    """Spans of the partitions, how times are read, and rows by unit."""
    found = FilesReader([Location.of(path)]).inspect().partitions
    spans = {Partition(p.symbol, p.timeframe): (p.rows, p.first, p.last) for p in found}
    return spans, found[0].time, found[0].units


def write(table, path, form):
    if form == "feather":
        feather.write_feather(table, path)
    elif form == "csv":
        table.to_pandas().to_csv(path, index=False)
    else:
        pq.write_table(table, path, row_group_size=50, write_statistics=form != "parquet without statistics")


ENDINGS = {"parquet": "parquet", "parquet without statistics": "parquet", "feather": "feather", "csv": "csv"}


@pytest.mark.parametrize("form", ENDINGS)
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("keyed", [False, True])
def test_spans_are_those_of_what_is_read(tmp_path, form, times, keyed):
    path = tmp_path / f"BTCUSDT_1h.{ENDINGS[form]}"
    made = frame(times, reverse=times == "ms")
    if keyed:
        made = pd.concat([made.assign(symbol="A"), frame(times, 80, 4).assign(symbol="B")])
    write(pa.Table.from_pandas(made, preserve_index=False), path, form)
    spans, how, units = inspected(path)
    assert spans == whole(path)
    assert sum(units.values()) == len(made)
    assert len(units) == (2 if times == "mixed" else 1)
    assert how
    if keyed:
        assert set(spans) == {Partition("A", "1h"), Partition("B", "1h")}


def test_of_columnar_files_only_times_and_keys_are_read(tmp_path, monkeypatch):
    requested = []

    @contextmanager
    def recorded(location):
        with opened_rows(location) as rows:
            read = rows.read
            yield replace(
                rows, read=lambda numbers, texts: requested.append([*numbers, *texts]) or read(numbers, texts)
            )

    monkeypatch.setattr(files, "opened_rows", recorded)
    frame("ms").to_parquet(tmp_path / "BTCUSDT.parquet")
    inspected(tmp_path / "BTCUSDT.parquet")
    assert requested == [["ts"]]


def test_files_that_are_one_partition_are_counted_together(tmp_path):
    folder = tmp_path / "symbol=A" / "timeframe=1h"
    folder.mkdir(parents=True)
    made = frame("ms")
    made.iloc[:70].to_parquet(folder / "part-0.parquet")
    made.iloc[70:].to_csv(folder / "part-1.csv", index=False)
    spans, _, units = inspected(folder)
    assert spans == {Partition("A", "1h"): span(made["ts"])}
    assert units == {"ms": 120}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.assign(ts=[None, *made["ts"][1:]]), "1 rows of .* have no time"),
        (lambda made: made.assign(symbol=["A"] * 119 + [None]), "1 rows of .* have no symbol"),
        (lambda made: made.assign(ts="soon"), "'soon', which is not a time"),
        (lambda made: made[:0], "has no rows"),
        (lambda made: made.drop(columns="close"), "has no column close"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, change, message):
    path = tmp_path / "BTCUSDT_1h.parquet"
    change(frame("ms")).to_parquet(path)
    with pytest.raises(BitcornError, match=message):
        inspected(path)
