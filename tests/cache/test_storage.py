import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitcorn_ray.cache.storage import Storage
from bitcorn_ray.errors import BitcornError


@pytest.fixture(params=["folder", "s3"])
def storage(request, tmp_path):
    return Storage(tmp_path / "cache" if request.param == "folder" else request.getfixturevalue("s3_uri"))


def test_files_are_written_read_listed_and_removed(storage):
    assert list(storage.list()) == []
    storage.publish("a/one", b"1")
    storage.publish("a/b/two", b"22")
    assert bytes(storage.read("a/b/two")) == b"22"
    assert {(file.name, file.size) for file in storage.list()} == {("a/one", 1), ("a/b/two", 2)}
    assert [file.name for file in storage.list("a/b")] == ["a/b/two"]
    assert all(file.written > 1.7e9 for file in storage.list())
    assert set(storage.existing(["a/one", "a/none"])) == {"a/one"}
    storage.delete(["a/one", "a/none"])
    assert [file.name for file in storage.list()] == ["a/b/two"]
    with pytest.raises(OSError, match="one"):
        storage.read("a/one")


def test_records_come_back_and_are_readable_by_people(storage):
    storage.publish_json("x.json", {"b": [1, None, "ä"], "a": {"c": 0.1}})
    assert storage.read_json("x.json") == {"b": [1, None, "ä"], "a": {"c": 0.1}}
    assert json.loads(bytes(storage.read("x.json")))["b"] == [1, None, "ä"]
    assert storage.read_json("none.json") is None
    assert storage.read_jsons(["none.json", "x.json"])[1]["b"][0] == 1


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_that_is_flipped_or_cut_is_none(tmp_path, place, bit, cut):
    storage = Storage(tmp_path)
    value = {"key": "abc", "rows": 451, "list": [{"from": "2020-01-01T00:00:00Z", "share": 0.25}], "none": None}
    storage.publish_json("x.json", value)
    content = bytearray((tmp_path / "x.json").read_bytes())
    place %= len(content)
    if cut:
        content = content[:place]
    else:
        content[place] ^= 1 << bit
    (tmp_path / "x.json").write_bytes(content)
    # A flipped blank may still be JSON that says the same.
    assert storage.read_json("x.json") in (None, value)


def test_a_file_and_a_place_without_a_name_are_no_cache(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BitcornError, match="file is a file: give a folder"):
        Storage(tmp_path / "file")
    with pytest.raises(BitcornError, match="name a bucket or folder"):
        Storage("s3://")


def test_what_is_not_json_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Storage(tmp_path).publish_json("value", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_shown_without_its_secrets(s3_uri):
    shown = Storage(s3_uri).shown
    assert shown.startswith("s3://bucket/")
    assert "secret" not in shown
    assert "?" not in shown


def test_a_uri_that_is_not_understood_is_refused(tmp_path):
    with pytest.raises(BitcornError, match=r"nowhere://x cannot be opened"):
        Storage("nowhere://x")


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path, s3_server):
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match=r"cache folder .*file.* cannot be written: .*give another one"):
        Storage(tmp_path / "file" / "cache").publish("x", b"")
    elsewhere = s3_server[0]("x").replace("@bucket/", "@nobucket/")
    with pytest.raises(BitcornError, match=r"the cache s3://nobucket/x cannot be written") as caught:
        Storage(elsewhere).publish("x", b"")
    assert "secret" not in str(caught.value)


def test_a_file_uri_is_the_folder(tmp_path):
    Storage(f"file://{tmp_path}/cache").publish("x", b"1")
    assert (tmp_path / "cache" / "x").read_bytes() == b"1"
    assert Storage(f"file://{tmp_path}/cache").is_local
