import json

import pytest
import yaml
from click.testing import CliRunner
from small_sweeps import sweep_values

from bitcorn_ray.cli import main


@pytest.fixture
def config(market_db, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_values(market_db, tmp_path / "from_file", folds={"last": 1})))
    return path


def run(*arguments):
    return CliRunner().invoke(main, ["tune", *(str(argument) for argument in arguments)])


def test_a_sweep_is_run_and_gone_on_with(ray_cluster, config, tmp_path):
    done = run(config, "--out", tmp_path / "sweep", "--max-trials", 1, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["best"]["name"] == "t0001"
    assert [each["state"] for each in told["trials"]] == ["finished"]
    assert told["run"] == str(tmp_path / "sweep" / "best")
    again = run(config, "--out", tmp_path / "sweep")
    assert again.exit_code == 2
    assert "--resume goes on" in again.stderr
    resumed = run(config, "--out", tmp_path / "sweep", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "t0002" in resumed.stdout
    assert "bitcorn leaderboard" in resumed.stdout


def test_bad_input_is_one_line_and_status_2(config, tmp_path):
    config.write_text(config.read_text().replace("training.learning_rate", "training.rate"))
    failed = run(config)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("bitcorn: search.training.rate is not a field that can be searched")
    assert failed.stdout == ""
