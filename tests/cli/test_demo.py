from click.testing import CliRunner

from bitcorn_ray.cli import demo_run as demo
from bitcorn_ray.cli import main


def test_the_tables_say_that_nothing_is_real(monkeypatch, ray_cluster, tmp_path):
    monkeypatch.setattr(demo, "_BARS", 700)
    shown = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "demo")])
    assert shown.exit_code == 0, shown.output
    assert f"SIMULATED market in {tmp_path / 'demo'}: not real prices" in shown.stdout


def test_a_folder_of_the_users_is_one_line_and_status_2(ray_cluster, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds something else" in result.stderr
