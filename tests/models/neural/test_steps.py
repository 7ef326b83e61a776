import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_training import MODEL, TRAINING, changed, fit, make_data

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.losses import Objective
from bitcorn_ray.models.neural.network import Network
from bitcorn_ray.models.neural.steps import (
    DeviceData,
    Steps,
    derive_seed,
    gather,
    part_count,
    shards,
    shared_tensor,
    shuffled,
    steps_per_epoch,
)


@given(seq_len=st.integers(1, 20), ends=st.lists(st.integers(20, 59), min_size=1, max_size=9))
def test_gathering_equals_slicing(seq_len, ends):
    matrix = torch.randn(60, 3)
    windows = gather(matrix, torch.tensor(ends), seq_len)
    assert windows.shape == (len(ends), seq_len, 3)
    for window, end in zip(windows, ends, strict=True):
        assert torch.equal(window, matrix[end - seq_len + 1 : end + 1])


def test_windows_are_time_major_in_memory():
    assert gather(torch.randn(50, 3), torch.arange(10, 20), 8).transpose(0, 1).is_contiguous()


def test_a_batch_has_its_partition_and_targets_in_its_own_units(random_bars):
    data, _, _ = make_data(random_bars(300), random_bars(300, seed=4), random_bars(200, seed=5))
    ends = np.array([50, 299, 300, 310, 600, 650])
    batch = DeviceData(data, MODEL.seq_len, torch.device("cpu")).batch(torch.tensor(ends))
    assert batch.symbol_B.tolist() == [0, 0, 1, 1, 2, 2]
    unit = data.reference[ends, None] * data.output_scale
    np.testing.assert_allclose(batch.return_BH, data.returns[ends] / unit, rtol=1e-6)
    np.testing.assert_allclose(batch.realised_BH, data.volatilities[ends] / unit, rtol=1e-6)


def test_tensors_share_the_arrays_memory_without_a_word_even_where_it_cannot_be_written():
    array = np.arange(6.0)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = shared_tensor(array)
    assert tensor.data_ptr() == array.ctypes.data


@given(windows=st.integers(1, 200), batch_size=st.integers(5, 64), world=st.integers(1, 5), start=st.integers(0, 3))
def test_shards_are_disjoint_complete_and_of_equal_steps(windows, batch_size, world, start):
    order = torch.arange(windows)
    steps = steps_per_epoch(windows, batch_size, world)
    each = [list(shards(order, batch_size, rank, world, start)) for rank in range(world)]
    assert {len(one) for one in each} == {max(steps - start, 0)}
    for step, parts in enumerate(zip(*each, strict=True), start):
        together = torch.cat([ends for ends, _ in parts])
        expected = order[step * batch_size : (step + 1) * batch_size]
        assert sorted(together.tolist()) == expected.tolist()
        assert {count for _, count in parts} == {len(expected)}
        assert min(len(ends) for ends, _ in parts) > 0
    # What no step has is less than one window a worker.
    assert windows - min(steps * batch_size, windows) < max(world, 1)


def test_every_epoch_has_its_own_order_of_all_windows():
    ends = torch.arange(100, 200)
    first, again, second, other = (shuffled(ends, *at) for at in ((0, 0), (0, 0), (0, 1), (1, 0)))
    assert torch.equal(first, again)
    for each in (first, second, other):
        assert torch.equal(each.sort().values, ends)
    assert len({tuple(each.tolist()) for each in (ends, first, second, other)}) == 4


def test_mixed_seeds_differ():
    assert len({derive_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}) == 1_000
    assert derive_seed(1) != derive_seed(0, 1)


BROAD = replace(TRAINING, batch_size=50, threads=2, epochs=2)
WIDE = replace(MODEL, hidden_size=8, seq_len=8)


@pytest.fixture
def data(random_bars):
    return make_data(random_bars(500, gaps=1), random_bars(300, seed=4))[0]


