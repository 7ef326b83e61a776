import os
import pickle
import sys

import pytest
from faulty_store import busy, slow
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from bitcorn_ray.cache.store import open_cache
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.source import open_source
from bitcorn_ray.sources.sqlite.database import opened_database
from bitcorn_ray.storage.location import (
    Location,
    filesystem_of,
    local_file,
    recorded_uri,
    require_persistent,
    shown_uri,
    under_ray,
)
from bitcorn_ray.training.config import RunConfig


def test_a_local_path_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a?b.csv").write_text("1")
    place = Location.of("a?b.csv")
    assert place.address == place.shown == str(tmp_path / "a?b.csv")
    assert (place.name, place.is_remote, place.info().size) == ("a?b.csv", False, 1)
    assert Location.of(tmp_path).info() is None


def test_files_of_a_folder_are_listed_with_their_size(tmp_path):
    (tmp_path / "b").mkdir()
    for name, text in (("b/c.csv", "12"), ("a.csv", "1")):
        (tmp_path / name).write_text(text)
    root = Location.of(tmp_path)
    assert [(file.relative_to(root), file.size) for file in root.files()] == [("a.csv", 1), ("b/c.csv", 2)]
    assert [file.name for file in root.files(lambda folder: folder != "b")] == ["a.csv"]
    assert Location.of(tmp_path / "none").files() == []


@pytest.fixture(params=["s3", "fsspec"])
def store(request, tmp_path):
    return Location.of(request.getfixturevalue("s3_uri") if request.param == "s3" else f"fsspec+memory:/{tmp_path}")


def test_a_place_in_a_store_is_read_under_any_name(store):
    root = store
    file = root.child("symbol=BTC%2FUSDT/a b.csv")
    filesystem, path = filesystem_of(file.address, "x")
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"text")
    [listed] = root.files()
    assert listed == file
    assert (listed.name, listed.relative_to(root), listed.size) == ("a b.csv", "symbol=BTC%2FUSDT/a b.csv", 4)
    with pickle.loads(pickle.dumps(listed)).opened() as stream:
        assert stream.read() == b"text"
    assert root.info() is None


def test_no_secret_is_shown(s3_uri):
    place = Location.of(s3_uri).child("none.csv")
    assert "secret" in place.address
    assert "secret" not in f"{place} {place.name}"
    with pytest.raises(BitcornError, match="no file at s3:") as error, place.opened():
        pass
    assert "secret" not in str(error.value)
    assert shown_uri("s3://key:se/cret@bucket/bars?a=b") == "s3://bucket/bars"
    with pytest.raises(BitcornError, match="failing: ") as error:
        filesystem_of("nothing://key:secret@host/x", "failing")
    assert "secret" not in str(error.value)


def test_a_place_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(BitcornError, match=r"no file at .*, but a folder"), Location.of(tmp_path).opened():
        pass
    with pytest.raises(BitcornError, match="no file at"), Location.of(tmp_path / "none").opened():
        pass
    assert isinstance(filesystem_of(str(tmp_path), "x")[0], fs.LocalFileSystem)


def test_files_of_fsspec_are_renamed_by_what_each_of_its_file_systems_takes(tmp_path, monkeypatch):
    # As that of fsspec's SFTP, which takes no options.
    monkeypatch.setattr(LocalFileSystem, "mv", lambda self, old, new: os.rename(old, new))
    (tmp_path / "old").write_text("1")
    filesystem, path = filesystem_of(f"fsspec+file://{tmp_path}", "x")
    filesystem.move(f"{path}/old", f"{path}/new")
    assert (tmp_path / "new").read_text() == "1"


def test_a_package_that_a_file_system_needs_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "paramiko", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.sftp", raising=False)
    with pytest.raises(BitcornError, match=r"^failing: .*paramiko") as error:
        filesystem_of("fsspec+sftp://key:secret@host/x", "failing")
    assert "secret" not in str(error.value)


def test_what_is_kept_of_a_uri_leads_to_its_place_and_has_no_secret():
    secrets = "access_key=AK&secret_key=SK&session_token=ST&anything=else"
    kept = recorded_uri(f"s3://key:se/cret@bucket/x?{secrets}&region=r&endpoint_override=h:1&scheme=http")
    assert kept == "s3://bucket/x?region=r&endpoint_override=h:1&scheme=http"
    assert recorded_uri("/a?b@c.db") == shown_uri("/a?b@c.db") == "/a?b@c.db"
    assert recorded_uri("http://me:pw@host:5000") == "http://host:5000"


