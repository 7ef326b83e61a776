import gzip
import json
import pickle
import re
import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def bar_file(tmp_path, random_bars):
    columns = random_bars(200).columns()
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), tmp_path / "AAAUSDT_1h.parquet")
    return tmp_path / "AAAUSDT_1h.parquet"


def test_ingest_says_what_became_of_the_rows(bar_file, tmp_path):
    first = json.loads(run("ingest", bar_file, "--db", tmp_path / "m.db", "--json").output)
    counts = {"rows": 200, "inserted": 200, "updated": 0, "unchanged": 0, "rejected": {}}
    named = {"source": str(bar_file), "symbol": "AAAUSDT", "timeframe": "1h"}
    assert first["partitions"] == [named | counts]
    again = run("ingest", bar_file, "--db", tmp_path / "m.db")
    assert again.exit_code == 0
    assert "AAAUSDT 1h" in again.stdout


def test_columns_and_conflicts_are_options(tmp_path):
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
def test_a_bad_file_is_one_line_and_status_2_and_the_database_is_untouched(
    bar_file, tmp_path, name, content, message, exists
):
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
def test_a_target_that_is_no_database_is_left_alone(bar_file, tmp_path, content):
    (tmp_path / "m.db").write_bytes(content)
    result = run("ingest", bar_file, "--db", tmp_path / "m.db")
    assert result.exit_code == 2
    assert "m.db cannot be written: file is not a database" in result.stderr
    assert (tmp_path / "m.db").read_bytes() == content
