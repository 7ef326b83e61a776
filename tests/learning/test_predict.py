import numpy as np
import torch

from bitcorn_ray.learning.model import LSTMMultiHead
from bitcorn_ray.learning.predict import predict_windows


def test_many_windows_at_once_equal_one_by_one():
    torch.manual_seed(0)
    model = LSTMMultiHead(3, horizons=(1, 2), dropout=0.5)  # in training mode: predicting must not drop anything
    matrix = np.random.default_rng(0).normal(size=(1_200, 3)).astype(np.float32)
    ends = np.arange(9, 1_200)
    returns, volatilities = predict_windows(model, matrix, ends, 10)
    assert returns.shape == volatilities.shape == (1_191, 2)
    for row in (0, 700, 1_190):
        window = torch.from_numpy(matrix[ends[row] - 9 : ends[row] + 1])[None]
        with torch.no_grad():
            one, other = model(window)
        np.testing.assert_allclose(returns[row], one[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(volatilities[row], other[0], rtol=1e-4, atol=1e-6)


def test_an_array_that_is_shared_is_not_written_to():
    matrix = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    matrix.flags.writeable = False
    predict_windows(LSTMMultiHead(3), matrix, np.array([49]), 10)
