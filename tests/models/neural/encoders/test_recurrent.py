import pytest
import torch
from torch import nn

from bitcorn_ray.models.neural.encoders.recurrent import RecurrentEncoder


def last_state(stack, norms, x):
    """Return the state that an encoder of given layers makes of windows (L, B, F)."""
    cell = "lstm" if isinstance(stack, nn.LSTM) else "gru"
    encoder = RecurrentEncoder(stack.input_size, stack.hidden_size, stack.num_layers, 0.0, cell=cell, layer_norm=False)
    encoder.layers, encoder.norms = stack, norms
    return encoder(x)


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
