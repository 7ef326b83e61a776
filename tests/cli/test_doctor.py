import json

from click.testing import CliRunner

from bitcorn_ray.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", *(str(argument) for argument in arguments)])


def test_it_ends_with_status_1_where_anything_fails(ray_cluster, tmp_path):
    sound = run("--cache-dir", tmp_path / "cache", "--json")
    assert sound.exit_code == 0, sound.output
    assert {check["state"] for check in json.loads(sound.stdout)["checks"]} <= {"ok", "warn"}
    (tmp_path / "file").touch()
    broken = run("--cache-dir", tmp_path / "file" / "cache")
    assert broken.exit_code == 1
    assert "cannot be written" in broken.stdout
    assert "→" in broken.stdout
