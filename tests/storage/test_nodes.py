import pytest

from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.source import open_source
from bitcorn_ray.sources.sqlite.database import opened_database
from bitcorn_ray.storage.location import Location
from bitcorn_ray.storage.nodes import on_a_node, require_lasting
from bitcorn_ray.training.config import RunConfig


@pytest.fixture(params=["RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RAYLET_PID"])
def node(request, monkeypatch):
    """As in a job's command, and as in a worker."""
    monkeypatch.setenv(request.param, "1")


def missing(path):
    """What is said of a missing file by each that may look for it."""

    def opened():
        with Location.of(path).opened():
            pass

    def connected():
        with opened_database(path):
            pass

    for look in (lambda: open_source(path), opened, connected):
        with pytest.raises(BitcornError) as told:
            look()
        yield str(told.value)


def test_a_missing_file_is_a_matter_of_its_path_at_home(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_RAYLET_PID", raising=False)
    assert not on_a_node()
    assert all(told.endswith("market.db: check the path") for told in missing(tmp_path / "market.db"))


def test_on_a_node_the_error_says_so_and_names_what_to_do(tmp_path, node):
    path = tmp_path / "market.db"
    for told in missing(path):
        assert " of the cluster, which sees shared storage" in told
        assert f"bitcorn export {path} --to s3://bucket/bars" in told


def test_a_missing_configuration_may_have_been_left_out(tmp_path, node):
    with pytest.raises(BitcornError, match=r"no configuration at .*, or left out by .gitignore"):
        RunConfig.load(tmp_path / "run.yaml", {})


def test_results_do_not_go_with_a_job_s_folder(tmp_path, node, monkeypatch):
    copy = tmp_path / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(BitcornError, match=r"the folder models/x would lie in the job's copy .*share"):
        RunConfig(db="s3://bucket/bars", symbol="A", timeframe="1h", out="models/x")
    monkeypatch.delenv("BITCORN_CACHE_DIR")
    with pytest.raises(BitcornError, match=r"the cache cache/data_pipeline would lie .*BITCORN_CACHE_DIR"):
        open_cache()
    for lasting in ("/shared/x", tmp_path / "x", "s3://bucket/x"):
        require_lasting(lasting, "the folder", "")
    RunConfig(db="s3://bucket/bars", symbol="A", timeframe="1h", out="/shared/models/x")


def test_at_home_any_folder_lasts(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_RAYLET_PID", raising=False)
    require_lasting(tmp_path / "working_dir_files" / "x", "the folder", "")
