"""Ingests that would mix markets are refused, and those that were made can be undone."""

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.ingest import ingest_files
from bitcorn_ray.sources.inspect import inspect_source
from bitcorn_ray.sources.journal import undo_ingest

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR


def market(price, hours, seed=0):
    """Bars of a random walk by hour."""
    steps = np.random.default_rng(seed).normal(0, 0.01, 200)
    close = price * np.exp(np.cumsum(steps))[list(hours)]
    opened = price * np.exp(np.cumsum(steps) - steps)[list(hours)]
    ends = np.stack([opened, close])
    return pd.DataFrame(
        {
            "timestamp": [START + HOUR * hour for hour in hours],
            "open": opened,
            "high": ends.max(0),
            "low": ends.min(0),
            "close": close,
            "volume": 1.0,
        }
    )


def rows_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM ohlcv ORDER BY symbol, timeframe, ts").fetchall()


@pytest.fixture
def folder(tmp_path):
    """A function that writes a frame to a file of a name and returns its path."""

    def write(name, frame):
        frame.to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


def test_a_file_of_another_market_is_refused_with_an_example(folder, tmp_path):
    path = tmp_path / "market.db"
    ingest_files([folder("X_1h.csv", market(100, range(50)))], path)
    before = rows_of(path)
    other = folder("other_X_1h.csv", market(7, range(40, 90), seed=1))
    with pytest.raises(
        BitcornError, match=r"other_X_1h\.csv holds another market.* 9 of 9 common bars.*--symbol.*repl"
    ):
        ingest_files([other], path, "X")
    assert rows_of(path) == before
    ingest_files([other], path, "X", on_conflict="replace")
    assert len(rows_of(path)) == 90


def test_files_of_two_exchanges_are_not_joined_even_where_they_do_not_overlap(folder, tmp_path):
    files = [
        folder("binance_XUSDT_1h.csv", market(9, range(40))),
        folder("kraken_XUSDT_1h.csv", market(9, range(40, 80))),
    ]
    with pytest.raises(BitcornError, match=r"'binance' and 'kraken': ingest each with its own --symbol"):
        ingest_files(files, tmp_path / "market.db")
    assert not (tmp_path / "market.db").exists()
    assert len(ingest_files(files, tmp_path / "market.db", "XUSDT")) == 2


def test_bars_that_were_revised_are_of_the_same_market(folder, tmp_path):
    path, frame = tmp_path / "market.db", market(100, range(50))
    unfinished = frame.copy()
    unfinished.loc[49, ["high", "close"]] = [120.0, 119.0]
    ingest_files([folder("X_1h.csv", unfinished)], path)
    [done] = ingest_files([folder("X_1h.csv", frame)], path)
    assert done.updated == 1
    revised = frame.assign(volume=2.0)  # a vendor that counts volume in another way
    revised.loc[:20, "close"] *= 1.001
    [done] = ingest_files([folder("X_1h.csv", revised)], path)
    assert done.updated == 50
    rounded = frame.round(4)
    ingest_files([folder("X_1h.csv", rounded)], path, on_conflict="keep")


def test_files_of_one_command_that_contradict_each_other_write_nothing(folder, tmp_path):
    files = [folder("a.csv", market(100, range(50))), folder("b.csv", market(3, range(50), seed=2))]
    with pytest.raises(BitcornError, match=r"b\.csv holds another market than the X 1h that .*a\.csv holds"):
        ingest_files(files, tmp_path / "new.db", "X", "1h")
    assert not (tmp_path / "new.db").exists()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_two_markets_mixed_in_any_way_are_never_written_over_each_other_silently(tmp_path_factory, data):
    """Deal the bars of two markets to files and commands: what is stored of a time is what was stored first."""
    folder = tmp_path_factory.mktemp("mixed")
    first, second = market(100, range(60)), market(data.draw(st.sampled_from([3, 60, 99])), range(60), seed=5)
    rows = [*first.assign(market=0).to_dict("records"), *second.assign(market=1).to_dict("records")]
    order = data.draw(st.sampled_from(["blocks", "alternating", "shuffled", "reversed"]))
    if order == "alternating":
        rows.sort(key=lambda row: row["timestamp"])
    elif order == "shuffled":
        rows = data.draw(st.permutations(rows))
    elif order == "reversed":
        rows.reverse()
    cuts = sorted(data.draw(st.lists(st.integers(1, len(rows) - 1), max_size=3, unique=True)))
    parts = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    files = []
    for number, part in enumerate(parts):
        files.append(folder / f"part{number}.csv")
        pd.DataFrame(part).drop(columns="market").to_csv(files[-1], index=False)
    commands = [files] if data.draw(st.booleans()) else [[file] for file in files]
    path, stored = folder / "market.db", {}
    for command in commands:
        try:
            done = ingest_files(command, path, "X", "1h")
        except BitcornError:
            assert {row[2]: row[3:] for row in (rows_of(path) if path.exists() else [])} == stored
            continue
        now = {row[2]: row[3:] for row in rows_of(path)}
        changed = [key for key, values in stored.items() if now[key] != values]
        told = sum(one.updated + sum(one.rejected.values()) for one in done)
        # The newest bar may be revised; where two markets hardly overlap, a few bars are, and each is counted.
        assert len(changed) <= told
        assert len(changed) <= max(1, 0.5 * len(stored))
        stored = now


