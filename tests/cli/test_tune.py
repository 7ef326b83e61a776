import json

import pytest
import yaml
from small_evolutions import evolve_here, evolve_values
from small_sweeps import make_sweep, sweep_values

# bitcorn folds


@pytest.fixture
def folds_config(market_db, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"db: {market_db}\nsymbol: AAAUSDT\ntimeframe: 1h\nfolds: {{train: 20d, validation: 5d, test: 5d}}\n"
    )
    return path


def test_folds_are_shown_and_drawn(run, folds_config, tmp_path):
    page = tmp_path / "folds.html"
    told = json.loads(run("folds", folds_config, "--plot", page, "--json").stdout)
    assert told["plot"] == str(page)
    assert "Plotly" in page.read_text()
    assert [fold["fold"] for fold in told["folds"]] == list(range(len(told["folds"])))
    assert len(told["folds"]) == 7  # of 1,500 hours on the grid, 62.5 days: 30 for the first fold, and 32.5 / 5
    shown = run("folds", folds_config).stdout
    assert told["folds"][0]["test"]["first"][:16].replace("T", " ") in shown


def test_bad_input_of_folds_is_one_line_and_status_2(run, folds_config, tmp_path):
    for arguments in ((tmp_path / "none.yaml",), (folds_config, "--plot", folds_config / "below" / "a.html")):
        failed = run("folds", *arguments)
        assert failed.exit_code == 2
        assert len(failed.stderr.strip().splitlines()) == 1
        assert failed.stdout == ""


# bitcorn tune


@pytest.fixture
def tune_config(market_db, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_values(market_db, tmp_path / "from_file", folds={"last": 1})))
    return path


def test_a_sweep_is_run_and_gone_on_with(run, ray_cluster, tune_config, tmp_path):
    done = run("tune", tune_config, "--out", tmp_path / "sweep", "--max-trials", 1, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["best"]["name"] == "t0001"
    assert [each["state"] for each in told["trials"]] == ["finished"]
    assert told["run"] == str(tmp_path / "sweep" / "best")
    again = run("tune", tune_config, "--out", tmp_path / "sweep")
    assert again.exit_code == 2
    assert "continue it with --resume" in again.stderr
    resumed = run("tune", tune_config, "--out", tmp_path / "sweep", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "t0002" in resumed.stdout
    assert "bitcorn leaderboard" in resumed.stdout


def test_bad_input_of_tune_is_one_line_and_status_2(run, tune_config, tmp_path):
    tune_config.write_text(tune_config.read_text().replace("training.learning_rate", "training.rate"))
    failed = run("tune", tune_config)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("bitcorn: search.training.rate is not a field that can be searched")
    assert failed.stdout == ""


# bitcorn evolve


@pytest.fixture
def evolve_config(market_db, tmp_path):
    path = tmp_path / "evolve.yaml"
    path.write_text(yaml.safe_dump(evolve_values(market_db, tmp_path / "from_file")))
    return path


def test_an_evolution_is_run_and_resumed(run, evolve_config, tmp_path, monkeypatch):
    evolve_here(monkeypatch)
    out = tmp_path / "evolved"
    done = run("evolve", evolve_config, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["winner"] in [each["name"] for each in told["front"]]
    assert "generation 2 of 2: 4 trained, best validation loss" in done.stderr
    again = run("evolve", evolve_config, "--out", out)
    assert again.exit_code == 2
    assert "continue it with --resume" in again.stderr
    resumed = run("evolve", evolve_config, "--out", out, "--resume", "--generations", 2)
    assert resumed.exit_code == 0, resumed.stderr
    assert "(winner)" in resumed.stdout
    assert "loss increase" in resumed.stdout
    assert "feature system of the winner in" in resumed.stdout


def test_the_system_of_a_file_is_taken_by_other_commands(run, ray_cluster, market_db, tmp_path):
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


def test_bad_input_of_evolve_is_one_line_and_status_2(run, evolve_config):
    evolve_config.write_text(evolve_config.read_text().replace("population: 4", "population: 0"))
    failed = run("evolve", evolve_config)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("bitcorn: evolve: population is 0: it must be at least 2")
    assert failed.stdout == ""


def test_ctrl_c_leaves_what_was_done(run, evolve_config, tmp_path, monkeypatch):
    evolve_here(monkeypatch, stop_after=5)
    stopped = run("evolve", evolve_config, "--out", tmp_path / "cut")
    assert stopped.exit_code != 0
    assert json.loads((tmp_path / "cut" / "evolution.json").read_text())["ended"] == "interrupted"


# bitcorn leaderboard


def test_the_leaderboard_is_shown_and_printed_as_json(run, market_db, tmp_path):
    make_sweep(sweep_values(market_db, tmp_path / "sweep"))
    told = json.loads(run("leaderboard", tmp_path / "sweep", "--json").stdout)
    assert (told["tried"], told["folds"]) == (2, 2)
    assert [answer["name"] for answer in told["answers"]] == ["volatility", "direction"]
    assert told["verdict"].split(".")[0] in run("leaderboard", tmp_path / "sweep").stdout.replace("\n", " ")


def test_bad_input_of_leaderboard_is_one_line_and_status_2(run, tmp_path):
    failed = run("leaderboard", tmp_path)
    assert failed.exit_code == 2
    assert "holds no sweep" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
