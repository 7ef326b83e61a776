import sqlite3
from contextlib import closing

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from reading import read_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.export import export_bars
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import open_source


@pytest.fixture
def database(tmp_path, random_bars):
    """A database of three partitions, one with a symbol that no file name may hold."""
    named = [Partition("BTC/USDT", "1h"), Partition("BTC/USDT:USDT", "1h"), Partition("AAAUSDT", "4h")]
    bars = [random_bars(80, seed=seed) for seed in range(3)]
    write_bars([("x", partition, each) for partition, each in zip(named, bars, strict=True)], tmp_path / "m.db")
    return tmp_path / "m.db"


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_what_is_exported_reads_as_the_database_does(database, tmp_path, s3_uri, where):
    target = s3_uri if where == "s3" else str(tmp_path / "lake")
    seen = []
    done = export_bars(database, target, on_done=seen.append)
    assert seen == done
    assert [(each.partition.symbol, each.rows) for each in done] == [
        ("AAAUSDT", 80),
        ("BTC/USDT", 80),
        ("BTC/USDT:USDT", 80),
    ]
    assert not any("secret" in each.file for each in done)
    for each in done:
        expected = read_bars(database, each.partition.symbol, each.partition.timeframe)[0]
        read, named = read_bars(target, each.partition.symbol, each.partition.timeframe)
        assert named == each.partition
        assert {k: v.tolist() for k, v in read.columns().items()} == {
            k: v.tolist() for k, v in expected.columns().items()
        }
    # A second time replaces the files.
    assert export_bars(database, target) == done
    assert len(open_source(target).files) == 3


def test_others_read_an_export_as_one_table(database, tmp_path):
    export_bars(database, tmp_path / "lake")
    table = ds.dataset(tmp_path / "lake", partitioning="hive").to_table()
    assert table.num_rows == 240
    assert set(table.column("symbol").to_pylist()) == {"BTC/USDT", "BTC/USDT:USDT", "AAAUSDT"}
    assert str(table.schema.field("timestamp").type) == "timestamp[ms, tz=UTC]"


def test_an_export_of_an_export_and_of_a_part_is_the_same(database, tmp_path):
    export_bars(database, tmp_path / "lake")
    [done] = export_bars(tmp_path / "lake", tmp_path / "part", symbols=["aaa-usdt"], timeframes=["240m"])
    name = "symbol=AAAUSDT/timeframe=4h/bars.parquet"
    assert done.file == str(tmp_path / "part" / name)
    assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "lake" / name).read_bytes()
    assert done.bytes == (tmp_path / "part" / name).stat().st_size


def test_rows_that_stand_twice_and_further_columns_are_exported_as_stored(tmp_path, random_bars):
    bars = random_bars(20).take(np.r_[0:20, 5, 5])
    with closing(sqlite3.connect(tmp_path / "a_1h.db")) as connection:
        connection.execute("CREATE TABLE bars (ts, open, high, low, close, volume, trades, symbol)")
        rows = zip(*(column.tolist() for column in bars.columns().values()), range(22), ["A"] * 22, strict=True)
        connection.executemany("INSERT INTO bars VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    [done] = export_bars(tmp_path / "a_1h.db", tmp_path / "lake", options=SourceOptions(columns=("trades",)))
    table = pq.read_table(done.file, partitioning=None)
    assert table.column_names == ["timestamp", "open", "high", "low", "close", "volume", "trades"]
    assert table.column("trades").to_pylist() == [*range(6), 20.0, 21.0, *range(6, 20)]


def test_a_target_that_holds_a_partition_elsewhere_is_refused_before_anything_is_written(database, tmp_path):
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "BTCUSDT_1h.parquet").write_bytes(b"")
    with pytest.raises(BitcornError, match=r"holds BTCUSDT 1h already, in BTCUSDT_1h\.parquet: remove it"):
        export_bars(database, tmp_path / "lake")
    assert [file.name for file in (tmp_path / "lake").iterdir()] == ["BTCUSDT_1h.parquet"]


def test_what_is_not_there_is_refused_before_anything_is_written(database, tmp_path):
    with pytest.raises(BitcornError, match="unknown symbol NOPE: there is AAAUSDT"):
        export_bars(database, tmp_path / "lake", symbols=["NOPE", "AAAUSDT"])
    assert not (tmp_path / "lake").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        export_bars(database, tmp_path / "file")


def test_a_source_of_exported_files_has_one_file_a_partition(database, tmp_path):
    export_bars(database, tmp_path / "lake")
    for file in open_source(tmp_path / "lake").files:
        with file.opened() as reader:
            assert len(reader.partitions) == 1
