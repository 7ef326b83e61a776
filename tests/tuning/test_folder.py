import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_evolutions import evolve_values
from small_sweeps import make_sweep, sweep_values

import bitcorn_ray
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.tuning.config import SweepConfig
from bitcorn_ray.tuning.evolution.config import EvolveConfig
from bitcorn_ray.tuning.folder import Journal, SweepFolder
from bitcorn_ray.tuning.records import FoldRecord, Records, record_key, training_code
from bitcorn_ray.tuning.search import Trial


def test_bars_and_plan_are_read_back(market_db, tmp_path):
    folder, _, data = make_sweep(sweep_values(market_db, tmp_path / "sweep", search={}))
    assert folder.plan()["identities"] == data.identities
    for one, other in zip(folder.bars(), data.bars, strict=True):
        assert (one.name, one.step, one.excluded_ends) == (other.name, other.step, None)
        for column in ("timestamp", "high", "low", "close"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


def test_missing_and_damaged_sweeps_are_refused(tmp_path):
    with pytest.raises(BitcornError, match="holds no sweep"):
        SweepFolder(tmp_path).plan()
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(BitcornError, match=r"is damaged: plan\.json"):
        SweepFolder(tmp_path).plan()
    (tmp_path / "plan.json").write_text('{"format": 2}')
    with pytest.raises(BitcornError, match="format 2: update"):
        SweepFolder(tmp_path).plan()
    (tmp_path / "plan.json").write_text('{"format": 1, "code": "c", "partitions": []}')
    (tmp_path / "bars.npz").write_text("torn")
    with pytest.raises(BitcornError, match=r"is damaged: bars\.npz"):
        SweepFolder(tmp_path).bars()


def test_a_folder_with_other_files_is_refused(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.require_free(resume=False)
    folder.storage.publish(".writing-1a2b", b"torn")  # a sweep that was cut short as it began
    folder.require_free(resume=False)
    folder.storage.publish("plan.json", b"{}")
    with pytest.raises(BitcornError, match="sweep holds a sweep or evolution: continue it with --resume"):
        folder.require_free(resume=False)
    folder.require_free(resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(BitcornError, match="mine holds other files than a sweep or evolution"):
        SweepFolder(tmp_path / "mine").require_free(resume=True)
    with pytest.raises(BitcornError, match=r"notes\.txt cannot be written"):
        SweepFolder(tmp_path / "mine" / "notes.txt").require_free(resume=False)


def test_only_the_same_sweep_is_resumed(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    config = SweepConfig.load(sweep_values("m.db", tmp_path / "sweep"))
    folder.begin(config, {"v2": "1"}, [], "c")
    folder.begin(config, {"v2": "1"}, [], "c")
    folder.begin(SweepConfig.load(config, {"trials": 9, "max_hours": 2, "out": "moved"}), {"v2": "1"}, [], "c")
    with pytest.raises(BitcornError, match=r"another configuration: .* changing only sweep\.trials, sweep\.max_hours"):
        folder.begin(SweepConfig.load(config, {"seed": 9}), {"v2": "1"}, [], "c")
    with pytest.raises(BitcornError, match="the bars or features have changed"):
        folder.begin(config, {"v2": "2"}, [], "c")
    with pytest.raises(BitcornError, match=r"code or libraries that train have changed .*give another --out"):
        folder.begin(config, {"v2": "1"}, [], "d")
    with pytest.raises(BitcornError, match="holds a sweep and no evolution"):
        folder.begin(config, {"v2": "1"}, [], "c", {"db": "m.db", "evolve": {}})


def test_only_the_same_evolution_is_resumed(tmp_path):
    folder = SweepFolder(tmp_path / "evolved")
    config = EvolveConfig.load(evolve_values("m.db", tmp_path / "evolved"))
    for generations in (2, 9):
        more = EvolveConfig.load(config, {"generations": generations})
        folder.begin(more.sweep, {"x": "1"}, [], "c", more.to_json())
    other = EvolveConfig.load(config, {"seed": 9})
    with pytest.raises(BitcornError, match=r"another configuration: .* changing only evolve\.generations"):
        folder.begin(other.sweep, {"x": "1"}, [], "c", other.to_json())
    with pytest.raises(BitcornError, match="holds an evolution and no sweep"):
        folder.begin(config.sweep, {"x": "1"}, [], "c")


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


def test_a_record_is_read_back(tmp_path):
    records = Records(tmp_path / "records")
    assert records.load("a") is None
    records.save("a", record(0.1))
    found = records.load("a")
    assert (found.loss, found.best_epoch, found.seconds) == (0.1, 1, 0.5)
    np.testing.assert_array_equal(found.returns, record().returns)
    assert found.times.dtype == np.int64
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["a.npz"]


def test_a_damaged_record_counts_as_missing(tmp_path):
    records = Records(tmp_path)
    records.save("a", record())
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        (tmp_path / "a.npz").write_bytes(content)
        assert records.load("a") is None


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BitcornError, match=r"the record of a fold at .*records cannot be written"):
        Records(tmp_path / "file" / "records").save("a", record())
    with pytest.raises(BitcornError, match="cannot be written"):
        Journal(Storage(tmp_path / "file")).write(Trial(name="t1", point={}))


def test_keys_depend_on_values_only():
    assert record_key({"a": 1, "b": 2}) == record_key({"b": 2, "a": 1})
    assert record_key(1, [2]) != record_key(1, [3])


def test_the_journal_has_the_latest_state_of_each_trial(tmp_path):
    journal = Journal(Storage(tmp_path))
    assert journal.read() == {}
    begun = Trial(name="t1", point={"a": [1]}, setting={"system": "v2"})
    ended = Trial(name="t1", point={"a": [1]}, setting={"system": "v2"}, state="finished", losses=(1.0, 3.0))
    for trial in (begun, Trial(name="t2", point={"a": [2]}), ended):
        journal.write(trial)
    assert list(journal.read()) == ["t1", "t2"]
    assert journal.read()["t1"] == ended
    assert journal.read()["t1"].loss == 2.0


def test_an_incomplete_line_of_the_journal_is_skipped(tmp_path):
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


def test_the_code_fingerprint_changes_with_training_code_only(tmp_path):
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
