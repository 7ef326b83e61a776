import json
import sqlite3

import pytest
from click.testing import CliRunner
from comparing import age_entry

from bitcorn_ray.cache.pruning import stats
from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.cli import main
from bitcorn_ray.data_loader import load_market_data, prepare_features


@pytest.fixture
def run():
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


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
    assert "is whole" in run("cache", "verify").stdout
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
    assert run("cache", "ls", *place).stdout.startswith("no entries are in ")
    assert run("cache", "verify", *place).stdout.startswith("nothing is in ")
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
