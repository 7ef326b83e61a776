import warnings

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_training import MODEL, make_data

from bitcorn_ray.models.neural.batches import (
    DeviceData,
    derive_seed,
    gather,
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
