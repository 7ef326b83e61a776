import json
import sqlite3
import subprocess
import sys
import time

import joblib
import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from small_runs import MODEL, make_run

from bitcorn_ray import train_from_config
from bitcorn_ray.features.systems.v2 import FEATURES
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.models.neural import trainer as training
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.run import load_run, save_run

# bitcorn train


SMALL = ("--timeframe", "1h", "--hidden-size", 8, "--seq-len", 16, "--epochs", 2, "--horizons", "1,4")
ONE = ("--symbol", "AAAUSDT", *SMALL)


def test_training_on_ray_gives_a_run_that_is_not_written_over(run, market_db, ray_cluster, tmp_path):
    out = tmp_path / "models" / "run_001"
    trained = run("train", "--db", market_db, *ONE, "--out", out, "--json")
    assert trained.exit_code == 0, trained.output
    summary = json.loads(trained.stdout)
    assert len(summary["history"]) == 2
    names = {path.name for path in out.iterdir()}
    assert {"metadata.json", "model.pt", "scaler.pkl", "tensorboard"} <= names
    assert "checkpoints" not in names
    assert "epoch 2/2: training loss" in trained.stderr
    again = run("train", "--db", market_db, *ONE, "--out", out, "--resume")
    assert again.exit_code == 2
    assert "holds a finished run" in again.stderr
    assert json.loads((out / "metadata.json").read_text())["val_loss"] == summary["val_loss"]


def test_several_symbols_train_one_model_without_ray(run, market_db, tmp_path):
    result = run(
        *("train", "--db", market_db, "--symbols", "aaa/usdt,BBBUSDT", *SMALL, "--workers", 0),
        *("--test-frac", 0.2, "--out", tmp_path / "run"),
    )
    assert result.exit_code == 0, result.output
    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert metadata["training"]["test_frac"] == 0.2
    assert [each["symbol"] for each in metadata["partitions"]] == ["AAAUSDT", "BBBUSDT"]


def test_logs_go_to_standard_error_with_the_run_and_leave_the_output_alone(run, market_db, tmp_path):
    place = tmp_path / "run"
    told = run(
        *("--log-format", "json", "train", "--db", market_db, *ONE, "--epochs", 1, "--workers", 0),
        *("--out", place, "--json"),
    )
    assert json.loads(told.stdout)["history"]
    records = [json.loads(line) for line in told.stderr.splitlines() if line.startswith("{")]
    assert [each["message"] for each in records] == ["run begun", "epoch done", "run done"]
    assert {each["run"] for each in records} == {str(place)}
    assert records[1]["val_loss"] == json.loads(told.stdout)["val_loss"]


def test_a_training_that_was_cut_short_is_resumed_on_demand_only(run, market_db, tmp_path, monkeypatch):
    arguments = ("train", "--db", market_db, *ONE, "--workers", 0, "--deterministic")
    whole = run(*arguments, "--out", tmp_path / "whole", "--json")
    out = tmp_path / "run"
    epoch, calls = training._Loop.epoch, []

    def interrupted(loop, state):
        calls.append(state.epoch)
        if calls == [0, 1]:
            raise KeyboardInterrupt
        return epoch(loop, state)

    monkeypatch.setattr(training._Loop, "epoch", interrupted)
    assert run(*arguments, "--out", out).exit_code == 130
    refused = run(*arguments, "--out", out)
    assert refused.exit_code == 2
    assert "--resume continues it, --overwrite starts anew" in refused.stderr
    other = run(*arguments, "--out", out, "--resume", "--seq-len", 8)
    assert other.exit_code == 2
    assert "other data or another configuration" in other.stderr
    resumed = run(*arguments, "--out", out, "--resume", "--json")
    assert resumed.exit_code == 0, resumed.output
    assert "resuming after" in resumed.stderr
    assert calls == [0, 1, 1]
    losses = [[(e["train_loss"], e["val_loss"]) for e in json.loads(r.stdout)["history"]] for r in (whole, resumed)]
    assert losses[0] == losses[1]
    assert not (out / "checkpoints").exists()


