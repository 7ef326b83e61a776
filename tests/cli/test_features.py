import json
import os
import pickle
import sqlite3

import pytest
from comparing import age_entry

from bitcorn_ray.cache.pruning import stats
from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.data_loader import load_market_data, prepare_features


def test_features_are_computed_then_hit(run, market_db, ray_cluster):
    first = json.loads(run("features", "--db", market_db, "--json").stdout)
    assert [(p["symbol"], p["hit"], p["error"]) for p in first["partitions"]] == [
        ("AAAUSDT", False, None),
        ("BBBUSDT", False, None),
    ]
    table = run("features", "--db", market_db, "--symbols", "aaa-usdt", "--timeframes", "1h")
    assert table.exit_code == 0
    assert "hit" in table.stdout
    assert "BBBUSDT" not in table.stdout
    entries = json.loads(run("cache", "ls", "--json").stdout)["entries"]
    assert len(entries) == 2
    assert "AAAUSDT 1h" in run("cache", "ls").stdout
    assert json.loads(run("cache", "stats", "--json").stdout)["entries"] == 2
    assert "2 entries" in run("cache", "stats").stdout
    assert json.loads(run("cache", "clear", "--db", market_db, "--json").stdout) == {"cleared": 2}
    assert run("cache", "clear").stdout == "cleared 0 entries\n"


def test_a_failed_partition_is_named_and_the_status_tells(run, market_db, ray_cluster):
    with sqlite3.connect(market_db) as connection:
        connection.execute("UPDATE ohlcv SET low = -1 WHERE symbol = 'AAAUSDT' AND rowid = 100")
    connection.close()
    result = run("features", "--db", market_db)
    assert result.exit_code == 2
    assert "failed" in result.stdout
    assert "computed" in result.stdout
    failures = [line for line in result.stderr.splitlines() if "failed" in line]
    assert len(failures) == 1
    assert failures[0].startswith(
        "bitcorn: AAAUSDT 1h failed: low must be a finite number above 0, but is -1.0 in 1 of"
    )


