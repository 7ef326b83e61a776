import os
from types import SimpleNamespace

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.on_ray import jobs
from bitcorn_ray.on_ray.jobs import Job, cluster_version, files_to_send, submit_job


@pytest.fixture
def folder(tmp_path):
    """A folder as a user has it: a configuration, modules, and ignored files."""
    made = tmp_path / "project"
    for name, content in {
        "sweep.yaml": "db: s3://bucket/bars",
        "own/features.py": "x = 1",
        ".gitignore": "*.db\n",
        ".rayignore": "downloads/\n",
        "market.db": "x" * 100,
        "downloads/bars.csv": "x" * 100,
        ".git/objects": "x" * 100,
        ".venv/lib.py": "x" * 100,
        "own/__pycache__/features.pyc": "x" * 100,
        "own/.gitignore": "secret.txt\n",
        "own/secret.txt": "x",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(content)
    return made


def names(sizes):
    return sorted(map(str, sizes))


def test_ignored_files_are_not_sent(folder):
    assert names(files_to_send(folder)) == [
        ".gitignore",
        ".rayignore",
        "own/.gitignore",
        "own/features.py",
        "sweep.yaml",
    ]


def test_the_files_that_are_counted_are_those_that_ray_packs(folder, tmp_path):
    import zipfile

    from ray._private import ray_constants
    from ray._private.runtime_env.packaging import create_package

    package = tmp_path / "package.zip"
    excludes = ray_constants.get_runtime_env_default_excludes()
    create_package(str(folder), package, include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(package) as opened:
        packed = [name for name in opened.namelist() if not name.endswith("/")]
    assert sorted(packed) == names(files_to_send(folder))


def test_too_many_bytes_are_refused_with_the_largest_files_and_a_remedy(folder):
    for name, size in {"bars.parquet": 40 << 20, "own/big.npy": 20 << 20, "small.csv": 10}.items():
        with open(folder / name, "wb") as file:
            file.truncate(size)
    with pytest.raises(
        BitcornError, match=r"would send 63 MB .*the largest bars.parquet 42 MB, own/big.npy 21 MB"
    ) as caught:
        files_to_send(folder)
    assert "bitcorn export" in str(caught.value)
    assert ".rayignore" in str(caught.value)
    (folder / ".rayignore").write_text("*.parquet\n")
    assert "bars.parquet" not in names(files_to_send(folder))


@pytest.fixture
def client(monkeypatch):
    """In place of Ray's client: keeps what was submitted."""
    made = SimpleNamespace(submitted=[], submit_job=lambda **job: made.submitted.append(job))
    monkeypatch.setattr(jobs, "_client", lambda address: made)
    return made


def test_a_job_is_the_command_with_the_folder_and_a_cache_that_the_cluster_can_reach(client, folder, monkeypatch):
    monkeypatch.setenv("BITCORN_CACHE_DIR", "/home/me/cache")
    job = submit_job("http://head:8265/", ["bitcorn", "tune", "a sweep.yaml"], folder)
    monkeypatch.setenv("BITCORN_CACHE_DIR", "s3://bucket/cache")
    submit_job("http://head:8265", ["bitcorn", "doctor"], folder)
    logging = submit_job("http://head:8265", ["bitcorn", "--log-format=json", "tune", "sweep.yaml"], folder)
    first, second, _ = client.submitted
    assert first["entrypoint"] == "bitcorn tune 'a sweep.yaml'"
    assert first["runtime_env"] == {"working_dir": str(folder), "env_vars": {"PYTHONUNBUFFERED": "1"}}
    assert first["submission_id"] == job.name
    assert job.name.startswith("bitcorn-tune-")
    assert logging.name.startswith("bitcorn-tune-")
    assert job.address == "http://head:8265"
    assert second["runtime_env"]["env_vars"]["BITCORN_CACHE_DIR"] == "s3://bucket/cache"
    assert second["submission_id"] != first["submission_id"]


@pytest.mark.parametrize("where", ["word", "environment"])
def test_a_secret_is_not_sent(client, folder, monkeypatch, where):
    uri = "s3://key:se/cret@bucket/cache?region=x"
    words = ["bitcorn", "features", "--cache-dir", uri] if where == "word" else ["bitcorn", "doctor"]
    monkeypatch.setenv("BITCORN_CACHE_DIR", uri)
    with pytest.raises(BitcornError, match=r"^s3://bucket/cache was given with a secret") as caught:
        submit_job("http://head:8265", words, folder)
    assert "se/cret" not in str(caught.value)
    assert client.submitted == []


@pytest.mark.parametrize("address", [None, "head:6379"])
def test_an_address_that_is_no_dashboard_is_refused(address, folder, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(BitcornError, match=r"http://head:8265"):
        submit_job(address, ["bitcorn", "doctor"], folder)


def test_a_dashboard_that_is_not_there_is_a_clear_error_and_the_environment_has_no_say(folder, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:2")
    with pytest.raises(BitcornError, match=r"http://127.0.0.1:1 does not take jobs .*check the address"):
        cluster_version("http://127.0.0.1:1")
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:2"
    with pytest.raises(BitcornError, match=r"127.0.0.1:2"):
        submit_job(None, ["bitcorn", "doctor"], folder)


class Cluster:
    """A client whose log breaks off after so many pieces, and whose job ends when it was asked so often."""

    def __init__(self, pieces, breaks, exit_code, asked=1):
        self.pieces, self.breaks, self.exit_code, self.asked = pieces, list(breaks), exit_code, asked

    async def tail_job_logs(self, name):
        stop = self.breaks.pop(0) if self.breaks else None
        for piece in self.pieces[:stop]:
            yield piece
        if stop is not None:
            raise RuntimeError("connection closed")

    def get_job_info(self, name):
        self.asked -= 1
        over = self.asked <= 0
        return SimpleNamespace(status=SimpleNamespace(is_terminal=lambda: over), driver_exit_code=self.exit_code)


@pytest.mark.parametrize(("code", "passed_on"), [(0, 0), (2, 2), (None, 1)])
def test_the_log_is_printed_once_when_connections_break_and_the_exit_code_is_returned(monkeypatch, code, passed_on):
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    texts = []
    job = Job(name="x", address="http://head:8265", client=Cluster(["one\n", "two\n", "three\n"], [1, 0, 2], code))
    assert job.follow(texts.append) == passed_on
    assert "".join(texts) == "one\ntwo\nthree\n"


def test_connections_of_a_long_job_may_break_any_number_of_times(monkeypatch):
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    texts = []
    client = Cluster(["one\n", "two\n"], [1] * 50, 0, asked=50)
    assert Job(name="x", address="http://head:8265", client=client).follow(texts.append) == 0
    assert "".join(texts) == "one\ntwo\n"


def test_a_job_whose_log_is_lost_still_has_its_exit_code(monkeypatch):
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    assert Job(name="x", address="http://head:8265", client=Cluster([], [0] * 99, 3)).follow(print) == 3


def test_a_lost_cluster_is_an_error(monkeypatch):
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    client = Cluster(["one\n"], [0] * 99, 0)

    def gone(name):
        raise OSError("connection refused")

    client.get_job_info = gone
    with pytest.raises(BitcornError, match=r"http://head:8265 cannot be reached any more: connection refused"):
        Job(name="x", address="http://head:8265", client=client).follow(print)
