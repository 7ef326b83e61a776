import gzip
import json
import pickle
import re
import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitcorn_ray.data_loader import load_market_data

# bitcorn inspect


def test_a_database_is_told_as_a_table_and_as_json(run, market_db):
    shown = run("inspect", market_db)
    assert shown.exit_code == 0
    assert "AAAUSDT 1h" in shown.stdout
    found = json.loads(run("inspect", market_db, "--json").stdout)
    assert [(p["symbol"], p["timeframe"], p["rows"]) for p in found["partitions"]] == [
        ("AAAUSDT", "1h", 1_476),
        ("BBBUSDT", "1h", 900),
    ]
    assert found["tables"][0]["columns"]["timestamp"] == "ts"
    assert found["kind"] == "database"


def test_what_is_in_the_way_ends_with_status_1_until_an_option_decides(run, market_db):
    with sqlite3.connect(market_db) as connection:
        connection.execute("CREATE TABLE backup AS SELECT *, open AS o FROM ohlcv")
    connection.close()
    mapped = ["--map", "open=open"]
    twice = run("inspect", market_db, *mapped)
    assert twice.exit_code == 1
    assert "also in" in twice.stdout
    assert run("inspect", market_db, *mapped, "--table", "ohlcv").exit_code == 0
    assert run("inspect", market_db, *mapped, "--table", "backup").exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.db", pickle.dumps({"a": 1}), "cannot be read as a SQLite database"),
        ("a.db", b"", "the file is empty (0 bytes)"),
        ("a.csv", b"when,price\n1,2\n", "no column"),
        ("a.csv", b"", "a.csv"),
    ],
)
def test_bad_input_of_inspect_is_one_line_and_status_2(run, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    result = run("inspect", path)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("bitcorn: ")
    assert message in line
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--table", "none"], "has no table 'none': it has ohlcv"),
        (["--map", "open"], "mapping 'open' is not NAME=COLUMN"),
        (["--map", "open=nothing"], "there is no such column, but #0 symbol, #1 timeframe, #2 ts, #3 open"),
    ],
)
def test_bad_options_are_one_line_and_status_2(run, market_db, options, message):
    result = run("inspect", market_db, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


# bitcorn ingest


@pytest.fixture
def bar_file(tmp_path, random_bars):
    columns = random_bars(200).columns()
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), tmp_path / "AAAUSDT_1h.parquet")
    return tmp_path / "AAAUSDT_1h.parquet"


def test_ingest_says_what_became_of_the_rows(run, bar_file, tmp_path):
    first = json.loads(run("ingest", bar_file, "--db", tmp_path / "m.db", "--json").output)
    counts = {"rows": 200, "inserted": 200, "updated": 0, "unchanged": 0, "rejected": {}}
    named = {"source": str(bar_file), "symbol": "AAAUSDT", "timeframe": "1h"}
    assert first["partitions"] == [named | counts]
    again = run("ingest", bar_file, "--db", tmp_path / "m.db")
    assert again.exit_code == 0
    assert "AAAUSDT 1h" in again.stdout


def test_columns_and_conflicts_are_options(run, tmp_path):
    path = tmp_path / "x_1h.csv"
    path.write_text("ts,a,high,low,close,volume,symbol\n1700000000,1,2,1,2,5,B\n1700000000,1,3,1,2,5,B\n")
    unclear = run("ingest", path, "--db", tmp_path / "m.db")
    assert unclear.exit_code == 2
    options = ["--map", "open=a", "--on-conflict", "keep", "--json"]
    [done] = json.loads(run("ingest", path, "--db", tmp_path / "m.db", *options).stdout)["partitions"]
    assert (done["inserted"], sum(done["rejected"].values())) == (1, 1)
    with closing(sqlite3.connect(tmp_path / "m.db")) as connection:
        assert connection.execute("SELECT symbol, timeframe, ts, high FROM ohlcv").fetchall() == [
            ("B", "1h", 1_700_000_000_000, 2.0)
        ]
    refused = run("ingest", path, "--db", tmp_path / "m.db", "--map", "open=a", "--on-conflict", "error")
    assert refused.exit_code == 2
    assert "choose by --on-conflict" in refused.stderr


