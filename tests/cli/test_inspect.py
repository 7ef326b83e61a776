import json
import pickle
import sqlite3

import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(main, ["inspect", *(str(argument) for argument in arguments)])

    return invoke


def test_a_database_is_told_as_a_table_and_as_json(run, market_db):
    shown = run(market_db)
    assert shown.exit_code == 0
    assert "AAAUSDT 1h" in shown.stdout
    found = json.loads(run(market_db, "--json").stdout)
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
    twice = run(market_db, *mapped)
    assert twice.exit_code == 1
    assert "also in" in twice.stdout
    assert run(market_db, *mapped, "--table", "ohlcv").exit_code == 0
    assert run(market_db, *mapped, "--table", "backup").exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.db", pickle.dumps({"a": 1}), "cannot be read as a SQLite database"),
        ("a.db", b"", "the file is empty (0 bytes)"),
        ("a.csv", b"when,price\n1,2\n", "no column"),
        ("a.csv", b"", "a.csv"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    result = run(path)
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
        (["--map", "open=nothing"], "there is no such column, but symbol, timeframe, ts, open"),
    ],
)
def test_bad_options_are_one_line_and_status_2(run, market_db, options, message):
    result = run(market_db, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