def test_a_file_configures_and_options_go_before_it(run, market_db, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"db: {market_db}\nsymbols: [AAAUSDT, BBBUSDT]\ntimeframe: 1h\nout: {tmp_path / 'run'}\nworkers: 0\n"
        "model: {seq_len: 16, hidden_size: 8, horizons: [2]}\ntraining: {epochs: 9, batch_size: 256}\n"
    )
    result = run("train", "--config", config, "--epochs", 1, "--symbol", "BBBUSDT", "--json")
    assert result.exit_code == 0, result.output
    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert (metadata["horizons"], metadata["seq_len"], len(metadata["history"])) == ([2], 16, 1)
    assert metadata["training"]["batch_size"] == 256
    assert metadata["symbol"] == "BBBUSDT"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--symbol", "NOPE"], "has no symbol 'NOPE': it has AAAUSDT, BBBUSDT"),
        (["--symbols", "AAAUSDT,BBBUSDT"], "give symbol, or symbols for several"),
        (["--timeframe", "30m"], "has no 30m bars of AAAUSDT: it has 1h"),
        (["--timeframe", "1M"], "is a month"),
        (["--features", "v9"], "unknown feature system 'v9': choose v2"),
        (["--horizons", "1,x"], "--horizons is '1,x'"),
        (["--horizons", "0"], "horizons are [0]"),
        (["--seq-len", "5000"], "too few: seq_len 5000 and horizon 4 need at least 5004"),
        (["--epochs", "0"], "epochs is 0"),
        (["--test-frac", "1.5"], "test_frac is 1.5"),
        (["--db", "none.db"], "none.db"),
        (["--workers", "99"], "99 workers"),
        (["--workers", "9:99"], "9 workers"),
        (["--workers", "many"], "--workers is 'many'"),
        (["--workers", "1:2:3"], "--workers is '1:2:3'"),
        (["--workers", "2:1"], "give the least, at least 1, and then the most"),
        (["--gpus", "1"], "Ray has 2 CPUs and 0 GPUs"),
        (["--config", "none.yaml"], "no configuration at none.yaml"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, market_db, ray_cluster, tmp_path, changes, message):
    result = run("train", "--db", market_db, *ONE, "--out", tmp_path / "run", *changes)
    errors = [line for line in result.stderr.splitlines() if line.startswith("bitcorn: ")]
    assert result.exit_code == 2, result.output
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "run").exists()


