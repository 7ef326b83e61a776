import gzip
import random

import numpy as np
import pandas as pd
import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.sources.files import read_file
from bitcorn_ray.sources.ingest import ingest_files
from bitcorn_ray.sources.options import SourceOptions

HOUR = 3_600_000
START = 1_502_942_400_000
NAMES = ["open", "high", "low", "close", "volume"]


def some_frame(n=6):
    values = np.arange(1.0, n + 1)
    distances = dict(zip(NAMES, (1, 3, 0, 2, 4), strict=True))
    return pd.DataFrame({"ts": START + HOUR * np.arange(n)} | {name: values + d for name, d in distances.items()})


def written(frame, path):
    if path.name.lower().endswith(".parquet"):
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


def only(path, *arguments):
    [(partition, bars)] = read_file(path, *arguments)
    return partition, bars


@pytest.mark.parametrize("name", ["BTCUSDT_1h", "SOLUSDT_1d"])
def test_real_bars_read_as_pandas_reads_them(data_dir, name):
    path = data_dir / "bars" / f"{name}.parquet"
    partition, bars = only(path)
    expected = pd.read_parquet(path)
    assert partition == Partition(*name.split("_"))
    assert bars.timestamp.tobytes() == expected["ts"].to_numpy().tobytes()
    for column in NAMES:
        assert getattr(bars, column).tobytes() == expected[column].to_numpy().tobytes()


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "CSV", "parquet", "pq", "PARQUET"])
def test_every_format_reads_the_same(tmp_path, ending):
    path = tmp_path / f"BTCUSDT_1h.{ending}"
    frame = some_frame()
    if ending in ("pq", "PARQUET"):
        frame.to_parquet(path, index=False)
    else:
        written(frame, path)
    partition, bars = only(path)
    assert partition == Partition("BTCUSDT", "1h")
    assert bars.timestamp.tolist() == frame["ts"].tolist()
    assert bars.volume.tolist() == frame["volume"].tolist()


def test_a_gzipped_file_in_capitals_is_unpacked_too(tmp_path):
    path = tmp_path / "BTCUSDT_1H.CSV.GZ"
    path.write_bytes(gzip.compress(some_frame().to_csv(index=False).encode()))
    assert only(path)[1].close.tolist() == some_frame()["close"].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_columns_of_a_csv_file_may_stand_in_any_order_and_case(tmp_path, seed):
    shuffle = random.Random(seed)
    frame = some_frame().assign(trades=3, note="x")
    names = shuffle.sample(list(frame.columns), k=len(frame.columns))
    turned = frame[names].rename(columns=lambda name: shuffle.choice((str.upper, str.title, str.lower))(name))
    _, bars = only(written(turned, tmp_path / "BTCUSDT_1h.csv"))
    assert {name: column.tolist() for name, column in bars.columns().items()} == {"timestamp": frame["ts"].tolist()} | {
        name: frame[name].tolist() for name in NAMES
    }


def test_rows_keep_the_order_of_the_file(tmp_path):
    frame = some_frame().iloc[[3, 0, 0, 5]]
    assert only(written(frame, tmp_path / "BTCUSDT_1h.csv"))[1].close.tolist() == frame["close"].tolist()


