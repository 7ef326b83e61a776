from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import MODEL, TRAINING, fit, make_data

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.models.neural.config import LOSSES, TrainingConfig
from bitcorn_ray.models.neural.losses import (
    Objective,
    directional_penalty,
    gaussian_nll,
    hybrid,
    mean_squared_error,
    robust_nll,
    student_t_nll,
)
from bitcorn_ray.models.neural.model import predict_windows
from bitcorn_ray.models.neural.network import Network

HORIZONS = (1, 4, 12)


def tensors(seed=0, shape=(64, 3)):
    generator = torch.Generator().manual_seed(seed)
    mu, r = (torch.randn(shape, generator=generator) for _ in range(2))
    sigma, v = (torch.rand(shape, generator=generator) + 0.2 for _ in range(2))
    return mu, sigma, r, v


def objective(**changes):
    return Objective(replace(TrainingConfig(), **changes), HORIZONS)


def test_at_one_bar_it_is_the_gaussian_likelihood():
    mu, sigma, r, _ = tensors()
    expected = -torch.distributions.Normal(mu, sigma).log_prob(r) - 0.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(gaussian_nll(mu, sigma, r, r.abs()), expected)


def test_the_best_forecast_is_the_mean_and_the_volatility():
    generator = torch.Generator().manual_seed(0)
    steps = 0.05 + torch.randn((200_000, 4), generator=generator)
    r, v = steps.sum(1, keepdim=True), steps.square().sum(1, keepdim=True).sqrt()
    mu = torch.tensor([[0.2]], requires_grad=True)  # 4 x 0.05
    # E[v^2] = 4 (1 + 0.05^2); the loss's variance is E[v^2] - 2 mu E[r] + mu^2
    sigma = torch.tensor([[(4 * 1.0025 - 0.04) ** 0.5]], requires_grad=True)
    gaussian_nll(mu, sigma, r, v).mean().backward()
    # In units of the gradient's sampling error, about 1 / sqrt(200,000), both are zero.
    assert mu.grad.abs().item() < 0.01
    assert sigma.grad.abs().item() < 0.01


def test_the_robust_likelihood_is_that_of_a_student_t_at_one_bar_up_to_a_constant():
    mu, sigma, r, _ = tensors()
    expected = -torch.distributions.StudentT(12.0, mu, sigma).log_prob(r)
    difference = robust_nll(mu, sigma, r, r.abs(), torch.full((3,), 12.0)) - expected
    torch.testing.assert_close(difference, difference[:1, :1].expand_as(difference), rtol=1e-4, atol=1e-5)


def test_nothing_that_happens_pulls_the_robust_volatility_harder_than_its_bound():
    log_sigma = torch.zeros(5, 1, requires_grad=True)
    realised = torch.tensor([[0.5], [1.0], [3.0], [100.0], [1e4]])
    zero = torch.zeros(5, 1)
    robust_nll(zero, log_sigma.exp(), zero, realised, torch.tensor([12.0])).sum().backward()
    force = -log_sigma.grad[:, 0]
    assert (force.diff() > 0).all()
    assert force[1].abs() < 1e-6  # a realised variance as forecast pulls neither way
    assert force[-1] <= 12.0
    assert force[-1] > 11.9


@pytest.mark.parametrize("freedom", [2.5, 5.0, 40.0])
def test_at_one_bar_it_is_the_student_t_likelihood_of_that_variance(freedom):
    mu, sigma, r, _ = tensors()
    scale = sigma * ((freedom - 2) / freedom) ** 0.5
    expected = -torch.distributions.StudentT(freedom, mu, scale).log_prob(r) - 0.5 * np.log(2 * np.pi)
    nu, one = torch.full((3,), freedom), torch.ones(3)
    torch.testing.assert_close(student_t_nll(mu, sigma, r, r.abs(), nu, one), expected, rtol=1e-4, atol=1e-5)


def test_over_several_bars_it_is_the_density_of_their_path():
    from scipy.stats import multivariate_t

    h, nu, sigma = 4, 5.0, 1.7
    steps = np.random.default_rng(0).normal(size=(6, h))
    # Each step has variance sigma^2 / h; a multivariate t of shape S has variance S nu / (nu - 2).
    shape = np.eye(h) * sigma**2 / h * (nu - 2) / nu
    expected = -multivariate_t(np.zeros(h), shape, nu).logpdf(steps) / h - 0.5 * np.log(2 * np.pi / h)
    given = [torch.tensor(x)[:, None] for x in (np.zeros(6), np.full(6, sigma), steps.sum(1), (steps**2).sum(1) ** 0.5)]
    out = student_t_nll(*given, torch.tensor([nu], dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64))
    np.testing.assert_allclose(out[:, 0], expected, rtol=1e-10)


@pytest.mark.parametrize("horizon", [1, 12])
def test_the_volatility_and_freedom_that_made_student_returns_are_the_best(horizon):
    rng, nu, sigma = np.random.default_rng(0), 5.0, 1.3
    variance = sigma**2 * (nu - 2) / rng.chisquare(nu, 400_000)  # inverse gamma with mean sigma^2
    steps = rng.normal(size=(horizon, len(variance))) * np.sqrt(variance / horizon)
    r, v = (torch.tensor(x, dtype=torch.float32)[:, None] for x in (steps.sum(0), np.sqrt((steps**2).sum(0))))
    fitted = {name: torch.tensor([[value]], requires_grad=True) for name, value in (("sigma", sigma), ("freedom", nu))}
    student_t_nll(
        torch.zeros(1, 1), fitted["sigma"], r, v, fitted["freedom"][0], torch.tensor([float(horizon)])
    ).mean().backward()
    assert fitted["sigma"].grad.abs().item() < 0.01
    assert fitted["freedom"].grad.abs().item() < 0.002