def test_a_driver_that_is_killed_loses_one_checkpoint_interval_at_most(market_db, tmp_path, run):
    config = tmp_path / "run.yaml"
    config.write_text("training: {threads: 1, deterministic: true, epochs: 5}\nmodel: {hidden_size: 32, seq_len: 16}")
    place = ("--db", market_db, "--symbol", "AAAUSDT", "--timeframe", "1h", "--workers", 0, "--out")
    arguments = ["train", "--config", str(config), *map(str, place)]
    out = tmp_path / "run"
    driver = subprocess.Popen([sys.executable, "-m", "bitcorn_ray", *arguments, str(out)], stderr=subprocess.DEVNULL)
    try:
        while not list((out / "checkpoints").glob("step-*.pt")):
            assert driver.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
    finally:
        driver.kill()
        driver.wait()
    assert not (out / "metadata.json").exists()
    resumed, whole = run(*arguments, out, "--resume", "--json"), run(*arguments, tmp_path / "whole", "--json")
    assert resumed.exit_code == 0, resumed.output
    assert "epoch 1/5" not in resumed.stderr
    one, other = (torch.load(folder / "model.pt", weights_only=True) for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert json.loads(whole.stdout)["best_epoch"] == json.loads(resumed.stdout)["best_epoch"]


def test_bars_are_read_and_cleaned_as_a_user_says_and_the_run_remembers(run, market_db, tmp_path):
    with sqlite3.connect(market_db) as connection:
        columns = "symbol, timeframe, ts, open AS a, open * 2 AS o, high, low, close, volume"
        connection.execute(f"CREATE TABLE backup AS SELECT {columns} FROM ohlcv")
    connection.close()
    config = tmp_path / "run.yaml"
    config.write_text(
        f"db: {market_db}\nsymbol: AAAUSDT\ntimeframe: 1h\nworkers: 0\ntable: backup\nmapping: {{open: a}}\n"
        "clean: {fill: linear, duplicates: first}\nmodel: {seq_len: 16, hidden_size: 8, horizons: [2]}\n"
        "training: {epochs: 1}\n"
    )
    trained = run("train", "--config", config, "--out", tmp_path / "one", "--json")
    assert trained.exit_code == 0, trained.output
    cleaning = json.loads(trained.stdout)["cleaning"]
    assert (cleaning["policy"]["fill"], cleaning["policy"]["duplicates"]) == ("linear", "first")
    assert cleaning["partitions"]["AAAUSDT 1h"]["bars"] == 1_500
    metadata = json.loads((tmp_path / "one" / "metadata.json").read_text())
    assert metadata["cleaning"] == cleaning
    assert metadata["data"]["left_out"]["end_in_interpolated_gap"] > 0 == metadata["data"]["left_out"]["gap"]
    unclear = run("forecast", tmp_path / "one", market_db)
    assert unclear.exit_code == 2
    assert "--table" in unclear.stderr
    source_options = ("--table", "backup", "--map", "open=a")
    done = run("forecast", tmp_path / "one", market_db, *source_options, "--last", 2_000, "--json")
    assert done.exit_code == 0, done.output
    filled = cleaning["partitions"]["AAAUSDT 1h"]["bars_filled"]
    assert json.loads(done.stdout)["left_out"] == {"AAAUSDT 1h": {"too few bars before": 64, "filled": filled}}
    watched = run("watch", tmp_path / "one", market_db, *source_options, "--once", "--json")
    assert watched.exit_code == 0, watched.output
    # An option goes before the file, field by field.
    other = run("train", "--config", config, "--out", tmp_path / "two", "--clean", "gaps=forward:30")
    assert other.exit_code == 0, other.output
    assert f"AAAUSDT 1h: {1_500 - filled:,} rows became 1,500 bars ({filled} filled in 2 gaps)" in other.stdout
    policy = json.loads((tmp_path / "two" / "metadata.json").read_text())["cleaning"]["policy"]
    assert (policy["duplicates"], policy["fill"], policy["max_gap_size"]) == ("first", "forward", 30)
    options = ("--db", market_db, *ONE, "--workers", 0, "--table", "backup", "--map", "open=a")
    assert run("train", *options, "--out", tmp_path / "three").exit_code == 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("clean: {fill: spline}", "fill is 'spline' in the cleaning policy"),
        ("clean: {gaps: forward}", "unknown field clean.gaps"),
        ("mapping: {open: nope}", "nope"),
        ("table: nope", "has no table 'nope'"),
    ],
)
def test_a_file_that_says_how_to_read_is_checked(run, market_db, tmp_path, section, message):
    config = tmp_path / "run.yaml"
    config.write_text(f"{section}\nworkers: 0\n")
    result = run("train", "--config", config, "--db", market_db, *ONE, "--out", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


# bitcorn runs


@pytest.fixture
def models(tmp_path):
    from dataclasses import replace

    bars = {"AAA": simulate_bars(500, seed=1, gaps=0)}
    make_run(tmp_path / "models" / "one", bars)
    make_run(tmp_path / "models" / "deep" / "two", bars, replace(MODEL, hidden_size=4))
    return tmp_path / "models"


def test_runs_are_listed_with_those_that_are_damaged(run, models):
    (models / "bad").mkdir()
    (models / "bad" / "metadata.json").write_text("{")
    listed = run("runs", "ls", models)
    assert listed.exit_code == 0, listed.output
    for part in ("one", "deep/two", "AAA 1h", "lstm 1 x 8", "lstm 1 x 4", "cannot be read"):
        assert part in listed.stdout
    assert "is damaged" in listed.stderr
    rows = json.loads(run("runs", "ls", models, "--json").stdout)["runs"]
    assert {row["run"].rpartition("/")[2]: "error" in row for row in rows} == {"one": False, "two": False, "bad": True}
    (models / "empty").mkdir()
    assert "no runs in" in run("runs", "ls", models / "empty").stdout
    assert run("runs", "ls", models / "nowhere").exit_code == 2


def test_one_is_shown_and_two_are_compared(run, models):
    shown = run("runs", "show", models / "one")
    for part in ("AAA, 1h", "14 of v2, version 1", "rolling conformal", "validation windows"):
        assert part in shown.stdout
    metadata = json.loads(run("runs", "show", models / "one", "--json").stdout)
    assert metadata["features"]["name"] == "v2"
    compared = json.loads(run("runs", "compare", models / "one", models / "deep" / "two", "--json").stdout)
    assert compared["differs"] == {"model.hidden_size": [8, 4]}
    assert compared["comparable"]
    assert "model.hidden_size" in run("runs", "compare", models / "one", models / "deep" / "two").stdout
    assert "give two runs or more" in run("runs", "compare", models / "one").stderr


@pytest.fixture
def older(tmp_path):
    """A model of the older system."""
    folder, lstm = tmp_path / "older", torch.nn.LSTM(len(FEATURES), 6, 1)
    folder.mkdir()
    state = {f"lstm.{name}": value for name, value in lstm.state_dict().items()}
    for kind in ("ret", "vol"):
        for name, value in (
            torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)).state_dict().items()
        ):
            state[f"heads_{kind}.2.{name}"] = value
    torch.save(state, folder / "model.pt")
    joblib.dump(StandardScaler().fit(np.random.default_rng(0).normal(size=(9, len(FEATURES)))), folder / "scaler.pkl")
    meta = {"feature_cols": list(FEATURES), "seq_len": 8, "horizons": [2], "hidden": 6, "num_layers": 1}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_an_older_model_is_imported_and_forecasts(run, older, market_db, tmp_path):
    out = tmp_path / "models" / "old"
    refused = run("runs", "import", older, "--timeframe", "1h", "--out", out)
    assert refused.exit_code == 2
    assert "--trust-pickle" in refused.stderr
    assert not out.exists()
    done = run("runs", "import", older, "--timeframe", "1h", "--out", out, "--trust-pickle")
    assert done.exit_code == 0, done.output
    assert "bands start on the bars forecast from" in done.stdout
    assert run("runs", "import", older, "--timeframe", "1h", "--out", out, "--trust-pickle").exit_code == 2
    forecast = run("forecast", out, market_db, "--json")
    assert forecast.exit_code == 0, forecast.output
    rows = json.loads(forecast.stdout)["forecast"]
    assert {(row["symbol"], row["horizon"], row["sample"]) for row in rows} == {
        ("AAAUSDT", 2, "unknown"),
        ("BBBUSDT", 2, "unknown"),
    }
    assert rows[0]["hi95"] > rows[0]["hi80"] > rows[0]["price"]  # calibrated on the bars themselves
    assert "does not record the code" in forecast.stderr


