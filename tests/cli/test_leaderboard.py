import json

from click.testing import CliRunner
from small_sweeps import make_sweep, sweep_values

from bitcorn_ray.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["leaderboard", *(str(argument) for argument in arguments)])


def test_the_leaderboard_is_shown_and_printed_as_json(market_db, tmp_path):
    make_sweep(sweep_values(market_db, tmp_path / "sweep"))
    told = json.loads(run(tmp_path / "sweep", "--json").stdout)
    assert (told["tried"], told["folds"]) == (2, 2)
    assert [answer["name"] for answer in told["answers"]] == ["volatility", "direction"]
    assert told["verdict"].split(".")[0] in run(tmp_path / "sweep").stdout.replace("\n", " ")


def test_bad_input_is_one_line_and_status_2(tmp_path):
    failed = run(tmp_path)
    assert failed.exit_code == 2
    assert "holds no sweep" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
