import json

import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import demo_run as demo
from bitcorn_ray.cli import main
from bitcorn_ray.errors import BitcornError


@pytest.fixture
def short_demo(monkeypatch):
    """The same way with a month of bars instead of two years."""
    monkeypatch.setattr(demo, "_BARS", 700)


def test_the_demo_goes_all_the_way_twice(short_demo, ray_cluster, tmp_path):
    for _ in range(2):
        result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "demo"), "--json"])
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        assert [p["symbol"] for p in told["partitions"]] == ["SIMONE", "SIMTHREE", "SIMTWO"]
        assert [row["horizon"] for row in told["forecast"]] == [1, 4, 12]
    assert "simulated" in (tmp_path / "demo" / "SIMULATED.txt").read_text()
    assert all(p["hit"] for p in told["partitions"])


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BitcornError, match="cannot be written"):
        demo.run_demo(tmp_path / "file" / "demo", print)


def test_a_folder_of_the_users_is_left_alone(short_demo, tmp_path):
    (tmp_path / "market.db").write_text("precious")
    with pytest.raises(BitcornError, match="holds something else"):
        demo.run_demo(tmp_path, print)
    assert [p.name for p in tmp_path.iterdir()] == ["market.db"]
    assert (tmp_path / "market.db").read_text() == "precious"
