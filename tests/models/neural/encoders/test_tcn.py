import numpy as np
import pytest
import torch
from small_training import TRAINING, fit, make_data

from bitcorn_ray.models.base import FitContext, Shape, WindowSet
from bitcorn_ray.models.neural.config import TCNConfig
from bitcorn_ray.models.neural.encoders.dropout import DropoutSlice, dropout_slice
from bitcorn_ray.models.neural.encoders.tcn import TCNEncoder, blocks_for, receptive_field
from bitcorn_ray.models.neural.model import NetworkModel

CONFIG = TCNConfig(horizons=(1, 3), seq_len=8, channels=6, kernel_size=2, reference_span=24)


@pytest.mark.parametrize(("seq_len", "kernel_size"), [(1, 2), (7, 2), (8, 2), (64, 3), (64, 8)])
def test_the_last_bar_sees_the_whole_window_and_nothing_else(seq_len, kernel_size):
    torch.manual_seed(0)
    blocks = blocks_for(seq_len, kernel_size)
    encoder = TCNEncoder(2, seq_len, 32, kernel_size, 0, 0.0).eval()
    assert len(encoder.blocks) == blocks
    field = receptive_field(blocks, kernel_size)
    assert field >= seq_len
    assert blocks == 1 or receptive_field(blocks - 1, kernel_size) < seq_len
    x = torch.randn(field + 5, 1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder(x).square().sum(), x)
    seen = gradient.abs().sum((1, 2)) > 0
    assert not seen[:5].any()  # bars before the receptive field do not matter
    assert seen[-min(field, seq_len) :].float().mean() > 0.9  # ReLU may hide single bars


def test_states_of_earlier_bars_do_not_depend_on_later_ones():
    torch.manual_seed(0)
    encoder = TCNEncoder(3, 16, 5, 3, 0, 0.0).eval()
    x = torch.randn(16, 4, 3)
    for end in (1, 7, 15):
        torch.testing.assert_close(encoder(x[:end]), encoder(torch.cat([x[:end], x[:0]])))
        changed = x.clone()
        changed[end:] += 100
        torch.testing.assert_close(encoder(changed[:end]), encoder(x[:end]))


def test_parts_of_a_batch_drop_what_the_whole_batch_drops():
    torch.manual_seed(0)
    encoder = TCNEncoder(3, 8, 5, 2, 0, 0.5).train()
    x = torch.randn(8, 11, 3)
    torch.manual_seed(5)
    whole = encoder(x)
    for first, last in ((0, 4), (4, 11)):
        with dropout_slice(DropoutSlice(torch.Generator().manual_seed(5), first, 11)):
            torch.testing.assert_close(encoder(x[:, first:last]), whole[first:last])


def test_training_is_deterministic_and_learns(random_bars):
    data = make_data(random_bars(900, gaps=1), model=CONFIG)[0]
    one, other = (fit(data, CONFIG, TRAINING) for _ in range(2))
    assert [epoch.train_loss for epoch in one.history] == [epoch.train_loss for epoch in other.history]
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    assert one.history[-1].train_loss < one.history[0].train_loss


def test_a_saved_model_forecasts_the_same(random_bars):
    data = make_data(random_bars(600), model=CONFIG)[0]
    shape = Shape(data.matrix.shape[1], 1, 3_600_000)
    model = NetworkModel.create(CONFIG, shape)
    model.fit(data, TRAINING, FitContext())
    windows = WindowSet.of_dataset(data, data.validation_ends, CONFIG)
    forecast, again = model.predict(windows), NetworkModel.restore(CONFIG, shape, model.artifacts()).predict(windows)
    np.testing.assert_array_equal(forecast.returns, again.returns)
    np.testing.assert_array_equal(forecast.volatilities, again.volatilities)
    assert (forecast.volatilities > 0).all()
