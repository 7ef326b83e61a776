import json

import pandas as pd
import pytest
from reading import read_bars
from small_runs import make_run

from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.ingest import write_bars


@pytest.fixture
def folder(market_db, tmp_path):
    partitions = {name: read_bars(market_db, name, "1h")[0].take(slice(850)) for name in ("AAAUSDT", "BBBUSDT")}
    return make_run(tmp_path / "run", partitions)


def test_the_last_bars_of_all_that_was_trained_on(run, folder, market_db):
    done = run("forecast", folder, market_db, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert [(row["symbol"], row["horizon"]) for row in result["forecast"]] == [
        ("AAAUSDT", 1), ("AAAUSDT", 4), ("BBBUSDT", 1), ("BBBUSDT", 4),
    ]  # fmt: skip
    for row in result["forecast"]:
        assert row["lo95"] < row["lo80"] < row["lo50"] < row["price"] < row["hi50"] < row["hi80"] < row["hi95"]
        assert row["sample"] == "out of sample"
    assert result["failed"] == {}
    table = run("forecast", folder, market_db)
    assert table.stdout.startswith("AAAUSDT 1h, last bar 2023-")
    assert "BBBUSDT 1h, last bar 2023-02-07T11:00:00Z, close" in table.stdout


def test_the_old_form_still_works(run, folder, market_db):
    done = run("forecast", folder, "--db", market_db, "--symbol", "bbb/usdt")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("BBBUSDT 1h")
    assert "AAAUSDT" not in done.stdout


def test_many_cutoffs_go_to_a_file_and_a_chart(run, folder, market_db, tmp_path):
    out, plot = tmp_path / "f.parquet", tmp_path / "fan.html"
    done = run(
        "forecast",
        folder,
        market_db,
        "--since",
        "2023-01-30",
        "--horizons",
        "1,2",
        "--out",
        out,
        "--plot",
        plot,
        "--json",
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    table = pd.read_parquet(out)
    assert result["rows"] == len(table) == 2 * table.groupby("symbol").cutoff.nunique().sum()
    assert set(table.horizon) == {1, 2}
    assert table.cutoff.min() == pd.Timestamp("2023-01-30", tz="UTC")
    assert "forecast" not in result
    page = plot.read_text()
    assert "AAAUSDT 1h" in page
    assert "50, 80 and 95 % coverage" in page


def test_what_has_no_forecast_is_told_and_ends_with_status_2(run, folder, market_db, random_bars):
    write_bars([("x", Partition("CCC", "1h"), random_bars(20))], market_db)
    done = run("forecast", folder, market_db, "--symbols", "AAAUSDT,CCC", "--last", "1400")
    assert done.exit_code == 2
    assert "bitcorn: CCC 1h has no forecast: 20 bars are too few" in done.stderr
    assert "AAAUSDT 1h: " in done.stderr
    assert "bars have no forecast (bars missing for " in done.stderr
    assert "; the last of 1," in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--horizons", "9"], "cannot be interpolated"),
        (["--last", "2", "--since", "2023"], "give one of them"),
        (["--since", "2099"], "no bar opens at 2099 or later"),
        (["--symbols", "NOPE"], "unknown symbol NOPE: there is AAAUSDT, BBBUSDT"),
    ],
)
def test_bad_input_is_told_in_lines_with_status_2(run, folder, market_db, arguments, message):
    done = run("forecast", folder, market_db, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output


def test_a_source_is_named_once(run, folder, market_db):
    assert "give the source of bars once" in run("forecast", folder).stderr
    assert "give the source of bars once" in run("forecast", folder, market_db, "--db", market_db).stderr


def test_a_folder_without_a_run_cannot_forecast(run, market_db, tmp_path):
    done = run("forecast", tmp_path, market_db)
    assert done.exit_code == 2
    assert "holds no run" in done.stderr


def test_changed_code_is_refused_unless_it_is_allowed(run, folder, market_db):
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["features"]["code"]["modules"]["bitcorn_ray.features.systems.v2"] = "0"
    path.write_text(json.dumps(metadata))
    refused = run("forecast", folder, market_db)
    assert refused.exit_code == 2
    assert "code of bitcorn_ray.features.systems.v2 changed" in refused.stderr
    allowed = run("forecast", folder, market_db, "--allow-changed-code")
    assert allowed.exit_code == 0
    assert "note: code of bitcorn_ray.features.systems.v2 changed" in allowed.stderr


def test_a_watch_keeps_a_journal_in_the_runs_folder(run, folder, market_db):
    once = run("watch", folder, market_db, "--once", "--symbols", "AAAUSDT,BBBUSDT")
    assert once.exit_code == 0, once.output
    assert "AAAUSDT 1h" in once.stderr
    assert "in 95 %" in once.stdout
    lines = (folder / "watch.jsonl").read_text().splitlines()
    assert [json.loads(line)["symbol"] for line in lines] == ["AAAUSDT", "BBBUSDT"]
    again = run("watch", folder, market_db, "--once", "--json")
    assert again.exit_code == 0
    assert again.stdout == ""
    assert (folder / "watch.jsonl").read_text().splitlines() == lines


def test_a_watch_ends_after_so_many_bars_and_prints_its_entries(run, folder, market_db, tmp_path):
    done = run(
        "watch", folder, market_db, "--max-bars", "1", "--json", "--interval", "10ms", "--out", tmp_path / "j.jsonl"
    )
    assert done.exit_code == 0, done.output
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["kind"] for entry in entries] == ["forecast", "forecast"]
    assert (tmp_path / "j.jsonl").is_file()
    assert run("watch", folder, market_db, "--interval", "soon").exit_code == 2


def test_ctrl_c_ends_a_watch_and_leaves_the_journal_whole(folder, market_db):
    import signal
    import subprocess
    import sys
    import time

    command = [sys.executable, "-m", "bitcorn_ray", "watch", folder, market_db, "--interval", "50ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.time() + 60
        while not (folder / "watch.jsonl").is_file() or not (folder / "watch.jsonl").stat().st_size:
            assert process.poll() is None
            assert time.time() < deadline
            time.sleep(0.1)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "is complete, and the same command continues it" in err
    assert "Traceback" not in err
    assert "EWMA" in out
    assert [json.loads(line)["kind"] for line in (folder / "watch.jsonl").open()] == ["forecast", "forecast"]
