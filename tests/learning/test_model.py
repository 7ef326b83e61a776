import torch

from bitcorn_ray.learning.model import LSTM2Head, LSTMMultiHead


def test_outputs_have_a_column_a_horizon_and_volatility_is_positive():
    model = LSTMMultiHead(5, horizons=(1, 4, 12), hidden_size=16)
    returns, volatilities = model(torch.randn(7, 20, 5))
    assert returns.shape == volatilities.shape == (7, 3)
    assert (volatilities > 0).all()


def test_one_horizon_gives_one_value_a_window():
    returns, volatilities = LSTM2Head(5, hidden_size=16)(torch.randn(7, 20, 5))
    assert returns.shape == volatilities.shape == (7,)


def test_outputs_are_in_units_of_their_horizons_scale():
    model = LSTMMultiHead(3, horizons=(1, 4)).eval()
    x = torch.randn(2, 9, 3)
    before = model(x)
    model.output_scale.copy_(torch.tensor([0.01, 0.02]))
    for one, other in zip(model(x), before, strict=True):
        torch.testing.assert_close(one, other * torch.tensor([0.01, 0.02]))


def test_the_forecast_depends_on_the_whole_window_and_on_no_other_window():
    torch.manual_seed(0)
    model = LSTMMultiHead(3, horizons=(1,)).eval()
    x = torch.randn(2, 9, 3)
    base, _ = model(x)
    for step in (0, 8):
        changed = x.clone()
        changed[0, step] += 5
        other, _ = model(changed)
        assert other[0] != base[0]
        torch.testing.assert_close(other[1], base[1])


def test_the_names_of_the_weights_are_those_of_the_older_system():
    names = {name.rsplit(".", 1)[0] for name in LSTMMultiHead(3, horizons=(1, 12)).state_dict()}
    heads = {f"heads_{kind}.{h}.{layer}" for kind in ("ret", "vol") for h in (1, 12) for layer in (0, 2)}
    assert heads | {"lstm"} <= names
