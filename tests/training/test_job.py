from pathlib import Path

import numpy as np
import pytest
from small_training import MODEL, TRAINING, make_data

from bitcorn_ray.datasets.load import TrainingInputs
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.job import TrainingJob, checkpoint_folder


@pytest.fixture
def inputs(random_bars):
    data, scaler, facts = make_data(random_bars(500))
    about = {"symbol": "SIM", "timeframe": "1h", "feature_system": None, "feature_version": None, "data": facts}
    return TrainingInputs(data=data, scaler=scaler, feature_cols=list("abcd"), about=about)


def job(**options):
    return TrainingJob(model=MODEL, training=TRAINING, **options)


def test_a_job_logs_its_steps_and_saves_a_run(inputs, tmp_path):
    lines, epochs = [], []
    run = job(out=tmp_path / "run", log_fn=lines.append).run(lambda: inputs, on_epoch=epochs.append)
    assert len(epochs) == 3
    assert run.metadata["best_epoch"] == min(epochs, key=lambda epoch: epoch.val_loss).epoch
    assert lines[0].endswith("purged between them, 0 left out")
    assert lines[-1] == f"run saved to {tmp_path / 'run'}"
    assert not Path(checkpoint_folder(Storage(tmp_path / "run"))).exists()
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_without_a_folder_nothing_is_written(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job().run(lambda: inputs)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_looked_at_before_the_inputs_are_made(tmp_path):
    (tmp_path / "file").write_text("mine")

    def never():
        raise AssertionError("too early")

    with pytest.raises(BitcornError, match=r"the run at .* cannot be written"):
        job(out=tmp_path / "file" / "run").run(never)


def test_a_training_that_fails_closes_its_logs_and_keeps_its_checkpoints(inputs, tmp_path):
    broken = inputs.data.returns
    seen = []

    def spoil(result):
        seen.append(result)
        broken[inputs.data.train_ends] = np.nan

    with pytest.raises(BitcornError, match="not finite in epoch 2"):
        job(out=tmp_path / "run").run(lambda: inputs, on_epoch=spoil)
    assert len(seen) == 1
    assert list(Path(checkpoint_folder(Storage(tmp_path / "run"))).glob("*.pt"))
