"""Files as people really have them: each is read as what it is, or refused with advice that works."""

import itertools
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from bitcorn_ray import load_market_data, prepare_features
from bitcorn_ray.cli import main
from bitcorn_ray.errors import BitcornError

INPUTS = Path(__file__).parent / "inputs"


@pytest.fixture
def bitcorn(tmp_path):
    """A function that runs a command in the folder of a case and returns its result."""

    def run(case, *words):
        before = Path.cwd()
        os.chdir(INPUTS / case)
        try:
            return CliRunner().invoke(main, [str(word) for word in words])
        finally:
            os.chdir(before)

    return run


@pytest.fixture
def ingested(bitcorn, tmp_path):
    """A function that ingests files of a case; returns rows (open, close, volume) by partition and time."""

    def ingest(case, *words):
        path = tmp_path / "market.db"
        done = bitcorn(case, "ingest", *words, "--db", path)
        assert done.exit_code == 0, done.output
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute(
                "SELECT symbol || ' ' || timeframe, ts, open, close, volume FROM ohlcv"
            ).fetchall()
        found = {}
        for partition, at, *values in rows:
            found.setdefault(partition, {})[at] = tuple(values)
        return found

    return ingest


HOURS = [1_704_067_200_000 + 3_600_000 * hour for hour in range(60)]


@pytest.mark.parametrize(
    ("case", "files", "partitions"),
    [
        ("name-stopword-base", ["BAR_USDT-1h.json", "DATA_USDT-1h.json"], {"BAR_USDT 1h": 3.0, "DATA_USDT 1h": 0.05}),
        ("name-numeric-ticker", ["600519_SH_1d.csv", "000858_SH_1d.csv"], {"600519_SH 1d": None, "000858_SH 1d": None}),
        (
            "name-perp-turned",
            ["BTC-PERP_1h.csv", "ETH-PERPETUAL_1h.csv", "btc-perp-20211231-20220201_1m.csv"],
            {"BTC-PERP 1h": None, "ETH-PERPETUAL 1h": None, "BTC-PERP 1m": None},
        ),
        ("name-unknown-exchange", ["poloniex_USDT_BTC.json"], {"BTC_USDT 1h": None}),
        (
            "freqtrade-candle-types",
            [f"XRP_USDT_USDT-8h-{kind}.feather" for kind in ("futures", "mark", "funding_rate")],
            {"XRP/USDT:USDT 8h": None, "XRP/USDT:USDT.MARK 8h": None, "XRP/USDT:USDT.FUNDING 8h": None},
        ),
    ],
)
def test_no_market_is_taken_for_another(ingested, case, files, partitions):
    found = ingested(case, *files)
    assert set(found) == set(partitions)
    for name, first in partitions.items():
        assert len(found[name]) == 6
        assert first is None or next(iter(found[name].values()))[0] == pytest.approx(first, rel=0.1)


def test_tables_named_by_numbers_are_different_markets(bitcorn):
    done = bitcorn("name-numeric-ticker", "inspect", "japan.db", "--json")
    assert done.exit_code == 0
    assert [each["symbol"] for each in json.loads(done.stdout)["partitions"]] == ["7203.T", "9984.T", "^GSPC"]


def test_all_files_of_a_lake_are_one_partition_in_every_command(bitcorn, tmp_path):
    lake = INPUTS / "lake-year-month" / "lake"
    frame = load_market_data(lake, "BTCUSDT", "12h").dataframe
    assert (len(frame), str(frame.timestamp.iloc[-1])) == (90, "2024-02-14 12:00:00+00:00")
    quality = json.loads(bitcorn("lake-year-month", "quality", "lake", "--json").stdout)["partitions"]
    assert [each["rows"] for each in quality] == [90]
    assert bitcorn("lake-year-month", "export", "lake", "--to", tmp_path / "out").exit_code == 0
    pd.testing.assert_frame_equal(load_market_data(tmp_path / "out", "BTCUSDT", "12h").dataframe, frame)