def _text(path, content):
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda d, db: ["features", "--db", d / "none.db"], "no database, file or folder of bars at"),
        (
            lambda d, db: ["features", "--db", _text(d / "t.db", "no database" * 99)],
            "cannot be read as a SQLite database",
        ),
        (lambda d, db: ["features", "--db", db, "--symbols", "NOPE"], "unknown symbol NOPE: there is AAAUSDT, BBBUSDT"),
        (lambda d, db: ["features", "--db", db, "--timeframes", "30m"], "no bars of timeframe 30m: there is 1h"),
        (lambda d, db: ["features", "--db", db, "--timeframes", "1M"], "is a month"),
        (lambda d, db: ["features", "--db", db, "--system", "v9"], "unknown feature system 'v9'"),
        (lambda d, db: ["features", "--db", db, "--cache-dir", _text(d / "f", "") / "c"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, market_db, tmp_path, ray_cluster, arguments, message):
    result = run(*arguments(tmp_path, market_db))
    errors = [line for line in result.stderr.splitlines() if line.startswith("bitcorn: ")]
    assert result.exit_code == 2, result.output
    assert len(errors) == 1
    assert message in errors[0]
    assert result.stdout == ""


@pytest.mark.parametrize("rows", [0, 30])
def test_an_empty_table_and_too_few_bars_are_told_apart(run, tmp_path, random_bars, ray_cluster, rows):
    from bitcorn_ray.market.partition import Partition
    from bitcorn_ray.sources.ingest import write_bars

    write_bars([("x", Partition("A", "1h"), random_bars(30).take(slice(rows)))], tmp_path / "m.db")
    result = run("features", "--db", tmp_path / "m.db")
    assert result.exit_code == 2
    assert ("holds no bars" if rows == 0 else "30 bars are too few for the features v2: they need 50") in result.stderr


def test_an_audit_tells_by_its_status(run, market_db, ray_cluster, tmp_path, monkeypatch):
    (tmp_path / "cli_leaky.py").write_text(
        "import numpy as np\nfrom bitcorn_ray.features.system import feature_system\n"
        "@feature_system(name='peek', warmup=0)\n"
        "def peek(bars):\n    return {'next': np.append(bars.close[1:], bars.close[-1]) / bars.close}\n"
    )
    monkeypatch.chdir(tmp_path)
    passed = run("audit", market_db, "--system", "v2", "--symbols", "AAAUSDT", "--cuts", "4", "--json")
    assert passed.exit_code == 0
    assert json.loads(passed.stdout)["partitions"][0]["report"]["findings"] == []
    found = run("audit", "--db", market_db, "--system", "cli_leaky:peek", "--symbols", "AAAUSDT", "--cuts", "4")
    assert found.exit_code == 1
    assert "look-ahead" in found.stdout
    refused = run("audit", market_db, "--system", "cli_leaky:nothing")
    assert refused.exit_code == 2
    assert "has no 'nothing'" in refused.stderr


def test_features_of_a_table_that_a_user_names(run, market_db, ray_cluster):
    with sqlite3.connect(market_db) as connection:
        columns = "symbol, timeframe, ts, open AS a, open * 2 AS o, high, low, close, volume"
        connection.execute(f"CREATE TABLE backup AS SELECT {columns} FROM ohlcv WHERE symbol = 'BBBUSDT'")
    connection.close()
    unclear = run("features", market_db, "--symbols", "BBBUSDT", "--table", "none")
    assert unclear.exit_code == 2
    assert "has no table 'none': it has ohlcv, backup" in unclear.stderr
    options = ["features", market_db, "--table", "backup", "--map", "open=a", "--json"]
    named = json.loads(run(*options).stdout)["partitions"]
    whole = json.loads(run("features", market_db, "--table", "ohlcv", "--map", "open=open", "--json").stdout)[
        "partitions"
    ]
    assert [(p["symbol"], p["error"]) for p in named] == [("BBBUSDT", None)]
    # Equal bars have equal keys, wherever they lie.
    assert named[0]["key"] in {p["key"] for p in whole}


def test_bars_are_cleaned_as_a_policy_says_and_what_was_done_is_told(run, market_db, ray_cluster):
    os.utime(market_db, (1e9, 1e9))  # long ago, so that its state is known
    options = ["features", market_db, "--clean", "duplicates=first,off-grid=snap,gaps=forward:30"]
    bare = {p["symbol"]: p for p in json.loads(run("features", market_db, "--json").stdout)["partitions"]}
    clean = {p["symbol"]: p for p in json.loads(run(*options, "--json").stdout)["partitions"]}
    assert {symbol: p["cleaning"] for symbol, p in bare.items()} == {"AAAUSDT": None, "BBBUSDT": None}
    missing = clean["AAAUSDT"]["rows"] - bare["AAAUSDT"]["rows"]
    assert clean["AAAUSDT"]["cleaning"]["bars_filled"] == missing == 1_451 - bare["AAAUSDT"]["rows"] > 0
    assert clean["BBBUSDT"]["hit"]  # equal bars have equal features
    again = run(*options)
    assert "unchanged" in again.stdout
    assert f"AAAUSDT 1h: {1_500 - missing:,} rows became 1,500 bars ({missing} filled in 2 gaps)" in again.stdout
    assert "BBBUSDT 1h: 900 rows became 900 bars (nothing to clean)" in again.stdout
    refused = run("features", market_db, "--clean", "gaps=spline")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "bitcorn: fill is 'spline' in the cleaning policy: use one of None, 'forward', 'linear'" in refused.stderr


def test_an_audit_reads_a_source_as_a_user_says(run, market_db, ray_cluster):
    with sqlite3.connect(market_db) as connection:
        columns = "symbol, timeframe, ts, open AS a, open * 2 AS o, high, low, close, volume"
        connection.execute(f"CREATE TABLE backup AS SELECT {columns} FROM ohlcv WHERE symbol = 'AAAUSDT'")
    connection.close()
    options = ["audit", market_db, "--table", "backup", "--map", "open=a", "--cuts", "2", "--json"]
    done = run(*options, "--clean", "gaps=forward")
    assert done.exit_code == 0, done.output
    (partition,) = json.loads(done.stdout)["partitions"]
    assert (partition["symbol"], partition["cleaning"]["bars"]) == ("AAAUSDT", 1_500)
    refused = run("audit", market_db, "--cuts", "2", "--table", "none")
    assert refused.exit_code == 2
    assert "has no table 'none': it has ohlcv, backup" in refused.stderr


@pytest.mark.parametrize(
    "content", [pickle.dumps({"bars": [1] * 99}), b"", b"text " * 500], ids=["pickle", "0", "text"]
)
@pytest.mark.parametrize("command", ["inspect", "quality", "features", "audit", "train", "export"])
def test_what_is_no_database_is_one_line_in_every_command_and_stays_as_it_is(run, tmp_path, command, content):
    db = tmp_path / "market.db"
    db.write_bytes(content)
    arguments = {
        "train": ["--db", db, "--symbol", "A", "--timeframe", "1h", "--workers", 0, "--out", tmp_path / "run"],
        "export": ["--db", db, "--to", tmp_path / "lake"],
    }
    result = run(command, *arguments.get(command, [db]))
    assert result.exit_code == 2, result.output
    assert [line.startswith("bitcorn: ") for line in result.stderr.splitlines()] == [True]
    assert ("0 bytes" if not content else "cannot be read as a SQLite database") in result.stderr
    assert result.stdout == ""
    assert db.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["market.db"]


# bitcorn cache


@pytest.fixture
def filled(market_db):
    """The default cache with an entry of AAAUSDT, used two days ago, and one of BBBUSDT, just used."""
    for symbol in ("AAAUSDT", "BBBUSDT"):
        prepare_features(load_market_data(market_db, symbol, "1h").dataframe, db_path=str(market_db))
    cache = open_cache()
    old = next(entry for entry in cache.entries() if entry["used_by"][0]["symbol"] == "AAAUSDT")
    age_entry(cache, old["key"], 2 * 86_400)
    return cache


def test_stats_and_ls(run, filled):
    found = json.loads(run("cache", "stats", "--json").stdout)
    assert found == stats(filled)
    text = run("cache", "stats").stdout
    assert "2 entries of 2 chunks" in text
    listed = json.loads(run("cache", "ls", "--json").stdout)["entries"]
    assert {entry["used_by"][0]["symbol"] for entry in listed} == {"AAAUSDT", "BBBUSDT"}
    assert "AAAUSDT 1h" in run("cache", "ls").stdout


def test_verify_tells_by_its_status(run, filled):
    assert run("cache", "verify").exit_code == 0
    chunk = next(file.name for file in filled.storage.files("features") if file.name.endswith(".parquet"))
    filled.storage.publish(chunk, b"something else")
    result = run("cache", "verify", "--json")
    assert result.exit_code == 1
    assert [each["file"] for each in json.loads(result.stdout)["damaged"]] == [chunk]
    assert f"{chunk}: it cannot be read" in run("cache", "verify", "--repair").stdout
    assert "has no damaged files" in run("cache", "verify").stdout
    assert len(filled.entries()) == 1


def test_prune_by_age_size_and_grace(run, filled):
    dry = json.loads(run("cache", "prune", "--older-than", "1d", "--dry-run", "--json").stdout)
    assert (len(dry["entries"]), dry["dry_run"]) == (1, True)
    assert len(filled.entries()) == 2
    assert "removed 1 entry and 1 chunk" in run("cache", "prune", "--older-than", "1d").stdout
    assert [entry["used_by"][0]["symbol"] for entry in filled.entries()] == ["BBBUSDT"]
    assert "1 more are in use" in run("cache", "prune", "--max-size", "1kB").stdout
    assert "removed 1 entry" in run("cache", "prune", "--max-size", "1kB", "--grace", "0s").stdout
    assert filled.entries() == []


def test_nothing_is_said_to_be_nothing(run, tmp_path):
    place = ("--cache-dir", tmp_path / "none")
    assert run("cache", "ls", *place).stdout.startswith("no entries in ")
    assert run("cache", "verify", *place).stdout.endswith("is empty\n")
    assert json.loads(run("cache", "ls", "--json", *place).stdout) == {"entries": []}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["stats", "ls", "verify", "prune", "clear"])
