import json

import pytest

from bitcorn_ray.cli import demo


@pytest.fixture(autouse=True)
def short_demo(monkeypatch):
    """A month of bars instead of two years."""
    monkeypatch.setattr(demo, "_BARS", 700)


def test_the_demo_runs_every_step_and_may_be_repeated(run, ray_cluster, tmp_path):
    first = run("demo", "--out", tmp_path / "demo")
    assert first.exit_code == 0, first.output
    assert f"SIMULATED market in {tmp_path / 'demo'}: not real prices" in first.stdout
    assert "simulated" in (tmp_path / "demo" / "SIMULATED.txt").read_text()
    second = json.loads(run("demo", "--out", tmp_path / "demo", "--json").stdout)
    assert [(p["symbol"], p["hit"]) for p in second["partitions"]] == [
        ("SIMONE", True),
        ("SIMTHREE", True),
        ("SIMTWO", True),
    ]
    assert [row["horizon"] for row in second["forecast"]] == [1, 4, 12]


def test_a_folder_below_a_file_is_refused(run, ray_cluster, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = run("demo", "--out", tmp_path / "file" / "demo")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_a_folder_of_the_user_is_refused_and_not_changed(run, ray_cluster, tmp_path):
    (tmp_path / "market.db").write_text("precious")
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path} has files that no demo wrote" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["market.db"]
    assert (tmp_path / "market.db").read_text() == "precious"
