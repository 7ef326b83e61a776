import pytest
import torch
from torch import nn

from bitcorn_ray.models.neural.encoders.recurrent import Draw, drop, last_state


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("layers", [1, 3])
def test_layer_by_layer_is_the_whole_stack(kind, layers):
    torch.manual_seed(0)
    stack = kind(4, 6, layers)
    x = torch.randn(9, 5, 4, requires_grad=True)
    ours, theirs = last_state(stack, None, x), stack(x)[0][-1]
    torch.testing.assert_close(ours, theirs)
    weights = [x, *stack.parameters()]
    for one, other in zip(
        torch.autograd.grad(ours.square().sum(), weights),
        torch.autograd.grad(theirs.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_norms_apply_to_each_layers_states():
    torch.manual_seed(0)
    stack = nn.LSTM(4, 6, 2)
    norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(2))
    x = torch.randn(9, 5, 4)
    one, other = nn.LSTM(4, 6), nn.LSTM(6, 6)
    for layer, alone in enumerate((one, other)):
        alone.load_state_dict({n: stack.state_dict()[n.replace("_l0", f"_l{layer}")] for n in alone.state_dict()})
    expected = norms[1](other(norms[0](one(x)[0]))[0])[-1]
    torch.testing.assert_close(last_state(stack, norms, x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_dropout_zeroes_its_share_and_keeps_the_mean(share, dtype):
    torch.manual_seed(0)
    x = torch.ones(401, 997, dtype=dtype, requires_grad=True)  # an odd count, no multiple of eight bytes
    y = drop(x, share, True)
    threshold = round(share * 256) / 256
    dropped = (y == 0).float().mean().item()
    assert dropped == pytest.approx(threshold, abs=5 * (threshold / 400_000) ** 0.5)
    assert y.float().max().item() == pytest.approx(1 / (1 - threshold), rel=1e-2)
    gradient = torch.autograd.grad(y.sum(), x)[0]
    torch.testing.assert_close(gradient, y.detach())


def test_dropout_does_nothing_out_of_training_and_repeats_by_the_seed():
    x = torch.randn(50, 50)
    assert drop(x, 0.3, False) is x
    assert drop(x, 0.0, True) is x
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(drop(x, 0.3, True))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_shares_of_a_batch_drop_what_the_whole_batch_does():
    x = torch.randn(7, 11, 3)
    torch.manual_seed(5)
    whole = drop(x, 0.4, True)
    for first, last in ((0, 4), (4, 11)):
        draw = Draw(torch.Generator().manual_seed(5), first, 11)
        assert torch.equal(drop(x[:, first:last], 0.4, True, draw), whole[:, first:last])


def test_neighbouring_numbers_are_dropped_independently():
    torch.manual_seed(0)
    kept = (drop(torch.ones(1_000_000), 0.5, True) > 0).float() - 0.5
    for distance in (1, 2, 7, 8, 64):
        assert abs((kept[:-distance] * kept[distance:]).mean().item() * 4) < 0.005


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_gpu_all_layers_at_once_are_the_layers_one_by_one():
    stack = nn.LSTM(4, 6, 2).cuda()
    x = torch.randn(9, 5, 4, device="cuda")
    with torch.backends.cudnn.flags(allow_tf32=False):
        at_once = last_state(stack, None, x).cpu()
    torch.testing.assert_close(at_once, last_state(stack.cpu(), None, x.cpu()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("layerwise", [False, True])
def test_small_gradients_do_not_vanish_in_bfloat16_on_a_gpu(kind, layerwise):
    torch.manual_seed(0)
    stack, x = kind(4, 8, 2).cuda(), torch.randn(9, 5, 4, device="cuda")
    norms = nn.ModuleList([nn.Identity(), nn.Identity()]) if layerwise else None

    def gradients():
        return torch.autograd.grad(1e-8 * last_state(stack, norms, x).float().square().sum(), list(stack.parameters()))

    with torch.autocast("cuda", torch.bfloat16):
        assert last_state(stack, norms, x).dtype == torch.bfloat16
        rounded = gradients()
    for ours, exact in zip(rounded, gradients(), strict=True):
        assert (ours - exact).norm() < 0.05 * exact.norm()