def test_a_system_without_its_features_is_refused(run, older, tmp_path):
    done = run(
        "runs", "import", older, "--timeframe", "1h", "--out", tmp_path / "x", "--trust-pickle", "--system", "v4"
    )
    assert done.exit_code == 2
    assert "which v4 does not have: name its system with --system" in done.stderr
    assert not (tmp_path / "x").exists()


# bitcorn reproduce


@pytest.fixture
def trained(market_db, tmp_path):
    values = {
        "db": str(market_db),
        "symbol": "AAAUSDT",
        "timeframe": "1h",
        "out": str(tmp_path / "run"),
        "workers": 0,
        "model": {"horizons": [1, 4], "seq_len": 16, "hidden_size": 4, "num_layers": 1},
        "training": {"epochs": 1, "threads": 1, "deterministic": True},
    }
    train_from_config(RunConfig.load(None, values))
    return tmp_path / "run"


def test_lineage_is_shown_and_the_run_made_again(run, trained):
    shown = run("runs", "show", trained, "--lineage")
    assert shown.exit_code == 0, shown.output
    for part in ("AAAUSDT 1h", "seed", "deterministic", "digest of the bars", "hidden_size 4"):
        assert part in shown.stdout
    told = json.loads(run("runs", "show", trained, "--lineage", "--json").stdout)
    assert told["config"]["model"]["hidden_size"] == 4
    done = run("reproduce", trained)
    assert done.exit_code == 0, done.output
    assert "equal, where equal to the bit is promised" in done.stdout


def test_a_difference_is_status_1_and_bad_input_status_2(run, trained, tmp_path):
    other = load_run(trained)
    other.metadata["history"][0]["val_loss"] += 1e-3
    save_run(other, trained)
    done = run("reproduce", trained, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["equal"] is False
    assert "DIFFERENT" in run("reproduce", trained).stdout
    for arguments in ((tmp_path / "none",), (trained, "--source", tmp_path / "none.db"), (trained, "--out", trained)):
        bad = run("reproduce", *arguments)
        assert (bad.exit_code, len(bad.stderr.splitlines())) == (2, 1), bad.output
