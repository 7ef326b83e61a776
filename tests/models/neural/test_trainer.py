import copy
import json
import platform
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import MODEL, TRAINING, changed, fit, make_data
from torch import nn

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.models.base import EpochResult
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.models.neural.network import Network
from bitcorn_ray.models.neural.trainer import AveragedWeights, diverging, on_cpu, parameter_groups, rate_factor

GOLDEN = Path(__file__).parent / "golden_losses.json"


@pytest.fixture
def data(random_bars):
    return make_data(random_bars(500, gaps=1), random_bars(300, seed=4))[0]


def losses(result):
    return [(epoch.train_loss, epoch.val_loss) for epoch in result.history]


def same_weights(one, other):
    assert one.weights.keys() == other.weights.keys()
    return all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


class Interrupted(Exception):
    """What ends a training in the middle."""


def raise_after(epoch):
    def report(result):
        if result.epoch == epoch:
            raise Interrupted

    return report


RICH = replace(
    TRAINING, loss="student_t", horizon_weights="learned", ema=0.9, schedule="plateau", directional_penalty=0.1
)


@pytest.mark.parametrize("training", [TRAINING, RICH], ids=["plain", "rich"])
def test_the_same_seed_gives_the_same_losses_and_weights_to_the_bit(data, training):
    one, other = fit(data, MODEL, training), fit(data, MODEL, training)
    assert losses(one) == losses(other)
    assert same_weights(one, other)
    assert losses(one) != losses(fit(data, MODEL, replace(training, seed=1)))


def test_the_golden_loss_curve():
    """A refactoring reproduces these losses; other families of CPUs add in another order."""
    data = make_data(simulate_bars(900, seed=11, gaps=2), simulate_bars(600, seed=12))[0]
    model = replace(MODEL, hidden_size=16, skip=True, symbol_embedding=2)
    found = losses(fit(data, model, replace(TRAINING, epochs=4)))
    golden = json.loads(GOLDEN.read_text())
    np.testing.assert_allclose(found, golden["losses"], rtol=2e-4)
    if golden["where"] == [platform.machine(), torch.__version__, torch.backends.cpu.get_cpu_capability()]:
        np.testing.assert_allclose(found, golden["losses"], rtol=1e-6)


def test_training_writes_to_none_of_its_data(data):
    arrays = {name: value for name, value in vars(data).items() if isinstance(value, np.ndarray)}
    before = {name: value.tobytes() for name, value in arrays.items()}
    for value in arrays.values():
        value.flags.writeable = False
    fit(data, replace(MODEL, input_norm=True, symbol_embedding=2, skip=True), replace(RICH, deterministic=False))
    for name, value in arrays.items():
        assert value.tobytes() == before[name], name


