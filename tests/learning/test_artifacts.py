import errno
import json
import os
from pathlib import Path

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.artifacts import digest, read_checked, replace_files, require_writable, strict_json

OLD = {"weights": b"old weights", "about.json": b"{}"}
NEW = {"weights": b"new weights", "about.json": b"{1}"}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_set_of_files_replaces_an_older_one(tmp_path):
    replace_files(tmp_path / "deep" / "run", OLD)
    replace_files(tmp_path / "deep" / "run", NEW)
    assert contents(tmp_path / "deep" / "run") == NEW


@pytest.mark.parametrize("at", range(2))
def test_a_disk_that_is_full_leaves_the_older_set_whole(tmp_path, monkeypatch, at):
    replace_files(tmp_path, OLD)
    calls, fsync = [], os.fsync

    def full(number):
        calls.append(number)
        if len(calls) > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BitcornError, match=r"cannot be written to .*: No space left on device; make room"):
        replace_files(tmp_path, NEW)
    assert contents(tmp_path) == OLD


@pytest.mark.parametrize("renamed", [0, 1])
def test_a_writer_that_dies_between_two_names_leaves_no_set_that_looks_whole(tmp_path, monkeypatch, renamed):
    replace_files(tmp_path, OLD)
    done, replace = [], os.replace

    def killed(*names):
        if len(done) == renamed:
            raise KeyboardInterrupt
        done.append(names)
        replace(*names)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_files(tmp_path, NEW)
    assert "about.json" not in contents(tmp_path)


def test_a_file_is_told_from_another_one(tmp_path):
    (tmp_path / "weights").write_bytes(b"new weights")
    assert read_checked(tmp_path / "weights", {"weights": digest(b"new weights")}) == b"new weights"
    assert read_checked(tmp_path / "weights", {}) == b"new weights"
    with pytest.raises(ValueError, match="weights is not the file"):
        read_checked(tmp_path / "weights", {"weights": digest(b"old weights")})


def test_a_folder_that_cannot_be_made_is_told_before(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="nothing can be written to"):
        require_writable(tmp_path / "file" / "run")
    with pytest.raises(BitcornError, match="cannot be written to"):
        replace_files(Path(tmp_path / "file" / "run"), NEW)
    require_writable(tmp_path / "not" / "yet" / "there")


def test_json_has_no_value_that_readers_choke_on():
    text = strict_json({"a": [float("inf"), 1.5, None, True], 3: "x"})
    assert json.loads(text) == {"a": [None, 1.5, None, True], "3": "x"}