def test_a_student_t_of_many_degrees_is_gaussian_at_one_bar():
    mu, sigma, r, _ = tensors()
    many = torch.full((3,), 1e5, dtype=torch.float64)
    double = [x.double() for x in (mu, sigma, r, r.abs())]
    torch.testing.assert_close(
        student_t_nll(*double, many, torch.ones(3, dtype=torch.float64)), gaussian_nll(*double), rtol=1e-3, atol=1e-3
    )


def test_squared_errors_and_their_mean_with_the_likelihood():
    mu, sigma, r, v = tensors()
    torch.testing.assert_close(mean_squared_error(mu, sigma, r, v), (r - mu) ** 2 + (v - sigma) ** 2)
    both = (gaussian_nll(mu, sigma, r, v) + mean_squared_error(mu, sigma, r, v)) / 2
    torch.testing.assert_close(hybrid(mu, sigma, r, v), both)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", ["uniform", "learned"])
def test_a_volatility_of_zero_gives_finite_losses_and_gradients(name, weights):
    mu, _, r, v = tensors()
    sigma = torch.zeros_like(mu, requires_grad=True)
    loss, _ = objective(loss=name, horizon_weights=weights)(mu, sigma, r, v * 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(sigma.grad).all()


def test_the_penalty_pushes_towards_the_side_that_the_market_took():
    mu = torch.zeros(1, 3, requires_grad=True)
    r = torch.tensor([[2.0, -2.0, 0.0]])
    directional_penalty(mu, r).sum().backward()
    assert mu.grad[0, 0] < 0 < mu.grad[0, 1]
    assert mu.grad[0, 2] == 0
    right, wrong = (directional_penalty(torch.tensor([[m]]), torch.tensor([[1.0]])) for m in (0.5, -0.5))
    assert right < wrong
    # Its gradient stays bounded whatever the return.
    huge = torch.zeros(1, 1, requires_grad=True)
    directional_penalty(huge, torch.tensor([[1e6]])).sum().backward()
    assert huge.grad.abs().item() <= 1


def test_the_penalty_enters_by_its_weight():
    mu, sigma, r, v = tensors()
    plain, _ = objective()(mu, sigma, r, v)
    priced, by_window = objective(directional_penalty=0.5)(mu, sigma, r, v)
    torch.testing.assert_close(priced, plain + 0.5 * directional_penalty(mu, r).mean(1).sum())
    torch.testing.assert_close(by_window, gaussian_nll(mu, sigma, r, v))


def test_given_weights_count_in_proportion():
    mu, sigma, r, v = tensors()
    by_horizon = gaussian_nll(mu, sigma, r, v).sum(0)
    total, _ = objective(horizon_weights=(1.0, 2.0, 3.0))(mu, sigma, r, v)
    torch.testing.assert_close(total, (by_horizon * torch.tensor([1.0, 2.0, 3.0])).sum() / 6)
    with pytest.raises(BitcornError, match="2 horizon_weights for 3 horizons"):
        objective(horizon_weights=(1.0, 2.0))


@pytest.mark.parametrize("name", LOSSES)
def test_the_excess_that_learned_weights_divide_is_never_negative(name):
    judged = objective(loss=name, horizon_weights="learned")
    for seed in range(5):
        mu, sigma, r, v = tensors(seed)
        # Volatilities as good as in hindsight, where plain likelihoods are far below zero.
        for given in (sigma, v, 1e-2 * v):
            excess = judged.by_window(mu * 0.1, given, r * 0.1, v) - judged._least(mu * 0.1, r * 0.1, v)
            assert excess.min() > -1e-5


def test_learned_weights_settle_at_one_over_the_mean_excess():
    judged = objective(horizon_weights="learned")
    mu, sigma, r, v = tensors(shape=(500, 3))
    sigma = sigma * torch.tensor([1.0, 3.0, 9.0])  # ever worse
    optimiser = torch.optim.Adam(judged.parameters(), lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        (judged(mu, sigma, r, v)[0] / 500).backward()
        optimiser.step()
    excess = (judged.by_window(mu, sigma, r, v) - judged._least(mu, r, v)).mean(0)
    torch.testing.assert_close(torch.tensor(judged.learned()["horizon_weights"]), 1 / excess, rtol=0.02, atol=0)


def test_learned_weights_leave_the_gradient_of_a_horizon_in_its_direction():
    mu, sigma, r, v = (x.requires_grad_() for x in tensors())
    plain = torch.autograd.grad(objective()(mu, sigma, r, v)[0], (mu, sigma))
    learned = torch.autograd.grad(objective(horizon_weights="learned")(mu, sigma, r, v)[0], (mu, sigma))
    for one, other in zip(plain, learned, strict=True):
        torch.testing.assert_close(one, other)


def test_degrees_of_freedom_are_given_or_learned():
    given = objective(loss="student_t", degrees_of_freedom=7.0)
    assert given.learned() == {"degrees_of_freedom": [7.0] * 3}
    assert list(given.parameters()) == []
    learned = objective(loss="student_t")
    loss, _ = learned(*tensors())
    loss.backward()
    assert learned.log_freedom.grad.abs().min() > 0
    assert min(learned.learned()["degrees_of_freedom"]) > 2


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
