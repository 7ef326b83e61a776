import os
import socket
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import read_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.source import SourceFile, open_file, open_source, shown_source
from bitcorn_ray.storage.location import Location, filesystem_of


def write(path, bars, **more):
    columns = bars.columns()
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns, **more}), path)


@pytest.fixture
def folder(tmp_path, random_bars):
    """A folder with a file whose name says its partition, one whose columns do, and a file that is no bars."""
    place = tmp_path / "bars"
    place.mkdir()
    bars = random_bars(60)
    write(place / "AAAUSDT_1h.parquet", bars)
    write(place / "mixed.parquet", bars, symbol=["X"] * 30 + ["Y"] * 30, timeframe=["1h"] * 60)
    (place / "README.txt").write_text("bars")
    return place


def test_a_folder_has_its_bar_files(folder):
    files = open_source(folder).files
    assert [file.location.path.name for file in files] == ["AAAUSDT_1h.parquet", "mixed.parquet"]
    assert [file.partition_in_name() for file in files] == [Partition("AAAUSDT", "1h"), None]
    assert [file.size for file in files] == [file.location.path.stat().st_size for file in files]


def test_a_file_and_a_database_are_sources_of_one_file(folder, market_db):
    assert [file.location.path for file in open_source(folder / "AAAUSDT_1h.parquet").files] == [
        folder / "AAAUSDT_1h.parquet"
    ]
    assert [file.location.path for file in open_source(market_db).files] == [market_db]


def test_a_source_without_bars_is_refused(tmp_path):
    with pytest.raises(BitcornError, match="no database, file or folder of bars at"):
        open_source(tmp_path / "none")
    with pytest.raises(BitcornError, match="holds no file of bars"):
        open_source(tmp_path)


def test_files_and_databases_are_read_the_same_way(folder, market_db):
    with open_file(folder / "mixed.parquet") as reader:
        assert reader.partitions == [Partition("X", "1h"), Partition("Y", "1h")]
        bars, partition = reader.read("y", "60m")
        assert (len(bars), partition) == (30, Partition("Y", "1h"))
        with pytest.raises(BitcornError, match="has no bars of Z 1h"):
            reader.read("Z", "1h")
    with open_file(market_db) as reader:
        assert reader.partitions == [Partition("AAAUSDT", "1h"), Partition("BBBUSDT", "1h")]
        assert len(reader.read("bbb/usdt", "1h")[0]) == 900


def test_a_file_in_any_order_comes_ascending_with_equal_times_as_stored(tmp_path, random_bars):
    bars = random_bars(50)
    backwards = bars.take(np.r_[np.arange(49, -1, -1), 7, 7])
    write(tmp_path / "A_1h.parquet", backwards)
    with open_file(tmp_path / "A_1h.parquet") as reader:
        read, _ = reader.read("A", "1h")
    assert (np.diff(read.timestamp) >= 0).all()
    assert len(read) == 52


# Fingerprints


def fingerprint(path):
    return SourceFile.at(path).fingerprint()


def settle(*paths):
    """Let files have been written a while ago."""
    for path in paths:
        if path.exists():
            then = time.time_ns() - 60_000_000_000
            os.utime(path, ns=(then, then))


def sql(path, *statements):
    """Run SQL in a process of its own."""
    code = f"import sqlite3; c = sqlite3.connect({str(path)!r})\nfor s in {statements!r}: c.execute(s)\nc.commit()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_untouched_file_keeps_its_fingerprint(folder):
    path = folder / "AAAUSDT_1h.parquet"
    settle(path)
    assert fingerprint(path) == fingerprint(path) is not None


def test_a_file_that_was_just_changed_has_none(folder):
    path = folder / "AAAUSDT_1h.parquet"
    os.utime(path)
    assert fingerprint(path) is None
    assert fingerprint(folder / "none") is None