def test_whole_numbers_become_floats_and_empty_cells_nan(tmp_path):
    path = tmp_path / "BTCUSDT_1h.csv"
    path.write_text(f"ts,open,high,low,close,volume\n{START},1,2,1,,\n{START + HOUR},1,2,1,2,\n")
    bars = only(path)[1]
    assert {column.dtype for name, column in bars.columns().items() if name != "timestamp"} == {np.dtype("float64")}
    assert np.isnan(bars.close).tolist() == [True, False]
    assert np.isnan(bars.volume).all()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    "times",
    [
        START + HOUR * np.arange(6),
        START // 1000 + 3600 * np.arange(6),
        (START // 1000 + 3600 * np.arange(6)).astype(np.int32),
        (START // 1000 + 3600 * np.arange(6)).astype(float),
        pd.to_datetime(START + HOUR * np.arange(6), unit="ms"),
        pd.to_datetime(START + HOUR * np.arange(6), unit="ms", utc=True),
        pd.to_datetime(START + HOUR * np.arange(6), unit="ms", utc=True).as_unit("ns"),
        pd.to_datetime(START + HOUR * np.arange(6), unit="ms", utc=True).tz_convert("America/New_York"),
    ],
    ids=["ms", "s", "int32 s", "float s", "naive", "utc", "ns", "another zone"],
)
def test_times_are_milliseconds_utc_however_they_are_written(tmp_path, times, ending):
    path = written(some_frame().assign(ts=times), tmp_path / f"BTCUSDT_1h.{ending}")
    assert only(path)[1].timestamp.tolist() == some_frame()["ts"].tolist()


def test_days_written_as_dates_are_midnight_utc(tmp_path):
    path = tmp_path / "BTCUSDT_1d.csv"
    path.write_text("timestamp,open,high,low,close,volume\n2024-01-01,1,1,1,1,1\n2024-01-02,1,1,1,1,1\n")
    assert only(path)[1].timestamp.tolist() == [1_704_067_200_000, 1_704_153_600_000]


def test_a_symbol_column_wins_over_the_argument_and_that_over_the_file_name(tmp_path):
    plain = written(some_frame(), tmp_path / "BTCUSDT_1h.csv")
    named = written(some_frame().assign(Symbol="ETH/USDT", TimeFrame="1H"), tmp_path / "BTCUSDT_4h.csv")
    assert only(plain)[0] == Partition("BTCUSDT", "1h")
    assert only(plain, "XRP/USDT", "4h")[0] == Partition("XRP/USDT", "4h")
    assert only(named, "XRP/USDT", "1d")[0] == Partition("ETH/USDT", "1h")


def test_a_timeframe_that_nothing_says_is_the_distance_of_the_bars(tmp_path):
    frame = some_frame().sample(frac=1, random_state=0)
    assert only(written(frame, tmp_path / "prices.csv"), "BTCUSDT")[0] == Partition("BTCUSDT", "1h")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_partitions_of_one_file_are_told_apart_by_their_columns(tmp_path, ending):
    frame = some_frame(60).assign(symbol=["B", "A", "A/B"] * 20, timeframe=["1h", "4h"] * 30)
    read = read_file(written(frame, tmp_path / f"all.{ending}"))
    expected = {key: rows["close"].tolist() for key, rows in frame.groupby(["symbol", "timeframe"])}
    assert {(p.symbol, p.timeframe): bars.close.tolist() for p, bars in read} == expected
    assert len(read) == len(expected)


def test_symbols_may_be_categories(tmp_path):
    frame = some_frame().assign(symbol=pd.Categorical(["A", "B"] * 3))
    read = read_file(written(frame, tmp_path / "all.parquet"), timeframe="1h")
    assert {p.symbol: bars.close.tolist() for p, bars in read} == {"A": [3.0, 5.0, 7.0], "B": [4.0, 6.0, 8.0]}


def test_a_file_that_does_not_say_its_symbol_is_refused(tmp_path):
    with pytest.raises(BitcornError, match="does not say its symbol"):
        read_file(written(some_frame(), tmp_path / "prices.csv"))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_without_a_symbol_are_not_lost_silently(tmp_path, ending):
    frame = some_frame().assign(symbol=["A", None, "A", "A", None, "A"], timeframe="1h")
    with pytest.raises(BitcornError, match="symbol"):
        read_file(written(frame, tmp_path / f"all.{ending}"))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("symbols", [["symbol", "timeframe"], ["symbol"], []])
def test_a_symbol_of_several_exchanges_is_several(tmp_path, ending, symbols):
    both = [some_frame().assign(exchange=name, volume=float(i)) for i, name in enumerate(["Binance ", "OKX"])]
    one = some_frame().assign(exchange="OKX", symbol="SOL", timeframe="1h")[["exchange", *symbols, *some_frame()]]
    frame = pd.concat(both, ignore_index=True).assign(symbol="BTC", timeframe="1h")[one.columns]
    path = written(pd.concat([frame, one]) if symbols else frame, tmp_path / f"BTC_1h{ending}")
    found = {str(partition): bars.volume.tolist() for partition, bars in read_file(path)}
    assert found["BTC.Binance 1h"] == [0.0] * 6
    assert found["BTC.OKX 1h"] == [1.0] * 6
    assert set(found) - {"BTC.Binance 1h", "BTC.OKX 1h"} == ({"SOL 1h"} if symbols else set())
    assert {str(done.partition) for done in ingest_files([path], tmp_path / "market.db")} == set(found)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize(("stored", "timeframe"), [(60, "1h"), (3600, "1h"), ("H1", "1h"), ("60min", "60m")])
def test_timeframes_of_a_file_may_be_numbers_and_words(tmp_path, ending, stored, timeframe):
    frame = some_frame().assign(symbol="A", interval=stored)
    ((partition, bars),) = read_file(written(frame, tmp_path / f"all{ending}"))
    assert (str(partition), len(bars)) == (f"A {timeframe}", 6)


def test_what_is_no_timeframe_is_refused_with_its_column(tmp_path):
    path = written(some_frame().assign(symbol="A", period="often"), tmp_path / "all.csv")
    with pytest.raises(BitcornError, match=r"column 'period' of .*all.csv: unknown timeframe 'often'"):
        read_file(path)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("symbols", [[], ["symbol"]])
@pytest.mark.parametrize("markets", [("US1", "US2"), (7, 9)])
def test_rows_that_an_unknown_column_tells_apart_are_never_one_partition(tmp_path, ending, symbols, markets):
    path = tmp_path / f"BTCUSDT_1h{ending}"
    both = pd.concat([some_frame().assign(isin=isin) for isin in markets], ignore_index=True)
    written(both.assign(**dict.fromkeys(symbols, "BTCUSDT")), path)
    for read in (read_file, lambda path: ingest_files([path], tmp_path / "market.db")):
        with pytest.raises(BitcornError, match=r"6 of 12 rows of .* column isin \(.*, \.\.\.\) tells them apart"):
            read(path)
    assert not (tmp_path / "market.db").exists()
    with pytest.raises(BitcornError, match="tells them apart"):
        read_file(path, options=SourceOptions.of(policy=CleaningPolicy(off_grid="snap")))
    ((_, chosen),) = read_file(path, options=SourceOptions.of(policy=CleaningPolicy(duplicates="last")))
    assert len(chosen) == 12
    named = SourceOptions.of(mapping={"symbol": "isin"})
    assert [partition.symbol for partition, _ in read_file(path, options=named)] == [*map(str, markets)]


@pytest.mark.parametrize("missing", [["ts"], ["close"], ["high", "volume"]])
def test_missing_columns_are_named_with_those_there_are(tmp_path, missing):
    frame = some_frame().drop(columns=missing)
    ours = ", ".join("timestamp" if name == "ts" else name for name in missing)
    with pytest.raises(BitcornError, match=rf"no column {ours}: it has {', '.join(frame.columns)}"):
        read_file(written(frame, tmp_path / "BTCUSDT_1h.csv"))


def test_a_file_without_a_header_of_an_unknown_layout_is_refused_and_not_misread(tmp_path):
    (tmp_path / "BTCUSDT_1h.csv").write_text("1502942400,1,2,3,4,5,6\n")
    with pytest.raises(BitcornError, match="no column timestamp, open, high, low, close, volume: it has 0, 1, 2, 3"):
        read_file(tmp_path / "BTCUSDT_1h.csv")
    with pytest.raises(BitcornError, match="say which it is by --map timestamp=COLUMN"):
        read_file(tmp_path / "BTCUSDT_1h.csv")
    bars = only(
        tmp_path / "BTCUSDT_1h.csv", None, None, SourceOptions.of(mapping=["ts=0,open=1,high=4,low=2,close=3,volume=6"])
    )
    assert bars[1].high.tolist() == [4.0]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_text_for_a_price_is_refused_with_column_and_value(tmp_path, ending):
    frame = some_frame().assign(close=["1.5", "2.5", "1.750 each", "3", "4", "5"])
    with pytest.raises(BitcornError, match=r"'close' of .*BTCUSDT_1h.* holds '1\.750 each', which is not a number"):
        read_file(written(frame, tmp_path / f"BTCUSDT_1h.{ending}"))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_text_for_a_time_is_refused_with_column_and_value(tmp_path, ending):
    with pytest.raises(BitcornError, match=r"column 'ts' of .* holds 'noon'"):
        read_file(written(some_frame().assign(ts="noon"), tmp_path / f"BTCUSDT_1h.{ending}"))


def test_microseconds_are_understood(tmp_path):
    path = written(some_frame().assign(ts=lambda frame: frame["ts"] * 1000), tmp_path / "BTCUSDT_1h.parquet")
    assert read_file(path)[0][1].timestamp[0] == START


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_without_a_time_are_refused(tmp_path, ending):
    frame = some_frame().astype({"ts": "Int64"})
    frame.loc[[1, 2], "ts"] = pd.NA
    with pytest.raises(BitcornError, match=r"2 rows of .*BTCUSDT_1h.* have no time"):
        read_file(written(frame, tmp_path / f"BTCUSDT_1h.{ending}"))


def test_a_column_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "BTCUSDT_1h.csv"
    path.write_text(f"ts,open,high,low,close,close,volume\n{START},1,1,1,1,2,1\n")
    with pytest.raises(BitcornError, match="close"):
        read_file(path)


def test_an_integer_that_a_float_cannot_hold_is_rounded(tmp_path):
    path = tmp_path / "SHIBUSDT_1h.csv"
    path.write_text(f"ts,open,high,low,close,volume\n{START},1,1,1,1,{2**53 + 1}\n{START + HOUR},1,1,1,1,2\n")
    assert only(path)[1].volume.tolist() == [float(2**53 + 1), 2.0]


def test_a_month_is_refused_in_a_name_and_in_a_column(tmp_path):
    for path, frame in (
        (tmp_path / "BTCUSDT_1M.csv", some_frame()),
        (tmp_path / "all.csv", some_frame().assign(symbol="BTCUSDT", timeframe="1M")),
    ):
        with pytest.raises(BitcornError, match="month"):
            read_file(written(frame, path))


def test_bars_at_no_regular_distance_need_a_timeframe(tmp_path):
    with pytest.raises(BitcornError, match="0 ms apart, which is no timeframe: pass the timeframe"):
        read_file(written(some_frame(1), tmp_path / "prices.csv"), "BTCUSDT")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("BTCUSDT_1h.csv", b"", "cannot be read"),
        ("BTCUSDT_1h.parquet", b"", "cannot be read"),
        ("BTCUSDT_1h.csv.gz", b"", "cannot be read"),
        ("BTCUSDT_1h.csv", b"ts,open,high,low,close,volume\n", "has no rows"),
        ("BTCUSDT_1h.csv", b"ts,open,high,low,close,volume\n1,2,3\n", "cannot be read"),
        ("BTCUSDT_1h.csv", b"ts,open,high,low,close,volume\n1502942400,\xff,1,1,1,1\n", "not a number"),
        ("BTCUSDT_1h.parquet", b"no parquet at all", "cannot be read"),
        ("BTCUSDT_1h.csv.gz", b"no gzip at all", "cannot be read"),
        ("BTCUSDT_1h.csv.gz", gzip.compress(b"ts,open\n" * 99)[:-9], "cannot be read"),
        ("BTCUSDT_1h.json", b"[]", "no table of bars"),
        ("BTCUSDT_1h.txt", b"ts,open", "has no column high, low, close, volume"),
        ("BTCUSDT_1h", b"", "unknown format"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BitcornError, match=message) as error:
        read_file(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["BTCUSDT_1h.parquet", "."])
def test_a_file_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(BitcornError, match="no file at"):
        read_file(tmp_path / name)


@pytest.mark.parametrize("folder", ["a b", "100%25", "who?", "#1", 'it\'s "here"', "symbol=ETHUSDT"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_any_folder_name_will_do(tmp_path, folder, ending):
    (tmp_path / folder).mkdir()
    path = written(some_frame(), tmp_path / folder / f"BTCUSDT_1h.{ending}")
    partition, bars = only(str(path))
    assert partition == Partition("BTCUSDT", "1h")
    assert bars.close.tolist() == some_frame()["close"].tolist()
