import json

import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke


SMALL = (
    "--symbol",
    "AAAUSDT",
    "--timeframe",
    "1h",
    "--hidden-size",
    8,
    "--seq-len",
    16,
    "--epochs",
    2,
    "--horizons",
    "1,4",
)


def test_train_then_forecast(run, market_db, ray_cluster, tmp_path):
    out = tmp_path / "models" / "run_001"
    trained = run("train", "--db", market_db, *SMALL, "--out", out, "--json")
    assert trained.exit_code == 0, trained.output
    summary = json.loads(trained.stdout)
    assert len(summary["history"]) == 2
    assert sorted(p.name for p in out.iterdir()) == ["metadata.json", "model.pt", "scaler.pkl"]

    forecast = json.loads(run("forecast", out, "--db", market_db, "--json").stdout)["forecast"]
    assert [row["horizon"] for row in forecast] == [1, 4]
    for row in forecast:
        assert row["lo95"] < row["lo80"] < row["price"] < row["hi80"] < row["hi95"]
    table = run("forecast", out, "--db", market_db)
    assert table.stdout.startswith("AAAUSDT 1h, last bar 2023-")
    other = run("forecast", out, "--db", market_db, "--symbol", "bbb/usdt")
    assert other.stdout.startswith("BBBUSDT 1h")

    again = run("train", "--db", market_db, *SMALL, "--out", out)
    assert again.exit_code == 2
    assert "holds a run already" in again.stderr
    assert json.loads((out / "metadata.json").read_text())["val_loss"] == summary["val_loss"]


def test_a_file_configures_and_options_go_before_it(run, market_db, ray_cluster, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"db: {market_db}\nsymbol: AAAUSDT\ntimeframe: 1h\nout: {tmp_path / 'run'}\n"
        "model: {seq_len: 16, hidden_size: 8, horizons: [2]}\ntraining: {epochs: 9, batch_size: 256}\n"
    )
    result = run("train", "--config", config, "--epochs", 1, "--json")
    assert result.exit_code == 0, result.output
    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert (metadata["horizons"], metadata["seq_len"], len(metadata["history"])) == ([2], 16, 1)
    assert metadata["training"]["batch_size"] == 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--symbol", "NOPE"], "has no symbol 'NOPE': it has AAAUSDT, BBBUSDT"),
        (["--timeframe", "4h"], "has no 4h bars of AAAUSDT: it has 1h"),
        (["--timeframe", "1M"], "is a month"),
        (["--features", "v9"], "unknown feature system 'v9': there is v2"),
        (["--horizons", "1,x"], "--horizons is '1,x'"),
        (["--horizons", "0"], "horizons are [0]"),
        (["--seq-len", "5000"], "too few: seq_len 5000 and horizon 4 need at least 5004"),
        (["--epochs", "0"], "epochs is 0"),
        (["--workers", "99"], "99 workers"),
        (["--gpus", "1"], "Ray has 2 CPUs and 0 GPUs"),
        (["--config", "none.yaml"], "no configuration at none.yaml"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, market_db, ray_cluster, tmp_path, changes, message):
    result = run("train", "--db", market_db, *SMALL, "--out", tmp_path / "run", *changes)
    errors = [line for line in result.stderr.splitlines() if line.startswith("bitcorn: ")]
    assert result.exit_code == 2, result.output
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run_cannot_forecast(run, market_db, tmp_path):
    result = run("forecast", tmp_path, "--db", market_db)
    assert result.exit_code == 2
    assert "holds no run" in result.stderr
