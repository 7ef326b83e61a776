import numpy as np
import pytest
import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.interpolation import horizon_weights, interpolate
from bitcorn_ray.models.neural.model import predict_windows
from bitcorn_ray.models.neural.network import LSTMMultiHead


@pytest.mark.parametrize("options", [{}, {"cell": "gru", "layer_norm": True, "input_norm": True, "skip": True}])
def test_many_windows_at_once_equal_one_by_one(options):
    torch.manual_seed(0)
    # In training mode: predicting must not drop anything.
    model = LSTMMultiHead(3, horizons=(1, 2), dropout=0.5, **options).train()
    rng = np.random.default_rng(0)
    matrix, reference = rng.normal(size=(1_200, 3)).astype(np.float32), rng.uniform(0.01, 0.1, 1_200)
    reference = reference.astype(np.float32)
    ends = np.arange(9, 1_200)
    returns, volatilities = predict_windows(model, matrix, reference, ends, 10)
    assert returns.shape == volatilities.shape == (1_191, 2)
    for row in (0, 700, 1_190):
        window = torch.from_numpy(matrix[ends[row] - 9 : ends[row] + 1])[None]
        with torch.no_grad():
            one, other = model.eval()(window, torch.from_numpy(reference[ends[row], None]))
        np.testing.assert_allclose(returns[row], one[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(volatilities[row], other[0], rtol=1e-5, atol=1e-7)


def test_threads_share_batches_and_are_as_many_afterwards():
    torch.manual_seed(0)
    model, matrix = LSTMMultiHead(3, hidden_size=8), np.random.default_rng(0).normal(size=(2_000, 3)).astype(np.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = predict_windows(model, matrix, None, np.arange(9, 2_000), 10)
        torch.set_num_threads(2)
        shared = predict_windows(model, matrix, None, np.arange(9, 2_000), 10)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, other)


def test_ends_may_come_in_any_order_and_the_symbols_with_them():
    torch.manual_seed(1)
    model = LSTMMultiHead(3, symbols=2, symbol_embedding=2, hidden_size=8)
    matrix = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    ends, symbols = np.array([50, 20, 20]), np.array([0, 1, 0])
    together, _ = predict_windows(model, matrix, None, ends, 10, symbols)
    apart = [predict_windows(model, matrix, None, ends[n : n + 1], 10, symbols[n : n + 1])[0][0] for n in range(3)]
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-7)
    assert not np.allclose(together[1], together[2])


def test_no_windows_give_no_forecasts():
    returns, volatilities = predict_windows(
        LSTMMultiHead(3), np.zeros((20, 3), np.float32), None, np.array([], int), 10
    )
    assert returns.shape == volatilities.shape == (0, 3)


def test_an_array_that_is_shared_is_not_written_to():
    matrix = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    matrix.flags.writeable = False
    predict_windows(LSTMMultiHead(3), matrix, None, np.array([49]), 10)


def test_return_and_variance_are_linear_between_horizons():
    rng = np.random.default_rng(0)
    returns, volatilities = rng.normal(size=(5, 3)), rng.uniform(1, 2, (5, 3))
    between, spread = interpolate(returns, volatilities, horizon_weights((12, 1, 4), [1, 2, 4, 9, 12]))
    for found, known in ((between, returns), (spread, volatilities)):
        np.testing.assert_allclose(found[:, [4, 0, 2]], known)
    # 9 lies 5/8 of the way from 4 to 12.
    np.testing.assert_allclose(between[:, 3], 3 / 8 * returns[:, 2] + 5 / 8 * returns[:, 0])
    np.testing.assert_allclose(spread[:, 3] ** 2, 3 / 8 * volatilities[:, 2] ** 2 + 5 / 8 * volatilities[:, 0] ** 2)


@pytest.mark.parametrize("asked", [[0], [13], [2, 99], [], [float("nan")]])
def test_a_horizon_outside_of_those_trained_on_is_refused(asked):
    with pytest.raises(BitcornError, match="cannot be interpolated: the model was trained on 1, 4, 12"):
        horizon_weights((1, 12, 4), asked)
