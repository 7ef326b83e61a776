import json

import pytest
from click.testing import CliRunner

from bitcorn_ray import train_from_config
from bitcorn_ray.cli import main
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.run import load_run, save_run


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke


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
    for part in ("AAAUSDT 1h", "seed", "deterministic", "made with", "hidden_size 4"):
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
