from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import MODEL, TRAINING, make_data

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.training import fit, gather


@pytest.fixture
def data(random_bars):
    return make_data(random_bars(500, gaps=1))[0]


def losses(result):
    return [(epoch.train_loss, epoch.val_loss) for epoch in result.history]


def test_gathering_on_the_device_equals_slicing():
    matrix = torch.randn(50, 3)
    ends = torch.tensor([7, 30, 49])
    for window, end in zip(gather(matrix, ends, 8), ends, strict=True):
        torch.testing.assert_close(window, matrix[end - 7 : end + 1], rtol=0, atol=0)


def test_the_same_seed_gives_the_same_losses_to_the_bit(data):
    one, other = fit(data, MODEL, TRAINING), fit(data, MODEL, TRAINING)
    assert losses(one) == losses(other)
    assert losses(one) != losses(fit(data, MODEL, replace(TRAINING, seed=1)))


def test_training_leaves_the_callers_random_state_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(data, MODEL, TRAINING)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.parametrize("after", [1, 2])
def test_going_on_from_a_snapshot_equals_an_undisturbed_training_to_the_bit(data, after):
    snapshots = []
    whole = fit(data, MODEL, TRAINING, report=lambda result, snapshot: snapshots.append(snapshot()))
    resumed = fit(data, MODEL, TRAINING, resume=snapshots[after - 1])
    assert losses(resumed) == losses(whole)
    for name, value in whole.weights.items():
        assert torch.equal(value, resumed.weights[name]), name


def test_a_snapshot_holds_plain_values_and_tensors_only(data, tmp_path):
    snapshots = []
    fit(data, MODEL, replace(TRAINING, epochs=1), report=lambda result, snapshot: snapshots.append(snapshot()))
    torch.save(snapshots[0], tmp_path / "snapshot.pt")
    torch.load(tmp_path / "snapshot.pt", weights_only=True)


def test_what_validates_does_not_reach_the_weights_of_an_epoch(data):
    changed = replace(data, returns=data.returns.copy(), volatilities=data.volatilities.copy())
    changed.returns[data.validation_ends] += 1
    changed.volatilities[data.validation_ends] *= 5
    one, other = (fit(d, MODEL, replace(TRAINING, epochs=1)) for d in (data, changed))
    for name, value in one.weights.items():
        assert torch.equal(value, other.weights[name])
    assert one.history[0].val_loss != other.history[0].val_loss


def test_the_best_epochs_weights_are_returned_and_training_stops_early(data):
    # A learning rate that destroys: validation gets worse soon.
    config = replace(TRAINING, epochs=40, learning_rate=0.3, patience=2)
    weights = {}
    result = fit(data, MODEL, config, report=lambda epoch, snapshot: weights.update({epoch.epoch: snapshot()["model"]}))
    best = min(result.history, key=lambda epoch: epoch.val_loss)
    assert result.best_epoch == best
    assert len(result.history) == best.epoch + 2 < 40
    for name, value in result.weights.items():
        assert torch.equal(value, weights[best.epoch][name])


@pytest.mark.parametrize("loss", ["gaussian_nll", "mse", "hybrid"])
def test_every_loss_learns_what_is_there_to_learn(random_bars, loss):
    data, _, _ = make_data(random_bars(800))
    # The last row of a window says the return that follows.
    matrix = data.matrix.copy()
    scaled = data.returns[:, 0] / data.output_scale[0]
    matrix[:, 0] = scaled
    told = replace(data, matrix=matrix)
    result = fit(told, MODEL, replace(TRAINING, epochs=12, learning_rate=1e-2, loss=loss, patience=12))
    assert result.best_epoch.val_loss_by_horizon[0] < 0.5 * result.history[0].val_loss_by_horizon[0] + 1e-9


def test_a_loss_that_is_no_number_stops_with_the_remedy(data):
    broken = replace(data, returns=data.returns.copy())
    broken.returns[data.train_ends[5]] = np.nan
    with pytest.raises(BitcornError, match=r"no finite number in epoch 1.*lower the learning rate"):
        fit(broken, MODEL, TRAINING)


def test_threads_are_put_back(data):
    before = torch.get_num_threads()
    fit(data, MODEL, replace(TRAINING, epochs=1, threads=before + 1))
    assert torch.get_num_threads() == before
