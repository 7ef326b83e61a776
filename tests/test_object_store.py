"""Everything on an object store: an S3 server on loopback, whose URI holds a secret that nobody may see or keep."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from killing import process_environment, wait_for
from small_evolutions import evolve_here, evolve_values
from small_sweeps import sweep_values

from bitcorn_ray import Forecaster, evolve, leaderboard, load_market_data, load_run, tune
from bitcorn_ray.cli import main
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.storage.location import Location
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.run import read_metadata
from bitcorn_ray.training.train import train_from_config
from bitcorn_ray.tuning.folder import SweepFolder

SECRET = "hush4711"
MODEL = {"horizons": [1, 4], "seq_len": 16, "hidden_size": 8, "num_layers": 1, "reference_span": 24}
TRAINING = {"epochs": 3, "batch_size": 32, "threads": 1, "deterministic": True}


@pytest.fixture
def place(s3_uri):
    """A function from a name to its URI, with the secret."""
    root = Location(s3_uri.replace("secret", SECRET))
    return lambda name: root.child(name).address


def train_values(db, out, **changes):
    values = {"db": str(db), "symbol": "AAAUSDT", "timeframe": "1h", "out": out, "model": MODEL, "training": TRAINING}
    return {**values, **changes}


def weights(run):
    return load_run(run).model.network.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def contents(place):
    """Everything that lies at a place, by name."""
    storage = Storage(place)
    return {file.name: bytes(storage.read(file.name)) for file in storage.files()}


def require_secret_kept(place):
    for name, content in contents(place).items():
        assert SECRET.encode() not in content, name


def require_hidden(text):
    assert SECRET not in text


def killed(code, values, cache_dir, ready):
    """Run code in a process of its own, and kill it when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(values)],
        env=process_environment(cache_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for(lambda: ready() or process.poll() is not None)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        told = process.communicate()[0].decode()
    assert SECRET not in told


# A worker of Ray outlives its killed driver, and trains on beside the training that is gone on with.
@pytest.mark.parametrize(("workers", "most"), [(0, 3), pytest.param(1, 30, marks=pytest.mark.slow)])
def test_a_killed_training_goes_on_from_its_checkpoints_there(
    market_db, place, cache_dir, tmp_path, workers, most, request
):
    code = (
        "import json, sys, time; from bitcorn_ray.training.config import RunConfig\n"
        "from bitcorn_ray import train_from_config\n"
        "train_from_config(RunConfig.load(None, json.loads(sys.argv[1])), on_epoch=lambda told: time.sleep(1))\n"
    )
    training = {**TRAINING, "epochs": most, "patience": most}
    values = train_values(market_db, place("run"), workers=workers, training=training)
    checkpoints = Storage(place("run/checkpoints"))
    killed(code, values, cache_dir, lambda: any(name.startswith("step-") for name in checkpoints.names()))
    if workers:
        request.getfixturevalue("ray_cluster")
    lines, epochs = [], []
    train_from_config(RunConfig.load(None, values), resume=True, on_epoch=epochs.append, log_fn=lines.append)
    assert any(line.startswith("resuming after") for line in lines)
    assert 1 <= len(epochs) < most
    whole = train_values(market_db, str(tmp_path / "whole"), workers=0, training=training)
    train_from_config(RunConfig.load(None, whole))
    assert same(weights(place("run")), weights(whole["out"]))
    names = set(contents(place("run")))
    assert {"metadata.json", "model.pt", "scaler.pkl", "calibration.npz"} <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert not any(name.startswith("checkpoints/") for name in names)
    assert not any(SECRET in line for line in lines)
    require_secret_kept(place("run"))


def test_runs_are_used_where_they_lie(market_db, place, tmp_path):
    def bitcorn(*arguments, status=0):
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert done.exit_code == status, done.output
        assert SECRET not in done.output
        return done

    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(train_values(market_db, place("models/a"), workers=0)))
    Storage(place("x")).publish("run.yaml", config.read_bytes())
    bitcorn("export", market_db, "--to", place("bars"))
    asked = ("--config", place("x/run.yaml"), "--db", place("bars"), "--cache-dir", place("cache"))
    bitcorn("train", *asked, "--test-frac", 0.2)
    again = bitcorn("train", *asked, status=2)
    assert "holds a finished run" in again.stderr
    one = Forecaster.load(place("models/a")).predict(load_market_data(market_db, "AAAUSDT", "1h").dataframe)
    assert len(one) == 2
    there = ("--cache-dir", place("cache"))
    told = bitcorn("forecast", place("models/a"), place("bars"), *there, "--json")
    assert json.loads(told.stdout)["forecast"][0]["return"] == pytest.approx(float(one["return"][0]), abs=1e-6)
    pages = ("--out", place("out/f.parquet"), "--plot", place("out/fan.html"))
    bitcorn("forecast", place("models/a"), place("bars"), *there, *pages, "--last", 5)
    bitcorn("evaluate", place("models/a"), place("bars"), *there, "--out", place("out/e.json"))
    bitcorn("quality", place("bars"), "--out", place("out/q.html"))
    assert set(contents(place("out"))) == {"f.parquet", "fan.html", "e.json", "q.html"}
    listed = json.loads(bitcorn("runs", "ls", place("models"), "--json").stdout)
    assert [row["name"] for row in listed["runs"]] == ["a"]
    bitcorn("runs", "show", place("models/a"), "--json")
    bitcorn("runs", "show", place("models/a"), "--lineage")
    again = ("--source", place("bars"), *there, "--out", place("again"))
    made = json.loads(bitcorn("reproduce", place("models/a"), *again, "--json").stdout)
    assert (made["equal"], made["weight_difference"]) == (True, 0.0)
    bitcorn("runs", "compare", place("models/a"), place("models/a"))
    watched = bitcorn("watch", place("models/a"), place("bars"), "--once", status=2)
    assert "the journal cannot be at s3://" in watched.stderr
    bitcorn("watch", place("models/a"), place("bars"), "--once", "--out", tmp_path / "j.jsonl")
    for command in ("forecast", "evaluate", "watch"):
        bitcorn(command, place("models/a"), place("bars"), "--symbols", "NONE", status=2)
    named = ("--symbol", "AAAUSDT", "--timeframe", "1h")
    bitcorn("ingest", place("bars/symbol=AAAUSDT/timeframe=1h/bars.parquet"), *named, "--db", tmp_path / "back.db")
    bitcorn("inspect", place("bars"))
    bitcorn("inspect", place("none"), status=2)
    bitcorn("cache", "ls", *there)
    bitcorn("cache", "explain", place("bars"), *there, "--json")
    load_market_data(place("bars"), "AAAUSDT", "1h", log_fn=lambda line: require_hidden(line))
    refused = bitcorn("ingest", place("bars/x.csv"), "--db", place("m.db"), status=2)
    assert "bars go to an object store by `bitcorn export`" in refused.stderr
    for name in ("again", "bars", "cache", "models", "out"):
        require_secret_kept(place(name))
    assert SECRET not in (tmp_path / "j.jsonl").read_text()