def test_training_leaves_the_callers_random_state_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(data, MODEL, TRAINING)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.parametrize("training", [TRAINING, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("after", [1, 2])
def test_resuming_after_an_epoch_equals_an_undisturbed_training_to_the_bit(data, tmp_path, after, training):
    whole = fit(data, MODEL, training)
    with pytest.raises(Interrupted):
        fit(data, MODEL, training, report=raise_after(after), checkpoints=CheckpointFolder(tmp_path))
    seen = []
    resumed = fit(data, MODEL, training, report=seen.append, checkpoints=CheckpointFolder(tmp_path))
    assert [result.epoch for result in seen] == list(range(after + 1, 4))
    assert losses(resumed) == losses(whole)
    assert same_weights(resumed, whole)
    assert resumed.learned == whole.learned


@pytest.mark.parametrize("training", [TRAINING, RICH], ids=["plain", "rich"])
def test_resuming_within_an_epoch_equals_an_undisturbed_training_to_the_bit(data, tmp_path, monkeypatch, training):
    training = replace(training, checkpoint_minutes=1e-9)
    monkeypatch.setattr("bitcorn_ray.models.neural.trainer._CHECK_EVERY", 5)
    whole = fit(data, MODEL, training)
    folder = CheckpointFolder(tmp_path)
    saved, save = [], folder.save

    def save_and_stop(snapshot):
        save(snapshot)
        saved.append(snapshot["step"])
        if len(saved) == 5:
            raise Interrupted

    monkeypatch.setattr(folder, "save", save_and_stop)
    with pytest.raises(Interrupted):
        fit(data, MODEL, training, checkpoints=folder)
    steps = -(-len(data.train_ends) // training.batch_size)
    assert saved[-1] % steps
    resumed = fit(data, MODEL, training, checkpoints=CheckpointFolder(tmp_path))
    assert losses(resumed) == losses(whole)
    assert same_weights(resumed, whole)


def test_a_checkpoint_is_written_every_so_many_epochs_and_at_the_end(data, tmp_path, monkeypatch):
    folder, saved = CheckpointFolder(tmp_path), []
    monkeypatch.setattr(folder, "save", lambda snapshot: saved.append(snapshot["state"]["epoch"]))
    fit(data, MODEL, replace(TRAINING, epochs=5, checkpoint_epochs=2), checkpoints=folder)
    assert saved == [2, 4, 5]


def test_a_finished_training_is_not_trained_on(data, tmp_path):
    first = fit(data, MODEL, TRAINING, checkpoints=CheckpointFolder(tmp_path))
    again = fit(data, MODEL, TRAINING, report=raise_after(3), checkpoints=CheckpointFolder(tmp_path))
    assert losses(again) == losses(first)
    longer = fit(data, MODEL, replace(TRAINING, epochs=4), checkpoints=CheckpointFolder(tmp_path))
    assert losses(longer)[:3] == losses(first)
    assert len(longer.history) == 4


def test_a_disk_that_is_full_does_not_end_the_training(data, tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    result = fit(data, MODEL, TRAINING, checkpoints=CheckpointFolder(tmp_path / "file"))
    assert len(result.history) == TRAINING.epochs
    assert "training continues" in caplog.text


def test_what_validates_and_tests_does_not_reach_the_weights(random_bars):
    training = replace(TRAINING, epochs=1, test_frac=0.2)
    data = make_data(random_bars(500), training=training)[0]
    changed = replace(data, returns=data.returns.copy(), volatilities=data.volatilities.copy())
    for ends in (data.validation_ends, data.test_ends):
        changed.returns[ends] += 1
        changed.volatilities[ends] *= 5
    one, other = (fit(d, MODEL, training) for d in (data, changed))
    assert same_weights(one, other)
    assert one.history[0].val_loss != other.history[0].val_loss
    # The test windows reach nothing at all, the validation loss included.
    only_tests = replace(data, returns=data.returns.copy())
    only_tests.returns[data.test_ends] = np.nan
    assert losses(fit(only_tests, MODEL, training)) == losses(one)


def test_the_best_epochs_weights_are_returned_and_training_stops_early(data, tmp_path):
    # A learning rate that destroys: validation gets worse soon.
    config = replace(TRAINING, epochs=40, learning_rate=0.3, patience=2)
    weights, folder = {}, CheckpointFolder(tmp_path)
    result = fit(
        data, MODEL, config, report=lambda e: weights.update({e.epoch: folder.load()["model"]}), checkpoints=folder
    )
    best = min(result.history, key=lambda epoch: epoch.val_loss)
    assert result.best_epoch == best
    assert len(result.history) == best.epoch + 2 < 40
    for name, value in result.weights.items():
        assert torch.equal(value, weights[best.epoch][name])


@pytest.mark.parametrize("loss", ["gaussian_nll", "student_t", "mse", "hybrid"])
def test_every_loss_learns_a_predictable_return(random_bars, loss):
    data, _, _ = make_data(random_bars(800))
    # The last row of a window says the return that follows.
    matrix = data.matrix.copy()
    matrix[:, 0] = data.returns[:, 0] / data.reference / data.output_scale[0]
    recorded = replace(data, matrix=matrix)
    config = replace(TRAINING, epochs=12, learning_rate=1e-2, loss=loss, patience=12)
    result = fit(recorded, replace(MODEL, dropout=0.0), config)
    first, best = result.history[0].val_loss_by_horizon[0], result.best_epoch.val_loss_by_horizon[0]
    assert best < first - 0.3 * abs(first)


@pytest.mark.parametrize("options", [{"skip": True}, {"kind": "gru"}, {"input_norm": True, "layer_norm": True}])
def test_every_kind_of_model_is_trained(data, options):
    history = fit(data, changed(MODEL, **options), replace(TRAINING, learning_rate=1e-2)).history
    assert history[-1].train_loss < history[0].train_loss


def test_an_embedding_learns_the_volatility_of_a_partition(random_bars):
    """Two markets with the same features whose volatility, relative to its past, differs by a factor."""
    data = make_data(random_bars(600), random_bars(600, seed=4))[0]
    louder = replace(data, matrix=data.matrix * 0, volatilities=data.volatilities.copy(), returns=data.returns * 0)
    louder.volatilities[600:] *= 4
    config = replace(TRAINING, epochs=6, learning_rate=1e-2)
    plain, told_apart = (
        fit(louder, replace(MODEL, symbol_embedding=size, dropout=0.0), config).best_epoch.val_loss for size in (0, 2)
    )
    assert told_apart < plain - 0.1


def test_the_schedule_sets_the_rate_of_each_epochs_last_step(data):
    config = replace(TRAINING, epochs=4, schedule="cosine", warmup=1.0, learning_rate=0.01)
    rates = [result.learning_rate for result in fit(data, MODEL, config).history]
    assert rates[0] == pytest.approx(0.01)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-4


def test_a_loss_that_is_no_number_names_the_partition_and_the_time(data):
    broken = replace(data, returns=data.returns.copy())
    end = data.train_ends[data.train_ends > data.partition_starts[1]][5]
    broken.returns[end] = np.nan
    with pytest.raises(BitcornError, match=r"not finite in epoch 1.*lower the learning rate \(0.001\)") as raised:
        fit(broken, MODEL, TRAINING)
    assert f"1 windows that end at bars of {data.describe(np.array([end]))}:" in str(raised.value)
    broken = replace(data, returns=data.returns.copy())
    broken.returns[data.validation_ends[3]] = np.inf
    with pytest.raises(BitcornError, match="the validation loss is not finite in epoch 1"):
        fit(broken, MODEL, TRAINING)


def test_progress_counts_windows_and_losses(data, monkeypatch):
    monkeypatch.setattr("bitcorn_ray.models.neural.trainer._PROGRESS_SECONDS", 0)
    recorded = []
    result = fit(data, MODEL, replace(TRAINING, epochs=1), progress=recorded.append)
    assert [each.done for each in recorded][:3] == [32, 64, 96]
    assert {each.windows for each in recorded} == {len(data.train_ends)}
    assert recorded[-1].loss == pytest.approx(result.history[0].train_loss, rel=0.05)
    assert all(each.samples_per_second > 0 for each in recorded)


def test_in_bfloat16_the_same_is_learned_about_as_well(data):
    plain = fit(data, MODEL, TRAINING)
    rounded = fit(data, MODEL, replace(TRAINING, precision="bfloat16"))
    assert (plain.precision, rounded.precision) == ("float32", "bfloat16")
    assert losses(rounded) != losses(plain)
    np.testing.assert_allclose(losses(rounded), losses(plain), rtol=0.05)
    assert {value.dtype for value in rounded.weights.values()} == {torch.float32}


def test_the_trial_of_precisions_leaves_no_trace_but_its_choice(data, monkeypatch):
    monkeypatch.setattr("bitcorn_ray.models.neural.acceleration.supports_bfloat16", lambda device: True)
    chosen = fit(data, MODEL, replace(TRAINING, deterministic=False))
    assert losses(chosen) == losses(fit(data, MODEL, replace(TRAINING, precision=chosen.precision)))


def test_batches_of_more_windows_than_there_are_work(data):
    assert len(fit(data, MODEL, replace(TRAINING, batch_size=10_000)).history) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("training", [TRAINING, RICH], ids=["plain", "rich"])
def test_on_a_gpu_the_same_seed_gives_the_same_losses(data, training):
    one, other = (fit(data, MODEL, training, device="cuda") for _ in range(2))
    assert losses(one) == losses(other)
    here = fit(data, replace(MODEL, dropout=0.0), training)
    there = fit(data, replace(MODEL, dropout=0.0), training, device="cuda")
    np.testing.assert_allclose(losses(there), losses(here), rtol=1e-3)


def result(epoch, by_horizon, best=False):
    return EpochResult(epoch, 0.0, sum(by_horizon) / len(by_horizon), [], by_horizon, best, 1e-3, 1.0, 1.0)


def history(*losses):
    return [result(epoch, list(each)) for epoch, each in enumerate(losses, 1)]


def test_a_horizon_that_gets_worse_while_others_get_better_is_named():
    rising = history((1.0, 1.0), (1.1, 0.9), (1.2, 0.8), (1.3, 0.7))
    (warning,) = diverging(rising, (1, 12))
    assert warning.startswith("the validation loss of horizon 1 rose over 3 epochs")
    assert diverging(rising[:3], (1, 12)) == []


def test_losses_that_all_rise_or_waver_are_no_news():
    assert diverging(history((1, 1), (2, 2), (3, 3), (4, 4)), (1, 12)) == []
    assert diverging(history((1, 4), (2, 3), (1.5, 2), (4, 1)), (1, 12)) == []
    assert diverging(history((1,), (2,), (3,), (4,)), (1,)) == []


def rates(config, steps, val_losses=()):
    return [rate_factor(config, step, steps, val_losses) for step in range(config.epochs * steps)]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
def test_warming_up_takes_equal_steps_to_the_whole_rate(schedule):
    config = TrainingConfig(epochs=3, warmup=0.5, schedule=schedule)
    assert rates(config, 8)[:4] == [0.25, 0.5, 0.75, 1.0]


def test_constant_stays():
    assert set(rates(TrainingConfig(epochs=3, warmup=0), 8)) == {1.0}


def test_cosine_falls_from_one_to_nearly_nothing_by_halves_at_the_middle():
    config = TrainingConfig(epochs=10, warmup=0, schedule="cosine")
    found = rates(config, 10)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in pairwise(found))
    assert 0 < found[-1] < 0.001
    # A training that is gone on with for longer than was planned does not stand still by accident.
    assert rate_factor(config, 10_000, 10, []) > 0


@pytest.mark.parametrize(
    ("losses", "factor"),
    [
        ([], 1.0),
        ([3, 2, 1], 1.0),
        ([1, 2], 1.0),
        ([1, 2, 3], 0.5),
        ([1, 2, 3, 0.5], 0.5),
        ([1, 2, 3, 4], 0.5),
        ([1, 2, 3, 4, 5], 0.25),
        ([1, 2, 0.9, 2, 3], 0.5),
    ],
)
def test_a_plateau_halves_after_two_epochs_that_were_not_better(losses, factor):
    config = TrainingConfig(epochs=20, warmup=0, schedule="plateau")
    assert rate_factor(config, 100, 10, losses) == factor


def test_matrices_decay_and_levels_do_not():
    model = Network(4, LSTMConfig(layer_norm=True, skip=True), 1)
    decaying, level = parameter_groups(model, 0.01)
    assert (decaying["weight_decay"], level["weight_decay"]) == (0.01, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in level["params"]} == {n for n in names.values() if "bias" in n or "norm" in n}
    assert len(decaying["params"]) + len(level["params"]) == len(names)


def test_averaged_weights_are_an_exponential_mean_and_resume_from_their_state():
    layer = nn.Linear(1, 1, bias=False)
    average, expected = AveragedWeights(layer, 0.9), layer.weight.item()
    for step in range(1, 200):
        nn.init.constant_(layer.weight, float(step))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.applied():
        assert abs(layer.weight.item() - expected) < 1e-3
    assert layer.weight.item() == 199
    other = AveragedWeights(copy.deepcopy(layer), 0.9)
    other.restore(average.state())
    for each in (average, other):
        each.update()
    assert torch.equal(average.means[0], other.means[0])


def test_copies_do_not_follow_the_weights():
    layer = nn.Linear(2, 2)
    kept = on_cpu(layer.state_dict())
    before = kept["weight"].clone()
    nn.init.zeros_(layer.weight)
    assert torch.equal(kept["weight"], before)
