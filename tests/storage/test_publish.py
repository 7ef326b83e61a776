import errno
import os
import re

import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from bitcorn_ray.storage.location import filesystem_of
from bitcorn_ray.storage.publish import is_object_store, publish, publish_together

LOCAL = fs.LocalFileSystem()
OLD = {"weights": b"old weights", "about.json": b"{}"}
NEW = {"weights": b"new weights", "about.json": b"{1}"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path):
    publish(LOCAL, str(tmp_path / "new" / "value"), b"content")
    assert (tmp_path / "new" / "value").read_bytes() == b"content"
    assert names(tmp_path / "new") == ["value"]


def test_an_arrow_buffer_is_content_too(tmp_path):
    publish(LOCAL, str(tmp_path / "value"), pa.py_buffer(b"content"))
    assert (tmp_path / "value").read_bytes() == b"content"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    publish(LOCAL, str(tmp_path / "value"), b"old")
    with pytest.raises(TypeError):
        publish(LOCAL, str(tmp_path / "value"), object())
    assert (tmp_path / "value").read_bytes() == b"old"
    assert names(tmp_path) == ["value"]


def test_a_name_that_is_a_folder_leaves_nothing(tmp_path):
    (tmp_path / "value").mkdir()
    with pytest.raises(OSError, match="value"):
        publish(LOCAL, str(tmp_path / "value"), b"new")
    assert names(tmp_path) == ["value"]


@pytest.mark.parametrize("size", [10, 4_000_000])
def test_on_an_object_store_it_is_a_single_put(s3_server, s3_uri, size):
    from bitcorn_ray.storage.storage import Storage

    requests = s3_server[1]
    before = len(requests)
    Storage(s3_uri).publish("features/x", b"x" * size)
    made = [line.split('"')[1] for line in requests[before:]]
    assert [line.split()[0] for line in made] == ["PUT"]
    assert made[0].split()[1].endswith("/features/x")


class Named:
    def __init__(self, protocol):
        self.protocol = protocol


def of_fsspec(filesystem):
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem))


@pytest.mark.parametrize(
    ("protocol", "expected"), [(("s3", "s3a"), True), ("abfs", True), ("sftp", False), (("file", "local"), False)]
)
def test_file_systems_are_told_from_object_stores(s3_uri, protocol, expected):
    assert not is_object_store(LOCAL)
    assert is_object_store(fs.FileSystem.from_uri(s3_uri)[0])
    assert is_object_store(of_fsspec(Named(protocol))) is expected


class Full(LocalFileSystem):
    """A file system of fsspec, such as a server's, whose disk takes half of what is written."""

    def open(self, path, mode="rb", **options):
        file = super().open(path, mode, **options)
        whole = file.write

        def half(content):
            whole(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        file.write = half
        return file


def test_on_a_file_system_of_fsspec_a_full_disk_leaves_the_older_file(tmp_path):
    (tmp_path / "value").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left on device"):
        publish(of_fsspec(Full()), str(tmp_path / "value"), b"newer")
    assert contents(tmp_path) == {"value": b"old"}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_set_of_files_replaces_an_older_one(tmp_path):
    publish_together(LOCAL, str(tmp_path / "deep" / "run"), OLD)
    publish_together(LOCAL, str(tmp_path / "deep" / "run"), NEW)
    assert contents(tmp_path / "deep" / "run") == NEW


@pytest.mark.parametrize("at", range(2))
def test_a_disk_that_is_full_leaves_the_older_set_whole(tmp_path, monkeypatch, at):
    publish_together(LOCAL, str(tmp_path), OLD)
    calls, fsync = [], os.fsync

    def full(number):
        calls.append(number)
        if len(calls) > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        publish_together(LOCAL, str(tmp_path), NEW)
    assert contents(tmp_path) == OLD


class Dying:
    """A file system whose user dies after so many renames."""

    type_name = "local"

    def __init__(self, renames):
        self.left = renames

    def move(self, *names):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        LOCAL.move(*names)

    def __getattr__(self, name):
        return getattr(LOCAL, name)


@pytest.mark.parametrize("renamed", [0, 1])
def test_a_writer_that_dies_between_two_names_leaves_no_set_that_looks_whole(tmp_path, renamed):
    publish_together(LOCAL, str(tmp_path), OLD)
    with pytest.raises(KeyboardInterrupt):
        publish_together(Dying(renamed), str(tmp_path), NEW)
    assert "about.json" not in contents(tmp_path)


def test_on_an_object_store_the_file_that_makes_a_set_valid_goes_first_and_comes_last(s3_server, s3_uri):
    filesystem, path = filesystem_of(s3_uri, "failing")
    publish_together(filesystem, path, OLD)
    before = len(s3_server[1])
    publish_together(filesystem, path, NEW)
    plain = (re.sub(r"\x1b\[\d+m", "", line) for line in s3_server[1][before:])
    made = [line.split('"')[1].split()[:2] for line in plain]
    asked = [(method, at.rpartition("/")[2]) for method, at in made if at.endswith(("weights", "about.json"))]
    written = [each for each in asked if each[0] in ("PUT", "DELETE")]
    assert written == [("DELETE", "about.json"), ("PUT", "weights"), ("PUT", "about.json")]
    assert {name: filesystem.open_input_file(f"{path}/{name}").read() for name in NEW} == NEW
