import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import MODEL, TRAINING, NetworkFit, fit, make_data

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import Shape
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder

# Checkpoints within epochs too, at every look.
BUSY = replace(TRAINING, epochs=4, batch_size=8, checkpoint_minutes=1e-9, checkpoint_epochs=3)


@pytest.fixture(scope="module")
def data():
    from bitcorn_ray.market.simulate import simulate_bars

    return make_data(simulate_bars(500, seed=0, gaps=1), simulate_bars(300, seed=4))[0]


@pytest.fixture(scope="module")
def on_ray(ray_cluster, data, tmp_path_factory):
    """A function that trains on Ray, with changes to the training's configuration."""
    from bitcorn_ray.training.distribute import SharedData, fit_on_ray

    def train(training=TRAINING, workers=1, data=data, model=MODEL, **options):
        folder = options.pop("folder", None) or tmp_path_factory.mktemp("run") / "checkpoints"
        arguments = {"gpus": 0, "checkpoints": CheckpointFolder(folder), "max_failures": 2, **options}
        shape = Shape(data.matrix.shape[1], len(data.names), 3_600_000)
        fitted, result = fit_on_ray(SharedData(data), model, shape, training, workers=workers, **arguments)
        return NetworkFit(**vars(result), weights=fitted.network.state_dict())

    return train


@pytest.fixture(scope="module")
def undisturbed_pair(on_ray):
    return on_ray(BUSY, workers=2)


def losses(result):
    return [(epoch.train_loss, epoch.val_loss) for epoch in result.history]


def same_weights(one, other):
    return all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


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


def killer(epoch, killed):
    """Kill one worker when an epoch is finished: in the middle of the next one, that is."""

    def on_epoch(result):
        if result.epoch == epoch and not killed:
            pid = train_workers()[0]
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    return on_epoch


def test_two_workers_without_dropout_make_the_steps_of_one(on_ray, data):
    model = replace(MODEL, dropout=0.0)
    training = replace(TRAINING, loss="student_t", horizon_weights="learned", ema=0.9)
    one, two = fit(data, model, training), on_ray(training, workers=2, model=model)
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)
    by_horizon = [[epoch.train_loss_by_horizon for epoch in each.history] for each in (two, one)]
    np.testing.assert_allclose(*by_horizon, rtol=1e-4)


def test_a_worker_that_is_killed_is_replaced_and_the_training_is_the_undisturbed_one(on_ray, data):
    killed, epochs, found = [], [], []

    def on_epoch(result):
        epochs.append(result.epoch)
        killer(1, killed)(result)

    result = on_ray(BUSY, on_epoch=on_epoch, on_progress=found.append)
    assert len(killed) == 1
    assert epochs == [1, 2, 3, 4]
    whole = fit(data, MODEL, BUSY)
    assert losses(result) == losses(whole)
    assert same_weights(whole, result)
    assert all(0 < each.done <= each.windows + BUSY.batch_size for each in found)


@pytest.mark.slow
def test_one_of_two_workers_is_killed_and_the_training_is_the_undisturbed_one(on_ray, undisturbed_pair):
    killed = []
    result = on_ray(BUSY, workers=2, on_epoch=killer(2, killed))
    assert len(killed) == 1
    assert losses(result) == losses(undisturbed_pair)
    assert same_weights(undisturbed_pair, result)


@pytest.mark.slow
def test_an_elastic_training_uses_as_many_workers_as_fit(on_ray, undisturbed_pair):
    result = on_ray(BUSY, workers=(1, 4))
    # There is room for two, so it is the training of two.
    assert losses(result) == losses(undisturbed_pair)


def test_a_training_of_this_process_resumes_on_ray_with_other_workers(on_ray, data, tmp_path):
    class Interrupted(Exception):
        pass

    def stop(result):
        raise Interrupted

    model = replace(MODEL, dropout=0.0)
    with pytest.raises(Interrupted):
        fit(data, model, TRAINING, report=stop, checkpoints=CheckpointFolder(tmp_path))
    epochs = []
    result = on_ray(workers=2, model=model, folder=tmp_path, on_epoch=lambda epoch: epochs.append(epoch.epoch))
    assert epochs == [2, 3]
    np.testing.assert_allclose(losses(result), losses(fit(data, model, TRAINING)), rtol=1e-4)


def test_what_lies_in_the_object_store_is_shared_and_left_as_it_was(ray_cluster, data, tmp_path):
    from bitcorn_ray.training.distribute import SharedData, fit_on_ray

    shared = SharedData(data)
    arrays = {name: value for name, value in vars(shared.data).items() if isinstance(value, np.ndarray)}
    assert not any(value.flags.writeable for value in arrays.values())
    shape = Shape(data.matrix.shape[1], len(data.names), 3_600_000)
    options = {"gpus": 0, "checkpoints": CheckpointFolder(tmp_path), "max_failures": 0}
    fit_on_ray(shared, MODEL, shape, TRAINING, workers=1, **options)
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, getattr(data, name), err_msg=name)


def test_more_workers_or_gpus_than_there_are_are_refused_at_once(on_ray):
    with pytest.raises(BitcornError, match=r"3 workers with 0 GPUs each need 3 CPUs and 0 GPUs, but Ray has 2 CPUs"):
        on_ray(workers=3)
    with pytest.raises(BitcornError, match="3 workers with 0 GPUs"):
        on_ray(workers=(3, 8))
    with pytest.raises(BitcornError, match=r"1 workers with 1 GPUs each need .* 1 GPUs, but Ray has 2 CPUs and 0 GPUs"):
        on_ray(gpus=1)


def test_a_refused_training_is_not_retried(on_ray, data, tmp_path):
    broken = replace(data, returns=data.returns.copy())
    broken.returns[:] = float("nan")
    with pytest.raises(BitcornError, match=r"not finite in epoch 1.*SIM 1h"):
        on_ray(data=broken, max_failures=1_000_000, folder=tmp_path / "checkpoints")
    with pytest.raises(BitcornError, match="batches of 1 are too few for 2 workers"):
        on_ray(replace(TRAINING, batch_size=1), workers=2, folder=tmp_path / "checkpoints")
    assert list(tmp_path.iterdir()) == []