HEADER = "ts,open,high,low,close,volume\n"
ROW = "1700000000,1,2,0.5,1,5\n"
CSV = (HEADER + ROW).encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("A_1h.csv.gz", gzip.compress(CSV * 500)[:-30], "cannot be read"),
        ("A_1h.csv", CSV.replace(b",", b"^"), "has no column timestamp, open"),
        ("A_1h.csv", b"", "it is empty"),
        ("A_1h.parquet", b"", "cannot be read"),
        ("A_1h.feather", b"", "cannot be read"),
        ("A_1h.json", b"", "it is empty"),
        ("A_1h.csv", b"ts,open,high\n1,2,3\n", "has no column low, close, volume: it has ts, open, high"),
        (
            "A_1h.csv",
            (HEADER + ROW + "1700003600,1,2,abc,1,5\n").encode(),
            "'low' of .* holds 'abc', which is not a number",
        ),
        ("A_1h.csv", (HEADER + "noon,1,2,1,1,5\n").encode(), "column 'ts' of .* holds 'noon'"),
        ("A_1h.json", b"[[1700000000, 1, 2, 1", "cut off"),
        ("A_1h.parquet", pickle.dumps({"a": 1}), "cannot be read"),
        ("A_1M.csv", CSV, "A_1M.csv holds bars of a month"),
        ("prices.csv", CSV, "does not say its symbol"),
        ("A_1h.xlsx", b"PK", "unknown format"),
        ("none/A_1h.csv", None, "no file at"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_bad_file_is_one_line_and_leaves_the_database_alone(run, bar_file, tmp_path, name, content, message, exists):
    db = tmp_path / "m.db"
    if exists:
        run("ingest", bar_file, "--db", db)
        before = db.read_bytes()
    (tmp_path / "bad").mkdir()
    if content is not None:
        (tmp_path / "bad" / name).write_bytes(content)
    # A good file stands before it: nothing of that is stored either.
    result = run("ingest", bar_file, tmp_path / "bad" / name, "--db", db)
    assert result.exit_code == 2
    [line] = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("bitcorn: ")
    assert re.search(message, line)
    assert result.stdout == ""
    assert db.read_bytes() == before if exists else not db.exists()


@pytest.mark.parametrize("content", [pickle.dumps(["no", "database"] * 99), b"text " * 500])
def test_a_target_that_is_no_database_is_left_alone(run, bar_file, tmp_path, content):
    (tmp_path / "m.db").write_bytes(content)
    result = run("ingest", bar_file, "--db", tmp_path / "m.db")
    assert result.exit_code == 2
    assert "m.db cannot be written: file is not a database" in result.stderr
    assert (tmp_path / "m.db").read_bytes() == content


# bitcorn download


@pytest.fixture
def candles(monkeypatch):
    """An exchange without a network: a clock and bars by the hour."""
    ccxt = pytest.importorskip("ccxt", reason="the extra `exchange` is not installed")

    start = 1_577_836_800_000

    class Exchange(ccxt.Exchange):
        def describe(self):
            has = {"fetchOHLCV": True, "fetchTime": True}
            return self.deep_extend(super().describe(), {"id": "mine", "has": has, "timeframes": {"1h": "1h"}})

        def load_markets(self, *_):
            self.markets = {"BTC/USDT": {"symbol": "BTC/USDT"}}
            return self.markets

        def feature_value(self, *_):
            return 10

        def fetch_time(self, *_):
            return start + 25 * 3_600_000

        def fetch_ohlcv(self, symbol, timeframe, since=None, limit=None):
            times = [start + hour * 3_600_000 for hour in range(26)]
            return [[at, 1.0, 2.0, 0.5, 1.5, 7.0] for at in times if at >= since][:limit]

    monkeypatch.setattr(ccxt, "mine", Exchange, raising=False)
    monkeypatch.setattr(ccxt, "exchanges", ["mine"])


ARGUMENTS = ["--exchange", "mine", "--symbols", "BTCUSDT", "--timeframes", "1h", "--since", "2020-01-01"]


def test_download_says_what_became_of_the_bars(run, candles, tmp_path):
    done = json.loads(run("download", *ARGUMENTS, "--db", tmp_path / "m.db", "--json").stdout)
    assert done["partitions"] == [
        {
            "symbol": "BTC/USDT",
            "timeframe": "1h",
            "rows": 25,
            "inserted": 25,
            "updated": 0,
            "last_timestamp": "2020-01-02T00:00:00Z",
        }
    ]
    again = run("download", *ARGUMENTS, "--db", tmp_path / "m.db")
    assert again.exit_code == 0
    assert "2020-01-02 00:00" in again.stdout


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--exchange", "minee", "unknown exchange 'minee': give a name that ccxt knows, such as mine"),
        ("--symbols", "ETHUSDT", "mine has no market 'ETHUSDT'"),
        ("--symbols", ",", "--symbols is ','"),
        ("--timeframes", "5m", "mine has no bars of 5m: it has 1h"),
        ("--since", "yesterday", "--since holds 'yesterday'"),
    ],
)
def test_bad_input_of_download_is_one_line_and_status_2(run, candles, tmp_path, option, value, message):
    arguments = list(ARGUMENTS)
    arguments[arguments.index(option) + 1] = value
    result = run("download", *arguments, "--db", tmp_path / "m.db")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "m.db").exists()


