import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_store import busy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.storage import Storage, publish_file


@pytest.fixture(params=["folder", "s3", "fsspec"])
def storage(request, tmp_path):
    if request.param == "folder":
        return Storage(tmp_path / "cache")
    return Storage(request.getfixturevalue("s3_uri") if request.param == "s3" else f"fsspec+memory:/{tmp_path}")


def test_files_are_written_read_listed_and_removed(storage):
    assert list(storage.files()) == []
    storage.publish("a/one", b"1")
    storage.publish("a/b/two", b"22")
    assert bytes(storage.read("a/b/two")) == b"22"
    assert {(file.name, file.size) for file in storage.files()} == {("a/one", 1), ("a/b/two", 2)}
    assert [file.name for file in storage.files("a/b")] == ["a/b/two"]
    assert all(file.written > 1.7e9 for file in storage.files())
    assert set(storage.existing(["a/one", "a/none"])) == {"a/one"}
    storage.delete(["a/one", "a/none"])
    assert [file.name for file in storage.files()] == ["a/b/two"]
    with pytest.raises(OSError, match="one"):
        storage.read("a/one")


def test_a_file_system_in_python_is_asked_by_one_thread(tmp_path):
    storage = Storage(f"fsspec+memory:/{tmp_path}")
    assert set(storage.side_by_side(lambda _: threading.get_ident(), [*range(8)])) == {threading.get_ident()}


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


def test_a_place_without_a_name_is_refused_and_a_file_is_known(tmp_path):
    with pytest.raises(BitcornError, match="name a bucket or folder"):
        Storage("s3://")
    (tmp_path / "file").touch()
    assert Storage(tmp_path / "file").is_file
    assert not Storage(tmp_path).is_file


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
    with pytest.raises(BitcornError, match=r"files at .*file.* cannot be written: .*give another place"):
        Storage(tmp_path / "file" / "cache").publish("x", b"")
    elsewhere = s3_server[0]("x").replace("@bucket/", "@nobucket/")
    with pytest.raises(BitcornError, match=r"the files at s3://nobucket/x cannot be written") as caught:
        Storage(elsewhere).publish("x", b"")
    assert "secret" not in str(caught.value)


def test_a_file_uri_is_the_folder(tmp_path):
    Storage(f"file://{tmp_path}/cache").publish("x", b"1")
    assert (tmp_path / "cache" / "x").read_bytes() == b"1"
    assert Storage(f"file://{tmp_path}/cache").is_local


def test_a_log_keeps_its_lines_in_order(storage):
    assert storage.lines("a/log.jsonl") == []
    for number in range(12):
        storage.add_line("a/log.jsonl", f"line {number}")
    assert storage.lines("a/log.jsonl") == [f"line {number}" for number in range(12)]


def test_a_line_that_was_torn_is_ended_before_the_next(tmp_path):
    storage = Storage(tmp_path)
    storage.add_line("log", "one")
    with (tmp_path / "log").open("a") as file:
        file.write('{"half')
    storage.add_line("log", "two")
    assert storage.lines("log") == ["one", '{"half', "two"]


def test_marks_are_counted_by_size_and_dated(storage):
    for number in range(3):
        storage.add_mark("uses/one")
        assert storage.existing(["uses/one"])["uses/one"].size == number + 1
    storage.publish("uses/two", b"")
    before = storage.existing(["uses/two"])["uses/two"].written
    time.sleep(1.1)  # times of an object store are whole seconds
    storage.add_mark("uses/two")
    after = storage.existing(["uses/two"])["uses/two"]
    assert after.size == 1
    assert after.written > before


def test_no_mark_is_lost_where_many_make_them_in_a_folder(tmp_path):
    def mark(_):
        Storage(tmp_path).add_mark("uses/one")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(mark, range(400)))
    assert (tmp_path / "uses" / "one").stat().st_size == 400


def test_names_are_of_files_and_folders_at_the_root(storage):
    assert storage.names() == []
    storage.publish("b/one", b"1")
    storage.publish("a", b"1")
    assert storage.names() == ["a", "b"]
    assert storage.child("b").names() == ["one"]
    assert storage.has("b/one")
    assert not storage.has("b")
    storage.remove_folder("b")
    storage.remove_folder("b")
    assert [file.name for file in storage.files()] == ["a"]


def test_another_process_finds_the_same_place(storage, monkeypatch, tmp_path):
    storage.child("in").publish("x", b"1")
    sent = pickle.dumps(storage)
    monkeypatch.chdir("/")
    assert bytes(pickle.loads(sent).read("in/x")) == b"1"


def test_only_an_empty_folder_is_removed(tmp_path):
    storage = Storage(tmp_path / "a")
    storage.remove_empty()
    storage.publish("x", b"")
    storage.remove_empty()
    assert storage.names() == ["x"]
    storage.delete(["x"])
    storage.remove_empty()
    assert not (tmp_path / "a").exists()


def test_whether_a_place_can_be_written_is_known_before(storage, tmp_path, s3_server):
    storage.require_writable()
    assert list(storage.files()) == []
    (tmp_path / "file").write_text("")
    nobody = s3_server[0]("x").replace("@bucket/", "@nobucket/")
    for place in (tmp_path / "file" / "run", nobody):
        with pytest.raises(BitcornError, match=r"the run at .* cannot be written: .*; give another") as caught:
            Storage(place, "run", "give another").require_writable()
        assert "secret" not in str(caught.value)


def test_one_file_is_published_whole_over_an_older_one(storage):
    place = storage.child("deep/page.html").address
    for text in ("page: old", "page: new"):
        publish_file(place, "page", text)
        assert bytes(storage.read("deep/page.html")).decode() == text
    if storage.is_local:
        assert [each.name for each in Path(place).parent.iterdir()] == ["page.html"]


def test_a_file_of_another_kind_is_left_as_it_is(storage):
    place = storage.child("market.db").address
    storage.publish("market.db", b"SQLite format 3")
    for content in ("<!doctype html>", b"PAR1"):
        with pytest.raises(BitcornError, match=r"the page cannot be written to .*: a file of another type"):
            publish_file(place, "page", content)
        assert bytes(storage.read("market.db")) == b"SQLite format 3"
    publish_file(place, "database", b"SQLite format 3, newer")
    storage.publish("empty", b"")
    publish_file(storage.child("empty").address, "page", "<!doctype html>")


def test_a_file_that_cannot_be_written_is_told_and_leaves_the_older_one(tmp_path, s3_server):
    (tmp_path / "file").write_text("mine")
    nobody = s3_server[0]("x").replace("@bucket/", "@nobucket/")
    for place in (tmp_path / "file" / "page.html", nobody):
        with pytest.raises(BitcornError, match="the page cannot be written to") as caught:
            publish_file(place, "page", "x")
        assert "secret" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_removed_stays_with_a_warning(tmp_path, s3_server, caplog):
    (tmp_path / "file").write_text("mine")
    Storage(tmp_path).remove_folder("file")
    Storage(s3_server[0]("x").replace("@bucket/", "@nobucket/")).remove_folder("y")
    assert (tmp_path / "file").exists()
    assert "file in " in caplog.text
    assert "secret" not in caplog.text


def test_small_files_are_read_from_a_store_that_is_busy_now_and_then(s3_server, s3_uri):
    storage = Storage(s3_uri)
    storage.publish("small", b"1")
    storage.add_line("log", "line")
    with s3_server[2].having(busy(seconds=0, every=3)) as faults:
        assert bytes(storage.read("small")) == b"1"
        assert storage.lines("log") == ["line"]
    assert faults.answered
