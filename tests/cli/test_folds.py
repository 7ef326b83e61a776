import json

import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main


@pytest.fixture
def config(market_db, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"db: {market_db}\nsymbol: AAAUSDT\ntimeframe: 1h\nfolds: {{train: 20d, validation: 5d, test: 5d}}\n"
    )
    return path


def run(*arguments):
    return CliRunner().invoke(main, ["folds", *(str(argument) for argument in arguments)])


def test_folds_are_shown_and_drawn(config, tmp_path):
    page = tmp_path / "folds.html"
    told = json.loads(run(config, "--plot", page, "--json").stdout)
    assert told["plot"] == str(page)
    assert "Plotly" in page.read_text()
    assert [fold["fold"] for fold in told["folds"]] == list(range(len(told["folds"])))
    assert len(told["folds"]) == 7  # of 1,500 hours on the grid, 62.5 days: 30 for the first fold, and 32.5 / 5
    shown = run(config).stdout
    assert told["folds"][0]["test"]["first"][:16].replace("T", " ") in shown


def test_bad_input_is_one_line_and_status_2(config, tmp_path):
    for arguments in ((tmp_path / "none.yaml",), (config, "--plot", config / "below" / "a.html")):
        failed = run(*arguments)
        assert failed.exit_code == 2
        assert len(failed.stderr.strip().splitlines()) == 1
        assert failed.stdout == ""