def test_an_ingest_is_undone_to_the_byte_of_each_row(folder, tmp_path):
    path, frame = tmp_path / "market.db", market(100, range(50))
    ingest_files([folder("X_1h.csv", frame)], path)
    before = rows_of(path)
    later = market(100, range(40, 80))
    later.loc[3, "close"] += 0.01
    ingest_files([folder("X_1h.csv", later), folder("Y_1h.csv", market(5, range(9)))], path)
    after = rows_of(path)
    undone = undo_ingest(path)
    assert [(str(one.partition), one.inserted, one.updated) for one in undone] == [("X 1h", 30, 1), ("Y 1h", 9, 0)]
    assert [one.source.rpartition("/")[2] for one in undone] == ["X_1h.csv", "Y_1h.csv"]
    assert rows_of(path) == before != after
    undo_ingest(path)
    assert rows_of(path) == []
    with pytest.raises(BitcornError, match="no ingest that can be undone"):
        undo_ingest(path)


def test_rows_that_changed_since_are_not_undone(folder, tmp_path):
    path, frame = tmp_path / "market.db", market(100, range(50))
    ingest_files([folder("X_1h.csv", frame)], path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE ohlcv SET close = close + 1 WHERE rowid = 7")
    before = rows_of(path)
    with pytest.raises(BitcornError, match="changed since"):
        undo_ingest(path)
    assert rows_of(path) == before


def test_nothing_to_undo_is_told(tmp_path):
    with pytest.raises(BitcornError, match="does not exist"):
        undo_ingest(tmp_path / "no.db")
    sqlite3.connect(tmp_path / "empty.db").close()
    with pytest.raises(BitcornError, match="no ingest that can be undone"):
        undo_ingest(tmp_path / "empty.db")


def test_the_journal_is_no_source_of_bars(folder, tmp_path):
    path = tmp_path / "market.db"
    ingest_files([folder("X_1h.csv", market(100, range(50)))], path)
    ingest_files([folder("X_1h.csv", market(100, range(50)).assign(volume=3.0))], path)
    assert [table.name for table in inspect_source(path).tables] == ["ohlcv"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM bitcorn_replaced").fetchone() == (50,)
        written = connection.execute("SELECT ingest, symbol, inserted, updated FROM bitcorn_ingests").fetchall()
    assert written == [(1, "X", 50, 0), (2, "X", 0, 50)]


def test_the_journal_keeps_what_the_last_ingests_replaced(folder, tmp_path):
    path = tmp_path / "market.db"
    for number in range(25):
        ingest_files([folder("X_1h.csv", market(100, range(10)).assign(volume=1.0 + number))], path)
    for number in range(20):
        undo_ingest(path)
        assert {row[7] for row in rows_of(path)} == {1.0 + 23 - number}
    with pytest.raises(BitcornError, match="no ingest that can be undone"):
        undo_ingest(path)


def test_a_killed_ingest_leaves_data_and_journal_as_they_were(folder, tmp_path):
    path = tmp_path / "market.db"
    ingest_files([folder("X_1h.csv", market(100, range(50)))], path)
    before = rows_of(path)
    file = folder("Y_1h.csv", market(5, range(200)))
    code = (
        "import sys, time\n"
        "from bitcorn_ray.sources import ingest, upsert\n"
        "commit = upsert.Target.commit\n"
        "def wait(self):\n    print('ready', flush=True)\n    time.sleep(60)\n    commit(self)\n"
        "upsert.Target.commit = wait\n"
        "ingest.ingest_files([sys.argv[1]], sys.argv[2])\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(file), str(path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(0.1)
    assert rows_of(path) == before
    assert [str(one.partition) for one in undo_ingest(path)] == ["X 1h"]
