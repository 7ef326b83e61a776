from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import MODEL, TRAINING, fit, make_data

from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.models.neural.config import LOSSES
from bitcorn_ray.models.neural.model import predict_windows
from bitcorn_ray.models.neural.network import Network


def forecast(data, weights, ends):
    model = Network(data.matrix.shape[1], MODEL, len(data.names))
    model.load_state_dict(weights)
    model.eval()
    return predict_windows(model, data.matrix, data.reference, ends, MODEL.seq_len)[1].astype(np.float64)


@pytest.fixture(scope="module")
def data():
    return make_data(simulate_bars(900, seed=4, gaps=2), simulate_bars(700, seed=5, gaps=0))[0]


@pytest.mark.parametrize("loss", sorted(loss for loss, biased in LOSSES.items() if biased))
def test_the_variance_of_the_training_windows_is_forecast_without_bias(data, loss):
    fitted = fit(data, MODEL, replace(TRAINING, loss=loss, epochs=1))
    ends = data.train_ends
    variance = forecast(data, fitted.weights, ends) ** 2
    np.testing.assert_allclose((data.volatilities[ends] ** 2 / variance).mean(0), 1.0, rtol=1e-4)
    raw = {**fitted.weights, "output_scale": torch.from_numpy(data.output_scale)}
    biased = (data.volatilities[ends] ** 2 / forecast(data, raw, ends) ** 2).mean(0)
    assert np.abs(biased - 1).max() > 0.01


def test_the_gaussian_likelihood_is_left_as_it_is(data):
    assert [loss for loss, biased in LOSSES.items() if not biased] == ["gaussian_nll"]
    fitted = fit(data, MODEL, replace(TRAINING, epochs=1))
    np.testing.assert_array_equal(fitted.weights["output_scale"], data.output_scale)


def test_no_later_window_reaches_the_level(data):
    config = replace(TRAINING, loss="robust_nll", epochs=1, test_frac=0.2)
    bars = simulate_bars(900, seed=4, gaps=0)
    here = make_data(bars, training=config)[0]
    last = int(here.train_ends[-1]) + max(MODEL.horizons)
    volatilities, returns = here.volatilities.copy(), here.returns.copy()
    volatilities[last + 1 :] *= 7
    returns[last + 1 :] *= -3
    moved = replace(here, volatilities=volatilities, returns=returns)
    scales = [fit(each, MODEL, config).weights["output_scale"] for each in (here, moved)]
    torch.testing.assert_close(*scales, rtol=0, atol=0)