@pytest.mark.slow
def test_a_sweep_whose_driver_was_killed_goes_on_there(market_db, place, cache_dir, ray_cluster):
    code = "import json, sys, bitcorn_ray; bitcorn_ray.tune(json.loads(sys.argv[1]))"
    values = sweep_values(market_db, place("sweep"), folds={"last": 3}, training={"epochs": 8})
    records = Storage(place("sweep/records"))
    killed(code, values, cache_dir, lambda: len(records.names()) >= 2)
    before = {file.name: file.written for file in records.files()}
    with pytest.raises(ValueError, match="--resume"):
        tune(values)
    lines = []
    done = tune(values, resume=True, log_fn=lines.append)
    require_hidden(repr(done))
    after = {file.name: file.written for file in records.files()}
    assert before.items() <= after.items()
    assert len(after) == 6  # two trials of three folds, none twice
    assert [(each.name, each.state) for each in done.trials] == [("t0001", "finished"), ("t0002", "finished")]
    assert list(SweepFolder(place("sweep")).journal.read()) == ["t0001", "t0002"]
    assert read_metadata(place("sweep/best"))["sweep"]["trial"] == done.best.name
    names = set(contents(place("sweep")))
    assert {"plan.json", "bars.npz", "sweep.json", "trials.parquet", "forecasts.parquet"} <= names
    assert not any(name.startswith("ray-") for name in names)
    assert leaderboard(place("sweep")).board.compared == 2
    assert not any(SECRET in line for line in lines)
    require_secret_kept(place("sweep"))


def test_an_evolution_leaves_its_winner_there(market_db, place, monkeypatch):
    evolve_here(monkeypatch)
    values = evolve_values(market_db, place("evolved"))
    done = evolve(values)
    again = evolve(values, resume=True)
    assert (done.winner, done.importance) == (again.winner, again.importance)
    assert find_system(place("evolved/system.json")).spec == done.system
    config = RunConfig.load(place("evolved/winner.yaml"), {"db": str(market_db)})
    assert config.features == done.system
    names = set(contents(place("evolved")))
    assert {"evolution.json", "evolution.parquet", "evolution.html", "system.json", "winner.yaml"} <= names
    require_hidden(json.dumps(done.to_json()) + repr(done))
    require_secret_kept(place("evolved"))


def test_a_store_that_does_not_answer_is_told_in_a_line_without_the_secret(market_db, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    nobody = f"s3://key:{SECRET}@bucket/run?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    for arguments in (
        ("train", "--db", market_db, "--symbol", "AAAUSDT", "--timeframe", "1h", "--workers", 0, "--out", nobody),
        ("runs", "show", nobody),
        ("forecast", nobody, market_db),
        ("leaderboard", nobody),
    ):
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert done.exit_code == 2, done.output
        assert len(done.stderr.splitlines()) == 1
        assert "s3://bucket/run" in done.stderr
        assert SECRET not in done.output
    assert os.listdir(tmp_path) == ["market.db"]
