import pyarrow as pa
import pytest
from pyarrow import fs

from bitcorn_ray.storage.publish import is_object_store, publish

LOCAL = fs.LocalFileSystem()


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


def test_file_systems_are_told_from_object_stores(s3_uri):
    assert not is_object_store(LOCAL)
    assert is_object_store(fs.FileSystem.from_uri(s3_uri)[0])