# bitcorn export


def test_what_is_exported_to_a_store_is_a_source_of_every_command(run, market_db, s3_uri, ray_cluster, cache_dir):
    exported = json.loads(run("export", market_db, "--to", s3_uri, "--json").stdout)
    assert [(p["symbol"], p["timeframe"]) for p in exported["partitions"]] == [("AAAUSDT", "1h"), ("BBBUSDT", "1h")]
    assert "secret" not in json.dumps(exported)
    expected = load_market_data(str(market_db), "AAAUSDT", "1h")
    loaded = load_market_data(s3_uri, "aaa/usdt", "1h")
    assert loaded.dataframe.equals(expected.dataframe)
    assert len(load_market_data(s3_uri, "AAAUSDT", "1h", limit=50).dataframe) == 50

    computed = json.loads(run("features", s3_uri, "--json").stdout)
    assert [(p["symbol"], p["error"], p["hit"]) for p in computed["partitions"]] == [
        ("AAAUSDT", None, False),
        ("BBBUSDT", None, False),
    ]
    # Bars are what decides: the database's features are the store's.
    local = json.loads(run("features", market_db, "--json").stdout)
    assert [p["hit"] for p in local["partitions"]] == [True, True]
    explained = json.loads(run("cache", "explain", s3_uri, "--json").stdout)
    assert [p["outcome"] for p in explained["partitions"]] == ["hit", "hit"]
    audited = run("audit", s3_uri, "--symbols", "BBBUSDT", "--cuts", "2", "--json")
    assert audited.exit_code == 0
    # No secret is stored or shown.
    assert not [p for p in cache_dir.rglob("*") if p.is_file() and b"secret" in p.read_bytes()]
    assert "key:secret" not in run("features", s3_uri).stdout


def test_a_model_is_trained_and_forecasts_from_a_store(run, market_db, s3_uri, tmp_path, cache_dir):
    run("export", market_db, "--to", s3_uri, "--symbols", "AAAUSDT")
    small = ["--timeframe", "1h", "--hidden-size", 8, "--seq-len", 16, "--epochs", 1, "--horizons", "1,4"]
    out = tmp_path / "run"
    trained = run("train", "--db", s3_uri, "--symbol", "AAAUSDT", *small, "--workers", 0, "--out", out)
    assert trained.exit_code == 0, trained.output
    forecast = run("forecast", out, s3_uri, "--json")
    assert forecast.exit_code == 0, forecast.output
    files = [path for folder in (cache_dir, out) for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"key:secret" in path.read_bytes()]


