import json

import pytest
import yaml
from click.testing import CliRunner
from small_evolutions import evolve_here, evolve_values

from bitcorn_ray.cli import main


@pytest.fixture
def config(market_db, tmp_path):
    path = tmp_path / "evolve.yaml"
    path.write_text(yaml.safe_dump(evolve_values(market_db, tmp_path / "from_file")))
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_an_evolution_is_run_and_its_system_is_taken_by_other_commands(config, market_db, tmp_path, monkeypatch):
    evolve_here(monkeypatch)
    out = tmp_path / "evolved"
    done = run("evolve", config, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["winner"] in [each["name"] for each in told["front"]]
    assert "generation 2 of 2: 4 trained, best validation loss" in done.stderr
    again = run("evolve", config, "--out", out)
    assert again.exit_code == 2
    assert "--resume goes on" in again.stderr
    resumed = run("evolve", config, "--out", out, "--resume", "--generations", 2)
    assert resumed.exit_code == 0, resumed.stderr
    assert "(winner)" in resumed.stdout
    assert "loss increase" in resumed.stdout
    assert "feature system of the winner in" in resumed.stdout


def test_the_system_of_a_file_is_taken_by_other_commands(ray_cluster, market_db, tmp_path):
    system = tmp_path / "system.json"
    system.write_text(json.dumps({"system": "v2[rsi_14,raw_vol_30]+own_systems:momentum[range]"}))
    computed = run("features", market_db, "--system", system, "--json")
    assert computed.exit_code == 0, computed.stderr
    told = json.loads(computed.stdout)
    assert told["system"] == "v2[rsi_14,raw_vol_30]+own_systems:momentum[range]"
    assert len(told["partitions"]) == 2
    audited = run("audit", market_db, "--system", system, "--symbols", "BBBUSDT", "--json")
    assert audited.exit_code == 0, audited.output
    out = tmp_path / "run"
    options = ("--horizons", "1,4", "--seq-len", 8, "--hidden-size", 4, "--epochs", 1, "--workers", 0, "--out", out)
    trained = run(
        "train", "--db", market_db, "--symbol", "BBBUSDT", "--timeframe", "1h", "--features", system, *options
    )
    assert trained.exit_code == 0, trained.stderr
    system.unlink()  # a run needs the file no more
    forecast = run("forecast", out, market_db, "--symbols", "BBBUSDT", "--json")
    assert forecast.exit_code == 0, forecast.output


def test_bad_input_is_one_line_and_status_2(config):
    config.write_text(config.read_text().replace("population: 4", "population: 0"))
    failed = run("evolve", config)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("bitcorn: evolve: population is 0: it must be at least 2")
    assert failed.stdout == ""


def test_ctrl_c_leaves_what_was_done(config, tmp_path, monkeypatch):
    evolve_here(monkeypatch, stop_after=5)
    stopped = run("evolve", config, "--out", tmp_path / "cut")
    assert stopped.exit_code != 0
    assert json.loads((tmp_path / "cut" / "evolution.json").read_text())["ended"] == "interrupted"