def test_what_must_be_a_file_here_is_no_uri(tmp_path):
    assert local_file(str(tmp_path), "database", "x") == tmp_path
    with pytest.raises(BitcornError, match=r"the database cannot be at s3://b/m\.db: .*; use a file") as caught:
        local_file("s3://key:hush@b/m.db", "database", "use a file")
    assert "hush" not in str(caught.value)


CONTENT = b"1" * 1_000


def write_and_read(uri):
    filesystem, path = filesystem_of(uri, "failing")
    with filesystem.open_output_stream(path) as stream:
        stream.write(CONTENT)
    with filesystem.open_input_file(path) as stream:
        return stream.read()


def test_a_store_that_is_busy_for_seconds_is_asked_again(s3_server, s3_uri):
    with s3_server[2].having(busy(seconds=2, every=2)) as faults:
        assert write_and_read(s3_uri) == CONTENT
    assert faults.answered > 1


@pytest.mark.slow
def test_a_store_that_answers_after_seconds_is_waited_for(s3_server, s3_uri):
    with s3_server[2].having(slow(seconds=4.5, every=1)):  # pyarrow itself would give an attempt up after three
        assert write_and_read(s3_uri) == CONTENT


def test_how_often_a_store_is_asked_is_said_by_the_variable_that_amazon_s_own_tools_know(
    s3_server, s3_uri, monkeypatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_server[2].having(busy(seconds=60, every=1)) as faults, pytest.raises(OSError, match="SLOW_DOWN"):
        write_and_read(s3_uri)
    assert faults.answered == 1


def test_parts_of_a_small_file_are_read_from_a_store_that_is_busy_now_and_then(s3_server, s3_uri):
    filesystem, path = filesystem_of(s3_uri, "failing")
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"0123456789")
    with s3_server[2].having(busy(seconds=0, every=3)) as faults, Location.of(s3_uri).opened() as file:
        assert [file.read_at(2, at) for at in range(0, 10, 2)] == [b"01", b"23", b"45", b"67", b"89"]
    assert faults.answered


# Local paths in a process of a cluster


@pytest.fixture(params=["RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RAYLET_PID"])
def node(request, monkeypatch):
    """A process that Ray started: the command of a job, and a worker."""
    monkeypatch.setenv(request.param, "1")


def missing(path):
    """Messages about a missing file of everything that may look for it."""

    def opened():
        with Location.of(path).opened():
            pass

    def connected():
        with opened_database(path):
            pass

    for look in (lambda: open_source(path), opened, connected):
        with pytest.raises(BitcornError) as caught:
            look()
        yield str(caught.value)


def test_the_remedy_for_a_missing_file_is_its_path(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_RAYLET_PID", raising=False)
    assert not under_ray()
    assert all(message.endswith("market.db: check the path") for message in missing(tmp_path / "market.db"))


def test_under_ray_the_remedy_for_a_missing_file_is_shared_storage(tmp_path, node):
    path = tmp_path / "market.db"
    for message in missing(path):
        assert " of the cluster, which has shared storage" in message
        assert f"bitcorn export {path} --to s3://bucket/bars" in message


def test_a_missing_configuration_may_have_been_left_out(tmp_path, node):
    with pytest.raises(BitcornError, match=r"no configuration at .*, or left out by .gitignore"):
        RunConfig.load(tmp_path / "run.yaml", {})


def test_results_in_the_folder_of_a_job_are_refused(tmp_path, node, monkeypatch):
    copy = tmp_path / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(BitcornError, match=r"the folder models/x would be in the job's copy .*share"):
        RunConfig(db="s3://bucket/bars", symbol="A", timeframe="1h", out="models/x")
    monkeypatch.delenv("BITCORN_CACHE_DIR")
    with pytest.raises(BitcornError, match=r"the cache cache/data_pipeline would be .*BITCORN_CACHE_DIR"):
        open_cache()
    for location in ("/shared/x", tmp_path / "x", "s3://bucket/x"):
        require_persistent(location, "the folder", "")
    RunConfig(db="s3://bucket/bars", symbol="A", timeframe="1h", out="/shared/models/x")


def test_without_ray_any_folder_is_persistent(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_RAYLET_PID", raising=False)
    require_persistent(tmp_path / "working_dir_files" / "x", "the folder", "")