def test_an_object_that_has_not_changed_is_not_read_again(run, market_db, s3_server, s3_uri, ray_cluster, monkeypatch):
    from bitcorn_ray.sources import source

    run("export", market_db, "--to", s3_uri)
    monkeypatch.setattr(source, "_SETTLED_REMOTE_NS", 0)
    first = run("features", s3_uri, "--json")
    assert first.exit_code == 0
    before = len(s3_server[1])
    again = json.loads(run("features", s3_uri, "--json").stdout)
    assert [p["unread"] for p in again["partitions"]] == [True, True]
    assert not [request for request in s3_server[1][before:] if "GET" in request and ".parquet" in request]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.db", "--to", "x"], "no database, file or folder of bars at"),
        (["{db}", "--to", "nothing://host/x"], "nothing://host/x cannot be opened"),
        (["{db}", "--to", "{lake}", "--symbols", "NOPE"], "unknown symbol NOPE"),
        (["{db}", "--to", "{db}"], "cannot be written: it is a file"),
    ],
)
def test_bad_input_of_export_is_one_line_and_status_2(run, market_db, tmp_path, arguments, message):
    result = run("export", *(each.format(db=market_db, lake=tmp_path / "lake") for each in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "lake").exists()


def test_an_export_to_a_folder_is_a_table(run, market_db, tmp_path):
    result = run("export", "--db", market_db, "--to", tmp_path / "lake", "--symbols", "bbb-usdt")
    assert result.exit_code == 0
    assert "BBBUSDT 1h" in result.stdout
    assert [str(path.relative_to(tmp_path / "lake")) for path in (tmp_path / "lake").rglob("*.parquet")] == [
        "symbol=BBBUSDT/timeframe=1h/bars.parquet"
    ]


# bitcorn quality


def test_a_raw_file_is_diagnosed_as_json_and_as_a_page(run, data_dir, tmp_path):
    done = run("quality", data_dir / "raw" / "CDD_Binance_BTCUSDT_1h.csv.gz", "--json", "--out", tmp_path / "q.html")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["partitions"]
    counts = {reason["kind"]: reason["count"] for reason in found["reasons"]}
    assert counts == {
        "duplicates_different": 2_649,
        "mixed_time_units": 7_478,
        "mixed_time_formats": 7_478,
        "bad_prints": 2,
        "invented_bars": 117,
        "outage_bars": 16,
        "unfinished_last_bar": 1,
    }
    assert found["time_units"] == {"s": 28_584, "ms": 7_478}
    assert (tmp_path / "q.html").read_text().startswith("<!doctype html>")


def test_a_row_without_a_time_costs_points(run, tmp_path):
    rows = "".join(f"{1_700_000_000_000 + i * 3_600_000 if i != 5 else ''},1,2,0.5,1,9\n" for i in range(20))
    (tmp_path / "BTCUSDT_1h.csv").write_text(f"ts,open,high,low,close,volume\n{rows}")
    done = run("quality", tmp_path / "BTCUSDT_1h.csv")
    assert "1 row without a time" in done.output
    (found,) = json.loads(run("quality", tmp_path / "BTCUSDT_1h.csv", "--json").stdout)["partitions"]
    assert found["set_aside"] == {"have no time": 1}
    assert found["score"] < 95


def test_partitions_of_a_database_are_tables_on_a_terminal(run, market_db):
    done = run("quality", market_db)
    assert done.exit_code == 0
    assert "AAAUSDT 1h" in done.output
    assert "bars missing in outages" in done.output
    one = run("quality", market_db, "--symbol", "bbb/usdt", "--timeframe", "1h")
    assert "AAAUSDT" not in one.output
    assert "100.0" in one.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--symbol", "NOPE"], "unknown symbol NOPE"),
        (["--timeframe", "1M"], "month"),
        (["--out", "/dev/null/q.html"], "cannot be written"),
    ],
)
def test_bad_input_of_quality_is_one_line(run, market_db, arguments, message):
    done = run("quality", market_db, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_source_that_is_not_there_is_one_line(run, tmp_path):
    done = run("quality", tmp_path / "nothing.db")
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("timestamp:open:high:low:close:volume\n1577836800000:1:2:1:2:5\n", "has no column timestamp, open"),
        (f"<html>{'x' * 100_000}</html>\n", "has no column timestamp, open"),
        ("ts,open,high,low,close,volume,note\n1577836800000,1,2,1,2,5,\xe4\n", "save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_understood_is_one_short_line(run, tmp_path, content, message):
    path = tmp_path / "BTCUSDT_1h.csv"
    path.write_bytes(content.encode("latin-1"))
    done = run("quality", path)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(done.stderr) < 500 + len(str(path))
