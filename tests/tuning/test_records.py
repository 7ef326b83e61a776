import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bitcorn_ray
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.tuning.folder import Journal
from bitcorn_ray.tuning.records import FoldRecord, Records, record_key, training_code
from bitcorn_ray.tuning.search import Trial


def record(loss=1.0):
    return FoldRecord(
        loss=loss,
        test_loss=float("nan"),
        best_epoch=1,
        epochs=2,
        seconds=0.5,
        times=np.arange(3),
        partitions=np.zeros(3, np.int16),
        returns=np.ones((3, 2), np.float32),
        volatilities=np.ones((3, 2), np.float32),
        validation_times=np.arange(4),
        validation_partitions=np.zeros(4, np.int16),
        validation_scores=np.ones((4, 2), np.float32),
    )


def test_a_record_comes_back_as_it_was(tmp_path):
    records = Records(tmp_path / "records")
    assert records.load("a") is None
    records.save("a", record(0.1))
    found = records.load("a")
    assert (found.loss, found.best_epoch, found.seconds) == (0.1, 1, 0.5)
    np.testing.assert_array_equal(found.returns, record().returns)
    assert found.times.dtype == np.int64
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["a.npz"]


def test_a_torn_record_counts_as_missing(tmp_path):
    records = Records(tmp_path)
    records.save("a", record())
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        (tmp_path / "a.npz").write_bytes(content)
        assert records.load("a") is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BitcornError, match=r"the record of a fold at .*records cannot be written"):
        Records(tmp_path / "file" / "records").save("a", record())
    with pytest.raises(BitcornError, match="cannot be written"):
        Journal(Storage(tmp_path / "file")).write(Trial(name="t1", point={}))


def test_keys_are_of_values():
    assert record_key({"a": 1, "b": 2}) == record_key({"b": 2, "a": 1})
    assert record_key(1, [2]) != record_key(1, [3])


def test_the_journal_tells_how_trials_stood_last(tmp_path):
    journal = Journal(Storage(tmp_path))
    assert journal.read() == {}
    begun = Trial(name="t1", point={"a": [1]}, setting={"system": "v2"})
    ended = Trial(name="t1", point={"a": [1]}, setting={"system": "v2"}, state="finished", losses=(1.0, 3.0))
    for trial in (begun, Trial(name="t2", point={"a": [2]}), ended):
        journal.write(trial)
    assert list(journal.read()) == ["t1", "t2"]
    assert journal.read()["t1"] == ended
    assert journal.read()["t1"].loss == 2.0


def test_a_line_that_was_torn_by_a_crash_is_passed_over(tmp_path):
    journal = Journal(Storage(tmp_path))
    journal.write(Trial(name="t1", point={}))
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"name": "t2", "poi')
    assert list(journal.read()) == ["t1"]
    journal.write(Trial(name="t3", point={}))
    assert list(journal.read()) == ["t1", "t3"]


def code_of(package):
    """Return what a process that has this copy of the package thinks of its code."""
    script = "from bitcorn_ray.tuning.records import training_code; print(training_code())"
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_code_of_a_record_changes_with_what_trains_and_with_nothing_else(tmp_path):
    copy = tmp_path / "bitcorn_ray"
    shutil.copytree(Path(bitcorn_ray.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def edited(file, old, new):
        source = (copy / file).read_text()
        assert old in source
        (copy / file).write_text(source.replace(old, new, 1))
        return code_of(tmp_path)

    first = code_of(tmp_path)
    assert first == training_code()
    assert edited("models/neural/losses.py", "import math", "import math  # a comment") == first
    assert edited("cli/options.py", "from __future__", "LATER = 1\nfrom __future__") == first
    loss = edited("models/neural/losses.py", "_ROBUST_FREEDOM = 12.0", "_ROBUST_FREEDOM = 12.5")
    fold = edited("datasets/folds.py", "return next_start - reach + 1", "return next_start - reach")
    assert len({first, loss, fold}) == 3
