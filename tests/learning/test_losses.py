import pytest
import torch

from bitcorn_ray.learning.losses import LOSS_FUNCTIONS, gaussian_nll, hybrid, mean_squared_error


def tensors(seed=0, shape=(64, 3)):
    generator = torch.Generator().manual_seed(seed)
    mu, r = (torch.randn(shape, generator=generator) for _ in range(2))
    sigma, v = (torch.rand(shape, generator=generator) + 0.2 for _ in range(2))
    return mu, sigma, r, v


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


def test_squared_errors_and_their_mean_with_the_likelihood():
    mu, sigma, r, v = tensors()
    torch.testing.assert_close(mean_squared_error(mu, sigma, r, v), (r - mu) ** 2 + (v - sigma) ** 2)
    both = (gaussian_nll(mu, sigma, r, v) + mean_squared_error(mu, sigma, r, v)) / 2
    torch.testing.assert_close(hybrid(mu, sigma, r, v), both)


@pytest.mark.parametrize("name", sorted(LOSS_FUNCTIONS))
def test_a_volatility_of_zero_gives_finite_losses_and_gradients(name):
    mu, _, r, v = tensors()
    sigma = torch.zeros_like(mu, requires_grad=True)
    loss = LOSS_FUNCTIONS[name](mu, sigma, r, v).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(sigma.grad).all()