@pytest.fixture
def small_shares(monkeypatch):
    monkeypatch.setattr("bitcorn_ray.models.neural.steps._SMALLEST_WORK", 1)


def stepper(data, shares, **options):
    torch.manual_seed(0)
    model = Network(data.matrix.shape[1], changed(WIDE, **options), 2)
    rows = DeviceData(data, WIDE.seq_len, torch.device("cpu"))
    return Steps(model.train(), Objective(TRAINING, WIDE.horizons), rows, shares)


@pytest.mark.parametrize("options", [{}, {"kind": "gru", "layer_norm": True}, {"skip": True, "symbol_embedding": 2}])
@pytest.mark.parametrize("shares", [2, 3])
def test_parts_give_the_gradients_of_the_whole_batch(data, shares, options):
    ends = torch.from_numpy(data.train_ends[:50])
    whole, shared = stepper(data, 1, **options), stepper(data, shares, **options)
    torch.manual_seed(9)
    expected = whole.gradients(ends, 0.02, "float32", 9)
    with shared.threads():
        losses = shared.gradients(ends, 0.02, "float32", 9)
        first = [parameter.grad for parameter in shared.parameters]
        assert torch.equal(shared.gradients(ends, 0.02, "float32", 9), losses)
        assert all(torch.equal(p.grad, g) for p, g in zip(shared.parameters, first, strict=True))
        shared.try_out(ends, "bfloat16")
    torch.testing.assert_close(losses, expected)
    for ours, theirs in zip(shared.parameters, whole.parameters, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_threads_are_given_back(data):
    before = torch.get_num_threads()
    with stepper(data, 2).threads():
        assert torch.get_num_threads() == max(1, before // 2)
    assert torch.get_num_threads() == before


def test_a_training_in_parts_is_reproducible_and_close_to_one_thread(data, small_shares):
    one, other = (fit(data, WIDE, BROAD) for _ in range(2))
    assert [e.train_loss for e in one.history] == [e.train_loss for e in other.history]
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    alone = fit(data, WIDE, replace(BROAD, threads=1))
    np.testing.assert_allclose([e.train_loss for e in one.history], [e.train_loss for e in alone.history], rtol=1e-4)


def test_a_non_finite_loss_is_found_in_any_part(data, small_shares):
    broken = replace(data, returns=data.returns.copy())
    broken.returns[data.train_ends[7]] = np.nan
    with pytest.raises(BitcornError, match="not finite in epoch 1"):
        fit(broken, WIDE, BROAD)


def test_a_failing_part_fails_the_step(data):
    shared = stepper(data, 2)
    ends = torch.from_numpy(data.train_ends[:50].copy())
    ends[-1] = 10**9
    with shared.threads(), pytest.raises(IndexError):
        shared.gradients(ends, 1.0, "float32", 0)


def test_small_batches_are_not_divided():
    assert part_count(2, 64, 64 * 64) == 2
    assert part_count(8, 64, 64 * 64) == 4
    assert part_count(2, 8, 64 * 256) == 1
    assert part_count(2, 64, 8 * 8) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_steps_on_a_gpu_give_the_gradients_of_launched_ones(data, precision):
    rows = DeviceData(data, WIDE.seq_len, torch.device("cuda"))

    def steps(**recorded):
        torch.manual_seed(0)
        model = Network(data.matrix.shape[1], replace(WIDE, dropout=0.0), 2).cuda().train()
        return Steps(model, Objective(TRAINING, WIDE.horizons).cuda(), rows, **recorded)

    launched, recorded = steps(), steps(recorded=50)
    ends = torch.from_numpy(data.train_ends[:130]).cuda()
    for own in ends.split(50):  # the last is smaller, and launched
        losses = [each.gradients(own, 0.02, precision, 0).clone() for each in (launched, recorded)]
        torch.testing.assert_close(*losses)
        for ours, theirs in zip(recorded.parameters, launched.parameters, strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
            ours.data += 0.01
            theirs.data += 0.01
