import gzip
import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import list_partitions, read_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.frames import read_frame
from bitcorn_ray.sources.ingest import IngestedPartition, ingest_files, write_bars

HOUR = 3_600_000
START = 1_502_942_400_000
COLUMNS = ["ts", "open", "high", "low", "close", "volume"]
BTC = Partition("BTCUSDT", "1h")


def rows_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM ohlcv ORDER BY symbol, timeframe, ts").fetchall()


def some_frame(n=6, start=START):
    return pd.DataFrame({"ts": start + HOUR * np.arange(n)} | {name: np.arange(1.0, n + 1) for name in COLUMNS[1:]})


def write(frame, path, partition=BTC):
    return write_bars([("frame", partition, read_frame(frame))], path)


def counts(done):
    return [(one.rows, one.inserted, one.updated, one.unchanged) for one in done]


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "market.db"
    write(some_frame(), path)
    return path


def test_a_real_file_is_stored_as_it_is(data_dir, tmp_path):
    file, path = data_dir / "bars" / "BTCUSDT_1h.parquet", tmp_path / "new" / "market.db"
    done = ingest_files([file], path)
    expected = pd.read_parquet(file)
    assert done == [IngestedPartition(str(file), BTC, len(expected), len(expected), 0, 0)]
    with closing(sqlite3.connect(path)) as connection:
        stored = pd.read_sql("SELECT ts, open, high, low, close, volume FROM ohlcv ORDER BY ts", connection)
        keys = connection.execute("SELECT DISTINCT symbol, timeframe FROM ohlcv").fetchall()
    pd.testing.assert_frame_equal(stored, expected[COLUMNS], check_exact=True)
    assert keys == [("BTCUSDT", "1h")]


def test_repeating_changes_nothing_and_says_so(data_dir, tmp_path):
    file, path = data_dir / "bars" / "SOLUSDT_1d.parquet", tmp_path / "market.db"
    [first] = ingest_files([file], path)
    before = rows_of(path)
    assert counts(ingest_files([file], path)) == [(first.rows, 0, 0, first.rows)]
    assert rows_of(path) == before


def test_counts_are_what_sql_sees_change(data_dir, tmp_path):
    frame = pd.read_parquet(data_dir / "bars" / "BTCUSDT_1h.parquet").head(2_000)
    path = tmp_path / "market.db"
    write(frame.head(1_900), path)
    changed = frame.copy()
    changed.loc[[5, 700, 1_899], "close"] += 0.01
    changed.loc[9, "volume"] = np.nan
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE before AS SELECT * FROM ohlcv")
        connection.commit()
        done = write(changed, path)
        inserted = connection.execute("SELECT count(*) - (SELECT count(*) FROM before) FROM ohlcv").fetchone()[0]
        differing = connection.execute(
            "SELECT count(*) FROM (SELECT * FROM ohlcv EXCEPT SELECT * FROM before)"
        ).fetchone()[0]
    assert counts(done) == [(2_000, inserted, differing - inserted, 2_000 - differing)] == [(2_000, 100, 4, 1_896)]


small = st.tuples(st.integers(0, 8), *[st.sampled_from([1.0, 2.0, np.nan])] * 5)


def frame_of(array):
    return pd.DataFrame(array, columns=COLUMNS).assign(ts=START + HOUR * array[:, 0].astype(np.int64))


