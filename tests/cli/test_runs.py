import json

import joblib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.preprocessing import StandardScaler
from small_runs import MODEL, make_run

from bitcorn_ray.cli import main
from bitcorn_ray.features.systems.v2 import FEATURES
from bitcorn_ray.market.simulate import simulate_bars


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke


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