def test_a_file_is_refused_as_a_cache(run, tmp_path, command):
    (tmp_path / "file").touch()
    done = run("cache", command, "--cache-dir", tmp_path / "file")
    assert done.exit_code == 2
    assert "is a file: give a folder" in done.stderr


@pytest.mark.parametrize("option", [("--max-size", "5 apples"), ("--older-than", "30"), ("--grace", "-1h")])
def test_an_amount_that_is_not_understood_is_one_line(run, filled, option):
    result = run("cache", "prune", *option)
    assert result.exit_code == 2
    assert f"{option[0]} is {option[1]!r}: give a number and one of" in result.stderr


def test_clear(run, filled, market_db):
    assert "cleared 2 entries" in run("cache", "clear", "--db", market_db).stdout
    assert json.loads(run("cache", "clear", "--json").stdout) == {"cleared": 0}


def test_explain(run, filled, market_db):
    rows = json.loads(run("cache", "explain", market_db, "--json").stdout)["partitions"]
    assert [(row["symbol"], row["outcome"]) for row in rows] == [("AAAUSDT", "hit"), ("BBBUSDT", "hit")]
    table = run("cache", "explain", "--db", market_db, "--system", "v4", "--symbols", "AAAUSDT").stdout
    assert "no entry of v4 for it yet" in table
    assert "BBBUSDT" not in table


def test_explain_reads_as_features_do(run, market_db):
    with sqlite3.connect(market_db) as connection:
        connection.execute("CREATE TABLE backup AS SELECT * FROM ohlcv")
    unclear = run("cache", "explain", market_db)
    assert "in table backup" in unclear.output
    options = (market_db, "--table", "backup", "--symbols", "AAAUSDT", "--clean", "gaps=forward:30")
    assert run("features", *options).exit_code == 0
    (row,) = json.loads(run("cache", "explain", *options, "--json").stdout)["partitions"]
    assert row["outcome"] == "hit"
    (row,) = json.loads(run("cache", "explain", *options[:-2], "--json").stdout)["partitions"]
    assert row["outcome"] == "miss"
    assert "removed" in row["causes"][0]


@pytest.mark.parametrize("arguments", [(), ("a.db", "--db", "b.db")])
def test_a_source_is_given_once(run, arguments):
    result = run("cache", "explain", *arguments)
    assert result.exit_code == 2
    assert "give the source of bars once" in result.stderr
