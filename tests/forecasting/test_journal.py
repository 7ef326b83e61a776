import errno
import json
import os
import subprocess
import sys

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.forecasting.journal import Journal


def entry(number):
    return {"kind": "skipped", "cutoff": number}


def test_what_is_added_is_read_by_the_next_one(tmp_path):
    journal = Journal(tmp_path / "deep" / "watch.jsonl")
    journal.add([entry(1), entry(2)])
    journal.add([])
    journal.close()
    again = Journal(tmp_path / "deep" / "watch.jsonl")
    again.add([entry(3)])
    assert [each["cutoff"] for each in again.read()] == [1, 2, 3]
    again.close()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_short_is_cut_off(tmp_path, cut):
    path = tmp_path / "watch.jsonl"
    journal = Journal(path)
    journal.add([entry(1), entry(2)])
    journal.close()
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    again.add([entry(3)])
    assert [each["cutoff"] for each in again.read()] == [1, 3]
    again.close()


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    journal, write = Journal(tmp_path / "watch.jsonl"), os.write
    journal.add([entry(1)])

    def full(file, content):
        write(file, content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BitcornError, match="No space left on device"):
        journal.add([entry(2)])
    monkeypatch.undo()
    journal.add([entry(3)])
    assert [each["cutoff"] for each in journal.read()] == [1, 3]
    journal.close()


def test_two_processes_do_not_write_one_journal(tmp_path):
    journal = Journal(tmp_path / "watch.jsonl")
    code = f"from bitcorn_ray.forecasting.journal import Journal; Journal({str(tmp_path / 'watch.jsonl')!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is being written by another watch" in other.stderr
    journal.close()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(json.dumps(entry(1)) + "\nmilk\n")
    journal = Journal(path)
    with pytest.raises(BitcornError, match=r"line 2 of .*notes.txt is not an entry"):
        list(journal.read())
    journal.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(BitcornError, match="cannot be written"):
        Journal(tmp_path / "file" / "watch.jsonl")
