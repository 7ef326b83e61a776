import sqlite3
from collections import Counter
from contextlib import closing

import numpy as np
import pytest

from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources import upsert
from bitcorn_ray.sources.staging import staged
from bitcorn_ray.sources.upsert import RowCounts, open_target, upsert_source


def written(path, parts, bars, commit=True):
    """Upsert bars whose rows belong to parts in turn."""
    with staged() as staging:
        staging.add(np.arange(len(bars)) % len(parts), bars)
        staging.finish("x", parts, Counter())
        with closing(open_target(path, staging.path)) as target:
            done = upsert_source(target, staging.sources[0], "replace", lambda _: None)
            if commit:
                target.connection.execute("COMMIT")
    return done


def test_nothing_is_stored_before_the_caller_commits(tmp_path, random_bars):
    written(tmp_path / "a.db", [Partition("A", "1h")], random_bars(5), commit=False)
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)


def test_a_partition_keeps_the_spelling_that_is_stored(tmp_path, random_bars):
    path, bars = tmp_path / "a.db", random_bars(6)
    assert list(written(path, [Partition("btc/usdt", "60m")], bars)) == [Partition("btc/usdt", "1h")]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE ohlcv SET timeframe = '60m'")
        connection.commit()
    done = written(path, [Partition("BTCUSDT", "1h")], bars)
    assert done == {Partition("btc/usdt", "60m"): RowCounts(unchanged=6)}


def test_many_chunks_and_partitions_are_written_whole(tmp_path, random_bars, monkeypatch):
    monkeypatch.setattr(upsert, "_CHUNK_ROWS", 7)
    bars = random_bars(100)
    done = written(tmp_path / "a.db", [Partition(name, "1h") for name in "ABC"], bars.take(np.arange(99, -1, -1)))
    assert {name.symbol: counts.inserted for name, counts in done.items()} == {"A": 34, "B": 33, "C": 33}
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        stored = connection.execute("SELECT ts, close FROM ohlcv ORDER BY ts").fetchall()
    assert stored == list(zip(bars.timestamp.tolist(), bars.close.tolist(), strict=True))


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    (tmp_path / "a.db").write_bytes(b"\x80\x04 a pickle" * 99)
    with staged() as staging, pytest.raises(sqlite3.DatabaseError):
        open_target(tmp_path / "a.db", staging.path)
    assert (tmp_path / "a.db").read_bytes() == b"\x80\x04 a pickle" * 99
