from dataclasses import replace

import pytest
import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.config import GRUConfig, LSTMConfig
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
def test_volatilities_are_finite_and_positive_whatever_the_head_says(link):
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
def test_it_is_what_torchs_own_layers_and_a_linear_head_say(cell):
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


def test_symbols_are_told_apart_by_an_embedding_only():
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