@pytest.mark.parametrize(
    ("case", "file", "options", "partition", "volume"),
    [
        ("kaggle-volume-currency", "BTCUSD_1m.csv", [], "BTCUSD 1m", 57.0),
        ("mt5-zero-real-volume", "XAUUSD_1m.csv", [], "XAUUSD 1m", 57.0),
        ("coinapi-wrong-advice", "BTCUSD_1h.csv", [], "BTCUSD 1h", 57.0),
        ("no-volume", "GBPUSD_1m.csv", ["--map", "volume=none"], "GBPUSD 1m", 0.0),
        ("no-volume", "SPX_1d.csv", ["--map", "volume=none"], "SPX 1d", 0.0),
        ("pandas-unnamed-index", "EURUSD_1h.csv", [], "EURUSD 1h", 57.0),
        ("pandas-unnamed-index", "EURUSD_1h.csv", ["--map", "timestamp=#0"], "EURUSD 1h", 57.0),
        ("yfinance-three-headers", "AAPL_1d.csv", [], "AAPL 1d", 57.0),
        ("txt-is-database", "nvda-2014.txt", ["--symbol", "NVDA"], "NVDA 1d", 57.0),
        ("columnar-json", "udf.json", ["--symbol", "IBM"], "IBM 1h", 57.0),
        ("columnar-json", "av.json", ["--symbol", "IBM"], "IBM 1h", 57.0),
        ("columnar-json", "default.json", ["--symbol", "IBM"], "IBM 1h", 57.0),
    ],
)
def test_columns_mean_what_their_values_say(ingested, case, file, options, partition, volume):
    found = ingested(case, file, *options)
    assert set(found) == {partition}
    times, rows = list(found[partition]), list(found[partition].values())
    assert len({b - a for a, b in itertools.pairwise(times)}) == 1
    assert times[0] % 60_000 == 0
    assert rows[0][2] == volume
    for before, after in itertools.pairwise(rows):  # all of these open at the close before
        assert after[0] == pytest.approx(before[1], rel=2e-4)


@pytest.mark.parametrize("file", ["EURUSD_1h.csv", "short/EURUSD_1h.csv", "mt4/EURUSD60.csv"])
def test_a_date_and_a_time_of_day_are_one_time(ingested, file):
    found = ingested("date-and-time-columns", file)
    assert set(found) == {"EURUSD 1h"}
    assert list(found["EURUSD 1h"]) == HOURS[: 30 if "short" in file else 60]
    assert ingested("date-and-time-columns", file, *(["--map", "timestamp=Date+Time"] if "mt4" not in file else []))


def test_stooq_has_dates_and_times_without_separators(ingested):
    found = ingested("date-and-time-columns", "stooq/aapl.us.csv")
    assert list(found["AAPL.US 1d"]) == [1_704_067_200_000 + 86_400_000 * day for day in range(6)]


def test_dates_say_by_their_rows_whether_the_day_is_first(ingested):
    found = ingested("day-month-year", "EURUSD_1h.csv") | ingested("day-month-year", "AAPL_1d.csv")
    assert next(iter(found["EURUSD 1h"])) == pd.Timestamp("2020-12-31").value // 1_000_000
    assert next(iter(found["AAPL 1d"])) == pd.Timestamp("2020-12-31").value // 1_000_000


def test_names_of_columns_beside_json_rows_are_believed(ingested):
    rows = ingested("json-split-names-ignored", "BTCUSD_1h.json")["BTCUSD 1h"]
    assert rows[HOURS[0]][:2] == (100.0, 100.0005)


def test_local_times_are_the_instants_that_the_zone_says(ingested):
    rows = ingested("local-time", "SPY_1h.csv", "--timezone", "America/New_York")["SPY 1h"]
    times = list(rows)
    assert len(times) == 8
    assert {b - a for a, b in itertools.pairwise(times)} == {3_600_000}
    assert times[0] == pd.Timestamp("2020-10-31 23:00", tz="America/New_York").value // 1_000_000
    fixed = ingested("local-time", "EURUSD_1m.csv", "--timezone", "EST")["EURUSD 1m"]
    assert next(iter(fixed)) == pd.Timestamp("2024-01-01 05:00", tz="UTC").value // 1_000_000


def test_na_is_a_ticker(ingested):
    found = ingested("ticker-na", "stocks.csv")
    assert {name: len(rows) for name, rows in found.items()} == {"NA 1d": 4, "AAPL 1d": 4}


def test_a_name_that_its_bars_contradict_is_refused(bitcorn, tmp_path):
    done = bitcorn("name-says-8m", "ingest", "BTC_USDT-8m.json", "--db", tmp_path / "x.db")
    assert done.exit_code == 2
    assert "8m bars, but most of its bars are 1m apart" in done.stderr
    assert not (tmp_path / "x.db").exists()
    advised = ["--timeframe", "1m"]
    assert " ".join(advised) in done.stderr
    assert bitcorn("name-says-8m", "ingest", "BTC_USDT-8m.json", *advised, "--db", tmp_path / "x.db").exit_code == 0
    months = bitcorn("name-says-8m", "ingest", "BTCUSDT-1mo-2023.csv", "--db", tmp_path / "y.db")
    assert months.exit_code == 2
    assert "month (1mo)" in months.stderr