def test_size_time_inode_and_path_count(folder):
    path = folder / "AAAUSDT_1h.parquet"
    settle(path)
    seen = {fingerprint(path)}
    os.utime(path, ns=(0, path.stat().st_mtime_ns - 1))
    seen.add(fingerprint(path))
    content, stat = path.read_bytes(), path.stat()
    path.unlink()
    (folder / "other").write_bytes(b"takes the inode")
    path.write_bytes(content)
    os.utime(path, ns=(0, stat.st_mtime_ns))
    seen.add(fingerprint(path))
    path.write_bytes(content + b"x")
    os.utime(path, ns=(0, stat.st_mtime_ns))
    seen.add(fingerprint(path))
    assert len(seen) == 4


def test_a_commit_counts_even_where_size_and_time_are_the_same(tmp_path):
    path = tmp_path / "a.db"
    sql(path, "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    settle(path)
    before, stat = fingerprint(path), path.stat()
    sql(path, "UPDATE t SET x = 2")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert fingerprint(path) not in (before, None)


def test_a_commit_to_the_wal_counts_by_its_size_its_time_and_its_salts(tmp_path):
    path, wal = tmp_path / "a.db", tmp_path / "a.db-wal"
    keeper = sqlite3.connect(path)  # as long as it is open, the -wal stays
    keeper.execute("PRAGMA journal_mode = WAL")
    keeper.execute("PRAGMA wal_autocheckpoint = 0")
    keeper.execute("CREATE TABLE t (x)")
    keeper.commit()
    settle(path, wal)
    seen = [fingerprint(path)]
    keeper.execute("INSERT INTO t VALUES (1)")
    keeper.commit()
    settle(path, wal)
    seen.append(fingerprint(path))
    stat, main = wal.stat(), path.stat()
    # Started over, the log is written from its front: its size stays, its salts do not.
    keeper.execute("PRAGMA wal_checkpoint(RESTART)")
    keeper.execute("UPDATE t SET x = 2")
    keeper.commit()
    assert wal.stat().st_size == stat.st_size
    os.utime(wal, ns=(0, stat.st_mtime_ns))
    os.utime(path, ns=(0, main.st_mtime_ns))
    seen.append(fingerprint(path))
    os.utime(wal, ns=(0, stat.st_mtime_ns - 1))
    seen.append(fingerprint(path))
    keeper.close()
    assert None not in seen
    assert len(set(seen)) == 4


def test_reading_does_not_change_a_fingerprint(market_db):
    settle(market_db)
    before = fingerprint(market_db)
    with open_file(market_db) as reader:
        reader.read("AAAUSDT", "1h")
    assert fingerprint(market_db) == before is not None


@pytest.mark.parametrize("name", ["B_1h.csv", "B_1h.csv.gz"])
def test_a_name_counts_where_no_column_says_another(tmp_path, name):
    import gzip

    for header, expected in (("ts,open,high,low,close,volume", Partition("B", "1h")), ('"Symbol",ts,open', None)):
        content = f"{header}\n1,2,3\n".encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert SourceFile.at(tmp_path / name).partition_in_name() == expected


def test_a_name_that_says_a_month_is_told_when_the_file_is_read(tmp_path):
    (tmp_path / "B_1M.parquet").write_text("")
    assert SourceFile.at(tmp_path / "B_1M.parquet").partition_in_name() is None


def test_the_log_of_a_database_behind_a_link_counts(tmp_path):
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real" / "a.db", tmp_path / "link.db"
    link.symlink_to(path)
    keeper = sqlite3.connect(path)
    keeper.execute("PRAGMA journal_mode = WAL")
    keeper.execute("CREATE TABLE t (x)")
    keeper.commit()
    settle(path, tmp_path / "real" / "a.db-wal")
    before = fingerprint(link)
    keeper.execute("INSERT INTO t VALUES (1)")
    keeper.commit()
    settle(path, tmp_path / "real" / "a.db-wal")
    assert fingerprint(link) not in (before, None)
    keeper.close()


def test_a_rewrite_that_restores_size_and_time_counts(folder):
    path = folder / "AAAUSDT_1h.parquet"
    settle(path)
    before, stat = fingerprint(path), path.stat()
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    with open(path, "r+b") as file:
        file.write(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(path) not in (before, None)


# Folders whose files are one partition, and stores


@pytest.fixture
def hive(tmp_path, random_bars):
    """A hive folder: one partition in two files, by year, and another in one."""
    bars = random_bars(60)
    for name, rows in (("A/timeframe=1h/year=1/x", slice(30)), ("A/timeframe=1h/year=2/x", slice(30, None))):
        (tmp_path / f"lake/symbol={name}").parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / f"lake/symbol={name}.parquet", bars.take(rows))
    (tmp_path / "lake/symbol=B%2FC/timeframe=4h").mkdir(parents=True)
    write(tmp_path / "lake/symbol=B%2FC/timeframe=4h/x.parquet", bars)
    return tmp_path / "lake", bars


def test_the_files_of_a_hive_partition_are_read_as_one(hive):
    lake, bars = hive
    files = open_source(lake).files
    assert [file.partition_in_name() for file in files] == [
        Partition("A", "1h"),
        Partition("B/C", "4h"),
    ]
    for file in files:
        with open_file(file.address) as reader:
            read, _ = reader.read_stored(file.partition_in_name())
            assert {k: v.tolist() for k, v in read.columns().items()} == {
                k: v.tolist() for k, v in bars.columns().items()
            }


def test_a_file_more_in_a_hive_partition_changes_its_fingerprint(hive, random_bars):
    lake, _ = hive
    folder = lake / "symbol=A" / "timeframe=1h"
    assert fingerprint(folder) is None  # of just now
    settle(*folder.rglob("*.parquet"))
    before = fingerprint(folder)
    assert before is not None
    write(folder / "more.parquet", random_bars(5, seed=9))
    settle(*folder.rglob("*.parquet"))
    assert fingerprint(folder) not in (before, None)


def test_one_partition_is_read_of_any_source(hive, folder, market_db):
    lake, bars = hive
    assert read_bars(lake, "bc", "240m")[1] == Partition("B/C", "4h")
    assert read_bars(lake, "A", "1h", limit=7)[0].timestamp.tolist() == bars.timestamp[-7:].tolist()
    assert read_bars(folder, "y", "1h")[1] == Partition("Y", "1h")
    assert len(read_bars(market_db, "bbb/usdt", "1h", limit=3)[0]) == 3
    with pytest.raises(BitcornError, match=r"has no bars of A 4h: it has A 1h, B/C 4h"):
        read_bars(lake, "A", "4h")
    with pytest.raises(BitcornError, match="limit is 0"):
        read_bars(lake, "A", "1h", limit=0)


def test_an_object_has_a_fingerprint_once_it_has_settled(s3_uri, monkeypatch):
    from bitcorn_ray.sources import source

    place = Location.of(s3_uri).child("A_1h.parquet")
    filesystem, path = filesystem_of(place.address, "x")
    assert fingerprint(place) is None
    for content in (b"1", b"22"):
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        assert fingerprint(place) is None
    monkeypatch.setattr(source, "_SETTLED_REMOTE_NS", 0)
    before = fingerprint(place)
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"333")
    assert fingerprint(place) not in (before, None)
    assert (SourceFile.at(place).partition_in_name(), shown_source(place.address)) == (
        Partition("A", "1h"),
        place.shown,
    )


def test_an_object_of_which_no_time_is_told_has_no_fingerprint(tmp_path):
    place = Location.of(f"fsspec+memory:/{tmp_path}/A_1h.parquet")
    filesystem, path = filesystem_of(place.address, "x")
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"1")
    assert (place.info().size, place.info().changed_ns) == (1, None)
    assert fingerprint(place) is None


def test_a_worker_that_does_not_find_a_file_says_on_which_machine_and_what_to_do(tmp_path, monkeypatch):
    there = tmp_path / "m.db"
    with pytest.raises(BitcornError, match=r"m\.db: check the path$"):
        open_source(there)
    monkeypatch.setenv("RAY_RAYLET_PID", "1")
    with (
        pytest.raises(BitcornError, match=f"m\\.db on node {socket.gethostname()}.*bitcorn export {there}"),
        open_file(there),
    ):
        pass