def seems_another_market(said, held):
    """The rule, row by row: most common bars, but the newest stored one, have other prices; or that one is far off."""

    def differ(key):
        return any(
            a is not None and b is not None and a != b for a, b in zip(said[key][:4], held[key][:4], strict=True)
        )

    newest = max(held, default=None)
    common = [key for key in said if key in held and key != newest]
    last = [row[newest][3] for row in (said, held) if newest in row]
    far = len(last) == 2 and None not in last and max(last) > 1.5 * min(last)
    return 2 * sum(map(differ, common)) > len(common) or far


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(small, max_size=12), min_size=1, max_size=4), st.sampled_from(["replace", "keep"]))
def test_one_row_of_each_time_is_stored_and_counts_add_up(tmp_path_factory, batches, policy):
    path = tmp_path_factory.mktemp("upserts") / "market.db"
    held = {}
    for batch in batches:
        array = np.array(batch, dtype=np.float64).reshape(-1, 6)
        rows = [
            (START + HOUR * int(row[0]), [None if np.isnan(value) else value for value in row[1:]]) for row in array
        ]
        # What the file says of each time: its last row, or its first.
        said = dict(rows if policy == "replace" else rows[::-1])
        again = sum(said[key] != values for key, values in rows)
        if policy == "keep" and seems_another_market(said, held):
            with pytest.raises(BitcornError, match="holds another market"):
                write_bars([("frame", BTC, read_frame(frame_of(array)))], path, on_conflict=policy)
            continue
        inserted = len(said.keys() - held.keys())
        differing = sum(key in held and held[key] != values for key, values in said.items())
        held |= said if policy == "replace" else {key: said[key] for key in said.keys() - held.keys()}
        [done] = write_bars([("frame", BTC, read_frame(frame_of(array)))], path, on_conflict=policy)
        assert (done.rows, done.inserted) == (len(batch), inserted)
        assert done.updated == (differing if policy == "replace" else 0)
        assert sum(done.rejected.values()) == again + (differing if policy == "keep" else 0)
        assert done.unchanged == len(batch) - inserted - differing - again
    assert rows_of(path) == [("BTCUSDT", "1h", key, *values) for key, values in sorted(held.items())]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.integers(220_000_000_000, 9_223_372_036_854),  # 1976, after what may be a date of 12 digits, to 2262
        # SQLite keeps no sign of a zero.
        st.tuples(*[st.floats(allow_nan=False).filter(lambda value: value != 0) | st.just(0.0)] * 5),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_written_reads_back_bit_by_bit(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("bits") / "market.db"
    values = np.array(list(rows.values()))
    columns = {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(COLUMNS[1:])}
    bars = Bars(timestamp=np.array(list(rows), dtype=np.int64), **columns)
    write_bars([("test", BTC, bars)], path)
    read, partition = read_bars(path, "BTCUSDT", "1h")
    expected = bars.take(np.argsort(bars.timestamp))
    assert partition == BTC
    for name, column in expected.columns().items():
        assert getattr(read, name).tobytes() == column.tobytes()


def test_missing_values_are_null_and_read_back_as_nan(tmp_path):
    frame = some_frame()
    frame.loc[2, "close"] = np.nan
    write(frame, tmp_path / "market.db")
    assert [row[6] for row in rows_of(tmp_path / "market.db")] == [1.0, 2.0, None, 4.0, 5.0, 6.0]
    assert np.isnan(read_bars(tmp_path / "market.db", "BTCUSDT", "1h")[0].close).tolist() == [0, 0, 1, 0, 0, 0]


def test_a_symbol_keeps_the_spelling_that_is_stored(db):
    [done] = write(some_frame(2, START + 6 * HOUR), db, Partition("btc/usdt", "1h"))
    assert done.partition == BTC
    assert (done.inserted, list_partitions(db)) == (2, [BTC])


def test_partitions_do_not_touch_one_another(db):
    before = rows_of(db)
    write(some_frame(3), db, Partition("ETHUSDT", "1h"))
    write(some_frame(3), db, Partition("BTCUSDT", "4h"))
    assert [row for row in rows_of(db) if row[:2] == ("BTCUSDT", "1h")] == before
    assert len(rows_of(db)) == len(before) + 6


def test_several_files_and_partitions_are_reported_one_by_one(tmp_path):
    one, two = tmp_path / "BTCUSDT_1h.csv", tmp_path / "all.parquet"
    some_frame(4).to_csv(one, index=False)
    some_frame(6).assign(symbol=["ETHUSDT", "BTC/USDT"] * 3, timeframe="1h").to_parquet(two)
    seen = []
    done = ingest_files([one, str(two)], tmp_path / "market.db", on_file=seen.append)
    assert seen == [str(one), str(two)]
    assert {(d.source, d.partition.symbol): (d.rows, d.inserted, d.updated, d.unchanged) for d in done} == {
        (str(one), "BTCUSDT"): (4, 4, 0, 0),
        (str(two), "ETHUSDT"): (3, 3, 0, 0),
        (str(two), "BTCUSDT"): (3, 1, 0, 2),
    }


def test_symbol_and_timeframe_may_be_given(tmp_path):
    some_frame().to_csv(tmp_path / "prices.csv", index=False)
    ingest_files([tmp_path / "prices.csv"], tmp_path / "market.db", symbol="BTC/USDT", timeframe="1h")
    assert list_partitions(tmp_path / "market.db") == [Partition("BTC/USDT", "1h")]


@pytest.mark.parametrize("content", ["ts,open,high,low,close,volume\n1502942400,1,1,1,n.b.,1\n", "ts,open\n1,2\n", ""])
def test_a_second_file_that_cannot_be_used_leaves_the_database_byte_for_byte(db, tmp_path, content):
    some_frame(20).to_csv(tmp_path / "ETHUSDT_1h.csv", index=False)
    (tmp_path / "XRPUSDT_1h.csv").write_text(content)
    before = db.read_bytes()
    with pytest.raises(BitcornError, match="XRPUSDT_1h"):
        ingest_files([tmp_path / "ETHUSDT_1h.csv", tmp_path / "XRPUSDT_1h.csv"], db)
    assert db.read_bytes() == before


def test_a_file_that_cannot_be_used_creates_no_database(tmp_path):
    with pytest.raises(BitcornError, match="no file at"):
        ingest_files([tmp_path / "BTCUSDT_1h.csv"], tmp_path / "new" / "market.db")
    assert list(tmp_path.iterdir()) == []


def test_an_error_between_partitions_takes_back_those_before(db):
    before = rows_of(db)

    def partitions():
        yield "frame", Partition("ETHUSDT", "1h"), read_frame(some_frame())
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        write_bars(partitions(), db)
    assert rows_of(db) == before


KILLED = """
import sys, time
import numpy as np
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars

bars = simulate_bars(60_000, seed=0, gaps=0)
big = Bars(**{name: np.tile(column, 15) for name, column in bars.columns().items()})
big.timestamp[:] = 60_000 * np.arange(len(big))

def stop(rows):
    print("written, not committed", flush=True)
    time.sleep(60)

partitions = [("simulated", Partition("BTCUSDT", "1m"), big), ("simulated", Partition("ETHUSDT", "1h"), bars)]
write_bars(partitions, sys.argv[1], on_rows=lambda rows: stop(rows) if rows == 60_000 else None)
"""


@pytest.mark.parametrize("exists", [None, "WAL", "DELETE"])
def test_a_writer_that_is_killed_leaves_the_database_as_it_was(tmp_path, exists):
    path = tmp_path / "market.db"
    if exists:
        write(some_frame(), path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA journal_mode = {exists}")
        before = rows_of(path)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "written, not committed\n"
        # The transaction is too large for memory: a part of it lies on the disk by now.
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) > 1_000_000
        writer.kill()
    # Read before anything else opens the file: a reader may not repair it.
    if exists:
        assert list_partitions(path) == [BTC]
        assert len(read_bars(path, "BTCUSDT", "1h")[0]) == 6
        assert rows_of(path) == before
    else:
        with pytest.raises(BitcornError, match="no tables"):
            list_partitions(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert counts(write(some_frame(3), path)) == ([(3, 0, 0, 3)] if exists else [(3, 3, 0, 0)])


HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(0.5)
connection.execute("COMMIT")
"""


def test_a_database_that_another_process_holds_is_waited_for(db):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(db)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert counts(write(some_frame(7), db)) == [(7, 1, 0, 6)]


def test_a_database_that_another_process_keeps_is_reported_with_what_to_do(db, monkeypatch):
    monkeypatch.setattr("bitcorn_ray.sources.upsert.BUSY_SECONDS", 0.01)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(db)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BitcornError, match="is locked: another process writes it, wait until that is done"):
            write(some_frame(7), db)
    assert len(rows_of(db)) == 6


@pytest.mark.parametrize(
    "create",
    [
        "CREATE TABLE ohlcv (note TEXT)",
        "CREATE TABLE ohlcv (symbol TEXT, timeframe TEXT, ts, open, high, low, close, volume)",
        "CREATE VIEW ohlcv AS SELECT 'A' symbol, '1h' timeframe, 1 ts, 1 open, 1 high, 1 low, 1 close, 1 volume",
    ],
    ids=["another table", "a table without a key", "a view"],
)
def test_another_table_of_that_name_is_refused_and_left_byte_for_byte(tmp_path, create):
    path = tmp_path / "market.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(create)
    before = path.read_bytes()
    with pytest.raises(BitcornError, match=r"market\.db cannot be written"):
        write(some_frame(), path)
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused_and_left_byte_for_byte(tmp_path):
    path = tmp_path / "market.db"
    path.write_text("ts,open,high,low,close,volume\n" * 100)
    before = path.read_bytes()
    with pytest.raises(BitcornError, match=r"market\.db cannot be written: file is not a database"):
        write(some_frame(), path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        write(some_frame(), tmp_path / "file" / "market.db")


# Conflicts and reports


def test_what_becomes_of_a_row_that_differs_is_for_the_caller_to_say(tmp_path):
    def changed(policy):
        path = tmp_path / f"{policy}.db"
        write(some_frame(), path)
        frame = some_frame(7)
        frame.loc[[1, 4], "close"] += 0.5
        [done] = write_bars([("frame", BTC, read_frame(frame))], path, on_conflict=policy)
        return path, done

    path, done = changed("replace")
    assert (done.inserted, done.updated, done.unchanged, done.rejected) == (1, 2, 4, {})
    assert [row[6] for row in rows_of(path)] == [1.0, 2.5, 3.0, 4.0, 5.5, 6.0, 7.0]
    path, done = changed("keep")
    assert (done.inserted, done.updated, done.unchanged) == (1, 0, 4)
    assert done.rejected == {"differ from the stored row (kept the stored)": 2}
    assert [row[6] for row in rows_of(path)] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    with pytest.raises(BitcornError, match=r"BTCUSDT 1h at 2017-08-17T05:00:00Z with other values.*2 such rows"):
        changed("error")
    assert len(rows_of(tmp_path / "error.db")) == 6
    with pytest.raises(BitcornError, match="on_conflict is 'merge': give one of revise, keep, replace, error"):
        changed("merge")


@pytest.mark.parametrize("mode", ["DELETE", "WAL", None])
def test_a_conflict_that_is_refused_leaves_a_database_byte_for_byte(tmp_path, mode):
    path = tmp_path / "market.db"
    if mode is not None:
        write(some_frame(), path)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode.lower(),)
    content = path.read_bytes() if mode else None
    # The first of two files can be written, the second contradicts it: nothing of either is there afterwards.
    more, other = some_frame(50_000, start=START + 6 * HOUR), some_frame(9, start=START + 6 * HOUR).assign(close=9.0)
    parts = [(name, BTC, read_frame(frame)) for name, frame in (("one", more), ("two", other))]
    with pytest.raises(BitcornError, match=r"two holds BTCUSDT 1h at .* with other values"):
        write_bars(parts, path, on_conflict="error")
    assert (path.read_bytes() if path.exists() else None) == content
    [done] = write_bars(parts[:1], path, on_conflict="error")
    assert done.inserted == 50_000
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_time_that_a_file_says_twice_is_an_error_where_conflicts_are(tmp_path):
    frame = pd.concat([some_frame(), some_frame(1).assign(close=9.0)])
    with pytest.raises(
        BitcornError, match=r"holds BTCUSDT 1h at 2017-08-17T04:00:00Z twice, with different values \(1"
    ):
        write_bars([("frame", BTC, read_frame(frame))], tmp_path / "market.db", on_conflict="error")
    equal = pd.concat([some_frame(), some_frame(2)])
    [done] = write_bars([("frame", BTC, read_frame(equal))], tmp_path / "market.db", on_conflict="error")
    assert (done.rows, done.inserted, done.unchanged) == (8, 6, 2)


def test_two_spellings_of_one_partition_in_a_file_are_one(tmp_path):
    frame = some_frame(4).assign(symbol=["BTC/USDT", "BTCUSDT", "btc-usdt", "BTC/USDT"], timeframe=["1h", "60m"] * 2)
    frame.to_csv(tmp_path / "all.csv", index=False)
    done = ingest_files([tmp_path / "all.csv"], tmp_path / "market.db")
    assert [(d.partition, d.rows, d.inserted) for d in done] == [(Partition("BTC/USDT", "1h"), 4, 4)]


def test_rows_that_cannot_be_bars_are_set_aside_with_the_reason(tmp_path):
    header = "symbol,timeframe,ts,open,high,low,close,volume\n"
    row = "1,2,1,2,5"
    lines = [
        f"A,1h,{START},{row}",
        f"A,1h,,{row}",
        f",1h,{START},{row}",
        f"A,1M,{START},{row}",
        f"A,1h,{START + HOUR},,,,,3",
    ]
    (tmp_path / "all.csv").write_text(header + "\n".join(lines))
    stored, untold = ingest_files([tmp_path / "all.csv"], tmp_path / "market.db")
    assert (stored.rows, stored.inserted) == (3, 1)
    assert stored.rejected == {"have no time": 1, "have no price": 1}
    assert untold.partition == Partition("", "")
    assert untold.rejected == {
        "have no symbol": 1,
        "are of timeframe 1M, a month, which has no fixed length": 1,
    }
    (tmp_path / "none.csv").write_text(header + lines[1])
    with pytest.raises(BitcornError, match=r"no row of .*none\.csv can be used: 1 have no time"):
        ingest_files([tmp_path / "none.csv"], tmp_path / "market.db")


def test_progress_counts_rows_as_they_are_read_and_as_they_are_written(tmp_path):
    some_frame(50).to_csv(tmp_path / "BTCUSDT_1h.csv", index=False)
    seen = []
    ingest_files([tmp_path / "BTCUSDT_1h.csv"], tmp_path / "market.db", on_rows=seen.append)
    assert seen == [50, 50]


# The real files: what each says, bar by bar, against what the exchange itself served


def ingested(data_dir, tmp_path, name, **options):
    done = ingest_files([data_dir / "raw" / name], tmp_path / "market.db", **options)
    read = read_bars(tmp_path / "market.db", "BTCUSDT", "1h")[0]
    served = pd.read_parquet(data_dir / "bars" / "BTCUSDT_1h.parquet").set_index("ts")
    return done[0], pd.DataFrame(read.columns()).set_index("timestamp"), served


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("BTCUSDT-1h-2024-12.csv", 744),
        ("BTCUSDT-1h-2025-01.csv", 744),
        ("BTCUSDT_1h_2023-03_binance_api.json", 743),
        ("freqtrade_BTC_USDT-1h.feather", 44_283),
    ],
)
def test_files_of_the_exchange_hold_exactly_its_bars(data_dir, tmp_path, name, rows):
    done, bars, served = ingested(data_dir, tmp_path, name)
    assert (done.rows, done.inserted, done.rejected) == (rows, rows, {})
    pd.testing.assert_frame_equal(bars, served.loc[bars.index], check_exact=True, check_names=False)


@pytest.mark.parametrize("policy", ["replace", "keep"])
def test_the_differences_of_a_cryptodatadownload_file_are_the_known_ones(data_dir, tmp_path, policy):
    done, bars, served = ingested(data_dir, tmp_path, "CDD_Binance_BTCUSDT_1h.csv.gz", on_conflict=policy)
    assert (done.rows, done.inserted, sum(done.rejected.values())) == (36_062, 33_413, 2_649)
    # It has 110 hours of outages, invented without a volume, and lacks four.
    invented = bars.index.difference(served.index)
    assert len(invented) == 110
    assert (bars.loc[invented, "volume"] == 0).all()
    within = served.loc[bars.index.min() : bars.index.max()]
    assert len(within.index.difference(bars.index)) == 4
    both = bars.index.intersection(served.index)
    off = (bars.loc[both] / served.loc[both, bars.columns] - 1).abs()
    # The rows in milliseconds come first where an hour stands twice, and are the exchange's; so more of them agree.
    exact = (bars.loc[both, "volume"] == served.loc[both, "volume"]).sum()
    assert exact == (7_474 if policy == "keep" else 4_827)
    # Few prices are off by more than a hundredth; of these the first open is the worst.
    assert (off[["open", "high", "low", "close"]] > 1e-2).any(axis=1).sum() == 67
    assert off["open"].idxmax() == bars.index.min() == 1_502_942_400_000
    assert bars["open"].iloc[0] == 16_199.91
    # The volumes of rows in seconds are other ones in most hours.
    assert (off["volume"] > 1e-2).sum() == (20_279 if policy == "keep" else 20_280)


# Every layout that exchanges and tools write, generated from the same bars


def listed(bars, *names, scale=1, text=False):
    columns = [(bars.timestamp * scale).tolist() if n == "ts" else getattr(bars, n).tolist() for n in names]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return [[row[0], *(repr(value) for value in row[1:])] for row in rows] if text else rows


def kline(bars, scale=1, text=False):
    """Rows of Binance: trades and the others are of another size than what is wanted."""
    rows = listed(bars, "ts", "open", "high", "low", "close", "volume", scale=scale, text=text)
    return [[*row, row[0] + (HOUR - 1) * scale, float(row[5]) * float(row[4]), 77, "0.1", "0.2", "0"] for row in rows]


def csv_of(rows, header=None):
    return "\n".join([*([header] if header else []), *(",".join(map(str, row)) for row in rows)]) + "\n"


FUTURES = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
OHLCV = ("ts", "open", "high", "low", "close", "volume")
CLOSE_SECOND = ("ts", "open", "close", "high", "low", "volume")


def cryptodatadownload(bars):
    header = "unix,date,symbol,open,high,low,close,Volume BTC,Volume USDT,tradecount"
    dates = bars.timestamp.view("M8[ms]").tolist()
    rows = []
    for place, (row, date) in enumerate(zip(listed(bars, *OHLCV), dates, strict=True)):
        in_ms = place % 2
        time = row[0] if in_ms else f"{row[0] // 1000}.0"
        shown = f"{date:%Y-%m-%d %H:%M:%S}" if in_ms else f"{date:%Y-%m-%d %I-%p}"
        rows.append([time, shown, "BTC/USDT", *row[1:], row[5] * 1e4, "NULL"])
    return "https://www.CryptoDataDownload.com\n" + csv_of(rows[::-1], header)


def okx(bars):
    names = ("instId", "ts", *"ohlcv")
    return [dict(zip(names, ("BTC-USDT", *row), strict=True)) for row in listed(bars, *OHLCV, text=True)]


LAYOUTS = {
    "BTCUSDT-1h-2024-12.csv": lambda bars: csv_of(kline(bars)),
    "BTCUSDT-1h-2025-01.csv": lambda bars: csv_of(kline(bars, scale=1000)),
    "futures/BTCUSDT-1h-2025-01.csv": lambda bars: csv_of(kline(bars), FUTURES),
    "BTCUSDT_1h_binance_api.json": lambda bars: json.dumps(kline(bars, text=True), indent=1),
    "BTC_USDT-1h.json": lambda bars: json.dumps(listed(bars, *OHLCV)),
    "Bitfinex_BTCUSDT_1h.json": lambda bars: json.dumps(listed(bars, *CLOSE_SECOND)[::-1]),
    "Bitfinex_BTCUSDT_1h.csv": lambda bars: csv_of(listed(bars, *CLOSE_SECOND)[::-1]),
    "Binance_BTCUSDT_1h.csv": cryptodatadownload,
    "older.csv": lambda bars: csv_of(
        [[row[0] // 1000, "2017-08-17", "BTCUSDT", *row[1:]] for row in listed(bars, *OHLCV)],
        "Unix,Date,Symbol,Open,High,Low,Close,Volume",
    ),
    "oldest.csv": lambda bars: csv_of(
        [["BTCUSDT", "1h", *row, "binance"] for row in listed(bars, *OHLCV)], "symbol,timeframe,ts,o,h,l,c,v,source"
    ),
    "by_hand.csv": lambda bars: csv_of(
        [[f"{time:%Y-%m-%dT%H:%M:%SZ}", *row[1:], "btc-usdt"] for time, row in dated(bars)],
        "Date,Open,High,Low,Close,Vol,Ticker",
    ).replace(",", ";"),
    "okx.json": lambda bars: json.dumps({"code": "0", "data": okx(bars)}),
}


def dated(bars):
    return zip(bars.timestamp.view("M8[ms]").tolist(), listed(bars, *OHLCV), strict=True)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_layout_gives_the_same_bars(tmp_path, random_bars, name, packed):
    bars = random_bars(60, seed=len(name), gaps=0)
    path = tmp_path / (name + packed)
    path.parent.mkdir(exist_ok=True)
    content = LAYOUTS[name](bars).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    [done] = ingest_files([path], tmp_path / "market.db")
    assert (done.inserted, done.rejected) == (60, {})
    read, partition = read_bars(tmp_path / "market.db", "BTCUSDT", "1h")
    assert partition.timeframe == "1h"
    assert {k: v.tolist() for k, v in read.columns().items()} == {k: v.tolist() for k, v in bars.columns().items()}
    assert [each.unchanged for each in ingest_files([path], tmp_path / "market.db")] == [60]


def test_freqtrade_writes_futures_beside_the_spot_market(tmp_path, random_bars):
    for name in ("BTC_USDT-1h.feather", "BTC_USDT_USDT-1h-futures.feather"):
        random_bars(9).to_frame().rename(columns={"timestamp": "date"}).to_feather(tmp_path / name)
    done = ingest_files(sorted(tmp_path.glob("*.feather")), tmp_path / "market.db")
    assert {each.partition for each in done} == {Partition("BTC_USDT", "1h"), Partition("BTC/USDT:USDT", "1h")}
    assert [each.inserted for each in done] == [9, 9]
