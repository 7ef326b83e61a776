import json

import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.on_ray import jobs

# bitcorn doctor


def test_it_ends_with_status_1_where_anything_fails(run, ray_cluster, tmp_path):
    sound = run("doctor", "--cache-dir", tmp_path / "cache", "--json")
    assert sound.exit_code == 0, sound.output
    assert {check["state"] for check in json.loads(sound.stdout)["checks"]} <= {"ok", "warn"}
    (tmp_path / "file").touch()
    broken = run("doctor", "--cache-dir", tmp_path / "file" / "cache")
    assert broken.exit_code == 1
    assert "cannot be written" in broken.stdout
    assert "→" in broken.stdout


@pytest.fixture
def cluster(monkeypatch):
    """Keeps what was submitted; `outcome` is what following the job comes to."""

    class Kept:
        calls, outcome = [], 0

        def follow(self, on_text):
            on_text("said by the job\n")
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        name, address = "bitcorn-tune-1", "http://head:8265"

    kept = Kept()
    kept.calls = []
    monkeypatch.setattr(jobs, "submit_job", lambda *call: (kept.calls.append(call), kept)[1])
    return kept


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_same_command_line_is_submitted_and_its_exit_code_passed_on(run, cluster, code):
    cluster.outcome = code
    done = run("--address", "http://head:8265", "--submit", "tune", "sweep.yaml", "--max-trials", "3", "--json")
    assert cluster.calls == [("http://head:8265", ["bitcorn", "tune", "sweep.yaml", "--max-trials", "3", "--json"])]
    assert done.exit_code == code
    assert done.stdout == "said by the job\n"
    assert "submitted as bitcorn-tune-1 to http://head:8265" in done.stderr


def test_commands_of_groups_are_submitted_too(run, cluster):
    assert run("--submit", "cache", "stats", "--json").exit_code == 0
    assert cluster.calls == [(None, ["bitcorn", "cache", "stats", "--json"])]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tune", "sweep.yaml", "--max-trial", "3"], "No such option '--max-trial'"),
        (["tune"], "Missing argument 'CONFIG'"),
        (["tuna"], "No such command 'tuna'"),
        (["tune", "sweep.yaml", "--address", "head:6379"], "give --address before the command"),
    ],
)
def test_what_cannot_be_understood_is_not_submitted(run, cluster, arguments, told):
    done = run("--address", "http://head:8265", "--submit", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert cluster.calls == []


def test_help_is_given_here(run, cluster):
    assert "walk-forward" in run("--submit", "tune", "--help").stdout
    assert cluster.calls == []


def test_ctrl_c_says_how_to_follow_the_job_and_how_to_end_it(run, cluster):
    cluster.outcome = KeyboardInterrupt()
    done = run("--submit", "tune", "sweep.yaml")
    assert done.exit_code == 130
    assert "the job continues" in done.stderr
    assert "ray job logs --follow bitcorn-tune-1 --address http://head:8265" in done.stderr
    assert "ray job stop bitcorn-tune-1 --address http://head:8265" in done.stderr


def test_a_lost_cluster_and_a_refused_job_are_one_line(run, cluster, monkeypatch):
    cluster.outcome = BitcornError("http://head:8265 is no longer reached")
    done = run("--submit", "tune", "sweep.yaml")
    assert done.exit_code == 2
    assert "bitcorn: http://head:8265 is no longer reached; the job may still run: ray job status" in done.stderr

    def refuse(*call):
        raise BitcornError("too much")

    monkeypatch.setattr(jobs, "submit_job", refuse)
    done = run("--submit", "tune", "sweep.yaml")
    assert (done.exit_code, done.stderr) == (2, "bitcorn: too much\n")


def test_an_address_before_the_command_is_the_command_s(run, monkeypatch):
    asked = []
    monkeypatch.setattr("bitcorn_ray.on_ray.doctor.doctor", lambda address, cache: asked.append(address) or [])
    run("--address", "head:6379", "doctor")
    run("--address", "head:6379", "doctor", "--address", "other:6379")
    run("doctor")
    assert asked == ["head:6379", "other:6379", None]


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["--log-format", "json", "--log-level", "DEBUG"], {}),
        (["--log-level", "debug"], {"BITCORN_LOG": "json"}),
    ],
)
def test_how_logs_are_wanted_is_part_of_what_is_submitted(cluster, options, environment):
    CliRunner().invoke(main, ["--submit", *options, "tune", "sweep.yaml"], env=environment)
    assert cluster.calls == [(None, ["bitcorn", "--log-format=json", "--log-level=debug", "tune", "sweep.yaml"])]
