import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from reading import read_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.clean import clean_bars
from bitcorn_ray.market.diagnosis import quality_report
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.resample import resample_bars
from bitcorn_ray.sources.loading import load_bars, load_partition
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.sources.source import open_file

HOUR = 3_600_000


def equal(one, other):
    return all(np.array_equal(getattr(one, name), column) for name, column in other.columns().items())


def test_what_is_stored_is_read_and_reported(market_db):
    stored, partition = read_bars(market_db, "AAAUSDT", "1h")
    loaded = load_bars(market_db, "aaa-usdt", "1h")
    assert equal(loaded.bars, stored)
    assert (loaded.partition, loaded.partition.base, loaded.filled) == (partition, None, None)
    assert loaded.report == quality_report(stored, "1h")


def test_what_is_not_stored_is_put_together(market_db, data_dir):
    stored, _ = read_bars(market_db, "AAAUSDT", "1h")
    made = resample_bars(stored, "1h", "4h")
    loaded = load_bars(market_db, "AAAUSDT", "4h")
    assert equal(loaded.bars, made.bars)
    assert (str(loaded.partition), loaded.partition.base) == ("AAAUSDT 4h", "1h")
    assert loaded.report["resampled"] == {"from": "1h", "bars": len(stored), "incomplete_dropped": made.dropped}
    assert loaded.report["rows"] == len(made.bars)
    newest = load_bars(market_db, "AAAUSDT", "4h", limit=7)
    assert equal(newest.bars, made.bars.take(slice(-7, None)))
    assert newest.report["rows"] == 7
    # Of a folder, where the exchange's own four hours are there to compare with.
    of_folder = load_bars(data_dir / "bars", "ETHUSDT", "12h")
    assert of_folder.partition.base == "1h"
    assert load_bars(data_dir / "bars", "BTCUSDT", "8h").partition.base == "4h"


def test_a_policy_repairs_and_tells(market_db):
    stored, _ = read_bars(market_db, "AAAUSDT", "1h")
    policy = CleaningPolicy(fill="forward", max_gap_size=20)
    loaded, clean = (
        load_bars(market_db, "AAAUSDT", "1h", options=SourceOptions(policy=policy)),
        clean_bars(stored, policy, "1h"),
    )
    assert equal(loaded.bars, clean.bars)
    assert np.array_equal(loaded.filled, clean.filled)
    assert loaded.report["cleaning"] == clean.report
    assert loaded.report["gaps"] == quality_report(stored, "1h")["gaps"]  # what was found, not what is left
    assert load_bars(market_db, "AAAUSDT", "1h", options=SourceOptions(policy=CleaningPolicy())).filled is None


def test_a_higher_bar_is_filled_where_any_bar_in_it_was(market_db):
    policy = CleaningPolicy(fill="linear")
    low = load_bars(market_db, "AAAUSDT", "1h", options=SourceOptions(policy=policy))
    high = load_bars(market_db, "AAAUSDT", "4h", options=SourceOptions(policy=policy))
    filled = pd.Series(low.filled, index=pd.to_datetime(low.bars.timestamp, unit="ms"))
    per_bar = filled.resample("4h").agg(["max", "size"])
    per_bar = per_bar[per_bar["size"] == 4]["max"]
    assert high.filled.tolist() == per_bar.tolist()
    assert 0 < high.filled.sum() < low.filled.sum()
    few = load_bars(market_db, "AAAUSDT", "4h", limit=5, options=SourceOptions(policy=policy))
    assert few.filled.tolist() == high.filled[-5:].tolist()


def test_what_is_off_the_grid_is_told_before_it_is_put_together(market_db):
    with closing(sqlite3.connect(market_db)) as connection, connection:
        connection.execute("UPDATE ohlcv SET ts = ts + 60000 WHERE symbol = 'BBBUSDT' AND rowid % 100 = 0")
    with pytest.raises(BitcornError, match="off the 1h grid"):
        load_bars(market_db, "BBBUSDT", "4h")
    assert (
        len(load_bars(market_db, "BBBUSDT", "4h", options=SourceOptions(policy=CleaningPolicy(off_grid="snap"))).bars)
        == 225
    )


@pytest.mark.parametrize(
    ("symbol", "timeframe", "limit", "message"),
    [
        ("NOPE", "4h", None, "no symbol 'NOPE'"),
        ("AAAUSDT", "90m", None, "has no 90m bars of AAAUSDT: it has 1h"),
        ("AAAUSDT", "1M", None, "month"),
        ("AAAUSDT", "4h", 0, "limit is 0"),
    ],
)
def test_what_cannot_be_had_is_refused_as_it_was(market_db, symbol, timeframe, limit, message):
    with pytest.raises(BitcornError, match=message):
        load_bars(market_db, symbol, timeframe, limit)


def test_bars_of_a_file_without_a_name_are_put_together_too(tmp_path, random_bars):
    bars = random_bars(96)
    bars.to_frame().assign(symbol="A/B", timeframe="1h").to_parquet(tmp_path / "all.parquet")
    loaded = load_bars(tmp_path / "all.parquet", "ab", "1d")
    assert isinstance(loaded.bars, Bars)
    assert equal(loaded.bars, resample_bars(bars, "1h", "1d").bars)
    assert loaded.partition.symbol == "A/B"


def test_a_derived_partition_of_an_open_file_is_read_from_its_base(random_bars):
    bars = random_bars(100)

    class Reader:
        def read_stored(self, partition):
            assert partition == Partition("A", "1h")
            return bars.take(np.repeat(np.arange(100), 2)), partition

    stored = load_partition(Reader(), Partition("A", "1h"))
    assert (len(stored.found), len(stored.bars)) == (200, 100)
    made = load_partition(Reader(), Partition("A", "4h", "1h"))
    assert np.array_equal(made.bars.close, resample_bars(bars, "1h", "4h").bars.close)
    assert (made.partition, made.partition.base) == (Partition("A", "4h"), "1h")


def test_an_open_file_gives_what_the_source_gives(market_db):
    policy = CleaningPolicy(fill="forward", max_gap_size=2, bad_prints="mask")
    with open_file(market_db) as reader:
        for partition in (Partition("AAAUSDT", "1h"), Partition("AAAUSDT", "4h", "1h")):
            one = load_partition(reader, partition, policy)
            other = load_bars(market_db, "AAAUSDT", partition.timeframe, options=SourceOptions(policy=policy))
            assert equal(one.bars, other.bars)
            assert np.array_equal(one.filled, other.filled)
            assert one.report == other.report


def test_the_newest_bars_that_are_put_together_need_only_the_newest_that_are_stored(market_db):
    assert load_bars(market_db, "BBBUSDT", "4h", limit=3).resampled["bars"] == 16
    # Where so many hours are missing that too few are complete, all are read.
    with closing(sqlite3.connect(market_db)) as connection, connection:
        connection.execute("DELETE FROM ohlcv WHERE symbol = 'BBBUSDT' AND ts / 3600000 % 8 = 1")
    newest = load_bars(market_db, "BBBUSDT", "4h", limit=60)
    assert equal(newest.bars, load_bars(market_db, "BBBUSDT", "4h").bars.take(slice(-60, None)))
    assert newest.resampled["bars"] > 61 * 4
