import errno
import logging
import os
import pickle
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from small_training import MODEL, TRAINING, make_data

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder, Superseded, training_identity
from bitcorn_ray.storage import publish as publish_module


def snapshot(step):
    return {"step": step, "weights": torch.full((3,), float(step))}


def test_the_newest_snapshot_comes_back_and_the_one_before_stays(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.load() is None
    assert not folder
    for step in (5, 50, 500):
        assert folder.save(snapshot(step))
    assert folder
    assert torch.equal(folder.load()["weights"], torch.full((3,), 500.0))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-0000000050.pt", "step-0000000500.pt"]


def test_a_damaged_snapshot_is_passed_over_for_the_one_before(tmp_path, caplog):
    folder = CheckpointFolder(tmp_path)
    folder.save(snapshot(1))
    folder.save(snapshot(2))
    newest = tmp_path / "step-0000000002.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    assert folder.load()["step"] == 1
    assert "is damaged and skipped" in caplog.text


@pytest.mark.parametrize("at", ["written", "synced"])
def test_on_a_full_disk_the_last_good_snapshot_remains_and_nothing_half_written(tmp_path, monkeypatch, caplog, at):
    folder = CheckpointFolder(tmp_path)
    folder.save(snapshot(1))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    whole = publish_module._write

    def half(filesystem, path, content, durable):
        whole(filesystem, path, bytes(content)[:100], durable)
        full()

    monkeypatch.setattr(*((publish_module, "_write", half) if at == "written" else (os, "fsync", full)))
    with caplog.at_level(logging.WARNING):
        assert not folder.save(snapshot(2))
    assert "training continues" in caplog.text
    assert "No space left on device" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000000001.pt"]
    assert folder.load()["step"] == 1


def test_a_place_that_is_no_folder_stops_no_training(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert not CheckpointFolder(tmp_path / "file" / "checkpoints").save(snapshot(1))


def test_clear_removes_only_checkpoints(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.clear()
    folder.save(snapshot(1))
    (tmp_path / "checkpoints" / ".writing-torn").write_text("half")
    folder.clear()
    assert not (tmp_path / "checkpoints").exists()
    folder.save(snapshot(1))
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    folder.clear()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["notes.txt"]


def test_snapshots_of_another_training_are_refused(tmp_path):
    CheckpointFolder(tmp_path, "one").save(snapshot(1))
    assert CheckpointFolder(tmp_path, "one").load()["step"] == 1
    with pytest.raises(BitcornError, match="other data or another configuration"):
        CheckpointFolder(tmp_path, "other").load()


def test_a_training_is_known_by_its_data_and_configuration_but_not_by_how_it_is_carried_out(random_bars):
    data = make_data(random_bars(300))[0]
    known = training_identity(data, MODEL, TRAINING)
    assert training_identity(make_data(random_bars(300))[0], MODEL, TRAINING) == known
    carried_out = replace(TRAINING, epochs=9, patience=2, threads=2, checkpoint_epochs=4, checkpoint_minutes=1.0)
    assert training_identity(data, MODEL, carried_out) == known
    changed = replace(data, returns=data.returns + 1e-6)
    others = [
        training_identity(changed, MODEL, TRAINING),
        training_identity(replace(data, names=("OTHER 1h",)), MODEL, TRAINING),
        training_identity(data, replace(MODEL, hidden_size=7), TRAINING),
        training_identity(data, MODEL, replace(TRAINING, seed=1)),
    ]
    assert len({known, *others}) == 5


def test_a_store_that_does_not_answer_while_old_ones_are_removed_ends_no_training(tmp_path, monkeypatch, caplog):
    folder = CheckpointFolder(tmp_path)
    folder.save(snapshot(1))

    def silent(_):
        raise BitcornError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(type(folder.storage), "names", silent)
        assert folder.save(snapshot(2))
        folder.clear()
    assert "could not be removed: no answer" in caplog.text
    assert folder.load()["step"] == 2


# Two trainings at one place


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    return str(tmp_path / "checkpoints") if request.param == "folder" else request.getfixturevalue("s3_uri")


def in_a_worker(folder):
    """The same folder, as a worker has it."""
    return pickle.loads(pickle.dumps(folder))


def test_a_worker_of_a_killed_driver_stops_after_another_training_claims_the_folder(place, monkeypatch):
    old = CheckpointFolder(place, "one")
    claim = old.claimed()
    claim.__enter__()  # and it never exits: its driver was killed
    orphan = in_a_worker(old)
    orphan.save(snapshot(1))
    new = CheckpointFolder(place, "one")
    assert new.begin(resume=True)["step"] == 1
    with new.claimed():
        with pytest.raises(Superseded, match=r"another training has taken over"):
            orphan.save(snapshot(2))
        worker = in_a_worker(new)
        assert worker.load()["step"] == 1
        assert worker.save(snapshot(2))
        assert in_a_worker(new).load()["step"] == 2
        with monkeypatch.context() as patched:
            patched.setattr(orphan, "require_claim", lambda: None)  # it had looked just before
            orphan.save(snapshot(9))
        assert in_a_worker(new).load()["step"] == 2
    new.clear()
    assert new.storage.names() == []
    with pytest.raises(Superseded, match="or has finished there"):
        orphan.save(snapshot(3))
    assert new.storage.names() == []


def test_a_new_training_never_resumes_from_snapshots_of_another_one(place):
    old = CheckpointFolder(place, "one")
    old.save(snapshot(1))
    new = CheckpointFolder(place, "one")
    assert new.begin(resume=False) is None
    old.save(snapshot(2))
    with new.claimed():
        old.save(snapshot(3))
        assert in_a_worker(new).load() is None
        for step in (1, 2):
            new.save(snapshot(step))
        assert in_a_worker(new).load()["step"] == 2


def test_who_is_superseded_ends_in_an_error_and_leaves_the_other_s_claim(place):
    def training():
        with CheckpointFolder(place).claimed():
            taken.enter_context(new.claimed())

    new = CheckpointFolder(place)
    with ExitStack() as taken:
        with pytest.raises(Superseded):
            training()
        new.require_claim()
    assert new.storage.names() == []


def test_training_continues_without_checkpoints_while_the_store_does_not_answer(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    with folder.claimed():
        folder.save(snapshot(1))

        def silent(_):
            raise BitcornError("no answer")

        with monkeypatch.context() as patched:
            patched.setattr(type(folder.storage), "names", silent)
            assert not folder.save(snapshot(2))
        assert folder.load()["step"] == 1
