import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import MODEL, TRAINING, make_data

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.training import fit


@pytest.fixture
def data(random_bars):
    return make_data(random_bars(500, gaps=1))[0]


@pytest.fixture
def on_ray(ray_cluster, tmp_path, data):
    """A function that trains on Ray, with changes to the training's configuration."""
    from bitcorn_ray.on_ray.training import fit_on_ray

    def train(training=TRAINING, workers=1, data=data, **options):
        arguments = {"gpus": 0, "artifacts_dir": tmp_path / "run", "max_failures": 2, **options}
        return fit_on_ray(data, MODEL, training, workers=workers, **arguments)

    return train


def losses(result):
    return [(epoch.train_loss, epoch.val_loss) for epoch in result.history]


def train_workers():
    """Process ids of this session's training workers: descendants of this process."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid, rest = (folder / "stat").read_text().split(" ", 1)
            parents[int(pid)] = int(rest.rsplit(")", 1)[1].split()[1])
            names[int(pid)] = (folder / "cmdline").read_bytes().decode()
        except (OSError, ValueError):
            continue

    def is_ours(pid):
        while pid in parents:
            if pid == os.getpid():
                return True
            pid = parents[pid]
        return False

    return [pid for pid, name in names.items() if "RayTrainWorker" in name and is_ours(pid)]


def test_two_workers_learn_what_one_learns(on_ray, data):
    one, two = fit(data, MODEL, TRAINING), on_ray(workers=2)
    assert len(two.history) == len(one.history)
    # Dropout differs from worker to worker; the rest is the same mean over the same batches.
    assert two.history[-1].val_loss == pytest.approx(one.history[-1].val_loss, rel=0.2)


def test_two_workers_without_dropout_make_the_steps_of_one(ray_cluster, tmp_path, data):
    from bitcorn_ray.on_ray.training import fit_on_ray

    model = replace(MODEL, dropout=0.0)
    one = fit(data, model, TRAINING)
    two = fit_on_ray(data, model, TRAINING, workers=2, gpus=0, artifacts_dir=tmp_path / "run", max_failures=0)
    for epoch, other in zip(one.history, two.history, strict=True):
        assert other.train_loss == pytest.approx(epoch.train_loss, rel=1e-4)
        assert other.val_loss == pytest.approx(epoch.val_loss, rel=1e-4)


def test_a_worker_killed_in_the_middle_is_replaced_and_the_training_is_the_undisturbed_one(on_ray, data):
    killed = []
    training = replace(TRAINING, epochs=6)

    def kill_after_the_second_epoch(epoch):
        if epoch.epoch == 2 and not killed:
            for pid in train_workers():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    result = on_ray(training, on_epoch=kill_after_the_second_epoch)
    assert len(killed) == 1
    undisturbed = fit(data, MODEL, training)
    assert losses(result) == losses(undisturbed)
    for name, value in undisturbed.weights.items():
        assert torch.equal(value, result.weights[name]), name


def test_more_workers_or_gpus_than_there_are_are_refused_at_once(on_ray):
    with pytest.raises(BitcornError, match=r"3 workers with 0 GPUs each need 3 CPUs and 0 GPUs, but Ray has 2 CPUs"):
        on_ray(workers=3)
    with pytest.raises(BitcornError, match=r"1 workers with 1 GPUs each need .* 1 GPUs, but Ray has 2 CPUs and 0 GPUs"):
        on_ray(gpus=1)


def test_a_training_that_cannot_go_on_is_not_tried_again_and_says_why(on_ray, data, tmp_path):
    broken = replace(data, returns=data.returns.copy())
    broken.returns[:] = float("nan")
    with pytest.raises(BitcornError, match="no finite number in epoch 1"):
        on_ray(data=broken, max_failures=1_000_000)
    assert list(tmp_path.glob(".*checkpoints")) == []
