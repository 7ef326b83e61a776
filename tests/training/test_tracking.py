import importlib.util

import pytest
from tensorboardX.proto.event_pb2 import Event

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import EpochResult
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.tracking import TrainingLogs


def epoch(number):
    return EpochResult(number, 0.5, 0.6, [0.4, 0.6], [0.5, 0.7], True, 1e-3, 2.0, 900.0 + number)


def scalars(folder):
    """Every scalar of the event files in a folder: (name, step) to value. A record: 8 bytes of length, 4 of CRC."""
    found = {}
    for path in sorted(folder.iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            length = int.from_bytes(content[place : place + 8], "little")
            event = Event.FromString(content[place + 12 : place + 12 + length])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            place += 12 + length + 4
    return found


def test_losses_by_horizon_rate_and_speed_are_there_after_each_epoch(tmp_path):
    logs = TrainingLogs(Storage(tmp_path), (1, 12), {"seed": 0})
    logs.epoch(epoch(1))
    logs.epoch(epoch(1))  # as a restarted worker repeats it
    logs.epoch(epoch(2))
    logs.close()
    found = scalars(tmp_path / "tensorboard")
    assert {step for _, step in found} == {1, 2}
    assert {name: value for name, value in found.items() if name[1] == 1} == pytest.approx(
        {
            ("loss/train", 1): 0.5,
            ("loss/validation", 1): 0.6,
            ("loss/train/1", 1): 0.4,
            ("loss/train/12", 1): 0.6,
            ("loss/validation/1", 1): 0.5,
            ("loss/validation/12", 1): 0.7,
            ("learning_rate", 1): 1e-3,
            ("samples_per_second", 1): 901.0,
        }
    )


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    logs = TrainingLogs(Storage(tmp_path / "file"), (1, 12), {})
    with pytest.raises(BitcornError, match="nothing can be written to"):
        logs.epoch(epoch(1))


def test_nothing_is_written_before_there_is_something_to_log(tmp_path):
    TrainingLogs(Storage(tmp_path / "run"), (1,), {}).close()
    assert list(tmp_path.iterdir()) == []


def test_mlflow_gets_parameters_and_losses(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    logs = TrainingLogs(Storage(tmp_path / "run"), (1, 12), {"seed": 0})
    logs.epoch(epoch(1))
    logs.close()
    (run,) = mlflow.search_runs(experiment_names=["bitcorn"], output_format="list")
    assert run.data.params == {"seed": "0"}
    assert run.data.metrics["loss/validation/12"] == pytest.approx(0.7)
    assert run.info.status == "FINISHED"


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="MLflow is installed")
def test_a_missing_mlflow_is_refused_with_the_install_command(tmp_path):
    with pytest.raises(BitcornError, match=r"pip install 'bitcorn_ray\[mlflow\]'"):
        TrainingLogs(Storage(tmp_path), (1,), {}, mlflow="http://127.0.0.1:1")
