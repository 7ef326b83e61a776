from dataclasses import replace

import numpy as np
import pytest
import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.interpolation import horizon_weights, interpolate
from bitcorn_ray.models.neural.config import GRUConfig, LSTMConfig
from bitcorn_ray.models.neural.model import predict_windows
from bitcorn_ray.models.neural.network import LSTMMultiHead, Network

EVERYTHING = GRUConfig(input_norm=True, layer_norm=True, symbol_embedding=3, skip=True, dropout=0.3)


def small(**changes):
    torch.manual_seed(0)
    return LSTMMultiHead(5, (1, 4), 8, 2, 0.0, **changes).eval()


def test_a_head_for_each_horizon_and_volatilities_above_zero():
    returns, volatilities = small()(torch.randn(7, 16, 5))
    assert returns.shape == volatilities.shape == (7, 2)
    assert (volatilities > 0).all()


def test_what_is_forecast_scales_with_the_reference():
    model = small()
    model.output_scale.copy_(torch.tensor([1.5, 3.0]))
    model.typical_reference.fill_(0.01)
    x = torch.randn(3, 16, 5)
    reference = torch.tensor([0.01, 0.02, 0.5])
    plain, relative = model.standardised(x), model(x, reference)
    for one, other in zip(plain, relative, strict=True):
        torch.testing.assert_close(other, one * reference[:, None] * torch.tensor([1.5, 3.0]))
    torch.testing.assert_close(model(x), model(x, torch.full((3,), 0.01)))


@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_volatilities_are_finite_and_positive_for_any_output_of_the_head(link):
    model = small(volatility_link=link)
    z = torch.tensor([[-50.0, -1.0, 0.0, 1.0, 50.0]])
    volatility = model._volatility(z)
    assert torch.isfinite(volatility).all()
    assert (volatility > 0).all()
    assert (volatility.diff() > 0).all()
    if link == "exp":
        torch.testing.assert_close(model._volatility(torch.tensor([0.3])), torch.tensor([0.3]).exp(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("config", [LSTMConfig(), EVERYTHING, LSTMConfig(num_layers=1, input_norm=True)])
def test_every_parameter_learns(config):
    torch.manual_seed(0)
    model = Network(5, config, symbols=2)
    returns, volatilities = model.standardised(torch.randn(9, 12, 5), torch.arange(9) % 2)
    (returns.sum() + volatilities.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_forecasts_equal_those_of_torchs_layers_and_a_linear_head(cell):
    model = small(cell=cell)
    x = torch.randn(6, 16, 5)
    states, _ = model.encoder.layers(x.transpose(0, 1))
    expected, log = model.heads(states[-1])
    returns, volatilities = model.standardised(x)
    torch.testing.assert_close(returns, expected)
    torch.testing.assert_close(volatilities, (8 * torch.tanh(log / 8)).exp())


def test_the_skip_is_a_linear_map_of_the_last_bar_and_begins_at_nothing():
    x = torch.randn(6, 16, 5)
    with_skip, without = small(skip=True), small()
    without.load_state_dict({n: v for n, v in with_skip.state_dict().items() if not n.startswith("skip")})
    torch.testing.assert_close(with_skip.standardised(x), without.standardised(x))
    torch.nn.init.normal_(with_skip.skip.weight)
    change = with_skip.standardised(x)[0] - without.standardised(x)[0]
    torch.testing.assert_close(change, x[:, -1] @ with_skip.skip.weight[:2].T)


def test_an_embedding_distinguishes_symbols():
    model = Network(5, replace(EVERYTHING, dropout=0.0), symbols=2).eval()
    x = torch.randn(1, 12, 5)
    one, other = (model(x, None, torch.tensor([place]))[0] for place in (0, 1))
    assert not torch.equal(one, other)
    with pytest.raises(BitcornError, match="give symbol_B"):
        model(x)


def test_a_forecast_depends_on_every_bar_of_its_window_and_on_no_other_window():
    torch.manual_seed(0)
    model = LSTMMultiHead(3, (1,), 16, 2, 0.0).eval()
    x = torch.randn(2, 10, 3)
    base, _ = model(x)
    for step in range(10):
        changed = x.clone()
        changed[0, step] += 5
        other, _ = model(changed)
        assert other[0] != base[0]
        torch.testing.assert_close(other[1], base[1])


def test_the_names_of_the_recurrent_weights_are_those_of_the_older_system():
    names = set(LSTMMultiHead(3, horizons=(1, 12)).state_dict())
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assert {f"lstm.{kind}_l{layer}" for kind in kinds for layer in (0, 1)} <= names


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