def test_a_file_of_one_market_without_a_name_is_read_under_the_requested_one(bitcorn, tmp_path):
    case = "symbol-option-missing"
    assert bitcorn(case, "inspect", "AAPL.csv").exit_code == 2
    shown = bitcorn(case, "inspect", "AAPL.csv", "--symbol", "AAPL", "--json")
    assert [each["symbol"] for each in json.loads(shown.stdout)["partitions"]] == ["AAPL"]
    for words in (("quality", "AAPL.csv"), ("export", "AAPL.csv", "--to", tmp_path / "lake")):
        done = bitcorn(case, *words, "--symbol", "AAPL")
        assert done.exit_code == 0, done.output
    assert len(load_market_data(tmp_path / "lake", "AAPL", "1d").dataframe) == 30
    assert len(load_market_data(INPUTS / case / "AAPL.csv", "AAPL", "1d").dataframe) == 30


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("columnar-json", ["ingest", "udf.json", "--db", "OUT/x.db"]),
        ("symbol-option-missing", ["inspect", "AAPL.csv"]),
        ("symbol-option-missing", ["export", "AAPL.csv", "--to", "OUT/lake"]),
        ("symbol-option-missing", ["quality", "AAPL.csv"]),
        ("no-volume", ["ingest", "GBPUSD_1m.csv", "--db", "OUT/x.db"]),
        ("name-says-8m", ["ingest", "BTC_USDT-8m.json", "--db", "OUT/x.db"]),
    ],
)
def test_advice_can_be_followed_with_the_same_command(bitcorn, tmp_path, case, words):
    words = [word.replace("OUT", str(tmp_path)) for word in words]
    done = bitcorn(case, *words)
    assert done.exit_code == 2
    advised = [part for part in shlex.split(done.stderr.replace(";", " ").replace(",", " ").replace("'", ""))]
    option = next(index for index, word in enumerate(advised) if word.startswith("--"))
    if advised[option] == "--map":
        option = max(index for index, word in enumerate(advised) if word == "--map")
    values = {"--symbol": "IBM"}
    value = values.get(advised[option], advised[option + 1])
    again = bitcorn(case, *words, advised[option], value)
    assert again.exit_code == 0, again.output


def test_bars_without_volume_have_features(tmp_path):
    path = INPUTS / "no-volume" / "SPX_1d.csv"
    with pytest.raises(BitcornError, match="volume"):
        prepare_features(load_market_data(path, "SPX", "1d").dataframe, "v2", use_cache=False)
    frame = load_market_data(path, "SPX", "1d", mapping={"volume": "none"}).dataframe
    assert (frame.volume == 0).all()
    assert len(prepare_features(frame, "v2", use_cache=False).dataframe) == 80 - 49


def test_a_symbol_that_is_too_short_is_left_out_by_its_name(bitcorn, tmp_path):
    words = ["--timeframe", "1h", "--seq-len", "64", "--epochs", "1", "--hidden-size", "4", "--workers", "0"]
    symbols = ["train", "--db", "market.db", "--symbols"]
    done = bitcorn("short-symbol-unnamed", *symbols, "BTCUSDT,NEWUSDT", *words, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "left out: NEWUSDT 1h: 90 bars are too few" in done.stderr
    alone = bitcorn("short-symbol-unnamed", *symbols, "NEWUSDT", *words, "--out", tmp_path / "other")
    assert alone.exit_code == 2
    assert "NEWUSDT 1h: 90 bars are too few" in alone.stderr


def test_ray_that_cannot_start_is_one_line(tmp_path):
    folder = tmp_path / ("long_name_" * 9)
    folder.mkdir()
    file = INPUTS / "kaggle-volume-currency" / "BTCUSD_1m.csv"
    done = subprocess.run(
        [sys.executable, "-m", "bitcorn_ray", "features", str(file)],
        env={**os.environ, "TMPDIR": str(folder), "BITCORN_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "set TMPDIR to a shorter one" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_tables_are_printed_in_any_encoding(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "bitcorn_ray", "inspect", str(INPUTS / "name-numeric-ticker" / "japan.db")],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == 0
    assert b"7203.T" in done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_filled_weekends_are_no_outcomes_and_give_no_skill(bitcorn, tmp_path):
    case, words = "filled-weekends-verdict", ["--seq-len", "8", "--epochs", "2", "--hidden-size", "8", "--workers", "0"]
    words += ["--horizons", "1,2", "--test-frac", "0.3", "--clean", "gaps=forward:4", "--out", tmp_path / "run"]
    done = bitcorn(case, "train", "--db", "IID_1d.csv", "--symbol", "IID", "--timeframe", "1d", *words)
    assert done.exit_code == 0, done.output
    judged = json.loads(bitcorn(case, "evaluate", tmp_path / "run", "IID_1d.csv", "--json").stdout)
    # The bars are a random walk. With Saturdays as outcomes log-HAR was worse by 0.95 nats, p < 0.001.
    for horizon in judged["skill"]:
        har = next(each for each in horizon["volatility"] if each["baseline"] == "log-HAR")
        assert har["outcome"] == "not distinguishable"
