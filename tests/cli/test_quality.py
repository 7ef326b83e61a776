import json

import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["quality", *map(str, arguments)])


def test_a_raw_file_is_diagnosed_as_json_and_as_a_page(data_dir, tmp_path):
    done = run(data_dir / "raw" / "CDD_Binance_BTCUSDT_1h.csv.gz", "--json", "--out", tmp_path / "q.html")
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


def test_a_row_without_a_time_costs_points(tmp_path):
    rows = "".join(f"{1_700_000_000_000 + i * 3_600_000 if i != 5 else ''},1,2,0.5,1,9\n" for i in range(20))
    (tmp_path / "BTCUSDT_1h.csv").write_text(f"ts,open,high,low,close,volume\n{rows}")
    done = run(tmp_path / "BTCUSDT_1h.csv")
    assert "1 row without a time" in done.output
    (found,) = json.loads(run(tmp_path / "BTCUSDT_1h.csv", "--json").stdout)["partitions"]
    assert found["set_aside"] == {"have no time": 1}
    assert found["score"] < 95


def test_partitions_of_a_database_are_tables_on_a_terminal(market_db):
    done = run(market_db)
    assert done.exit_code == 0
    assert "AAAUSDT 1h" in done.output
    assert "bars missing in outages" in done.output
    one = run(market_db, "--symbol", "bbb/usdt", "--timeframe", "1h")
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
def test_bad_input_is_one_line(market_db, arguments, message):
    done = run(market_db, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_source_that_is_not_there_is_one_line(tmp_path):
    done = run(tmp_path / "nothing.db")
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("timestamp:open:high:low:close:volume\n1577836800000:1:2:1:2:5\n", "has no column timestamp, open"),
        (f"<html>{'x' * 100_000}</html>\n", "has no column timestamp, open"),
        ("ts,open,high,low,close,volume,note\n1577836800000,1,2,1,2,5,\xe4\n", "no UTF-8: save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_understood_is_one_short_line(tmp_path, content, message):
    path = tmp_path / "BTCUSDT_1h.csv"
    path.write_bytes(content.encode("latin-1"))
    done = run(path)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(done.stderr) < 500 + len(str(path))
