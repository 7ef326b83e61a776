import pytest
import torch

from bitcorn_ray.models.neural.encoders.dropout import DropoutSlice, drop, dropout_slice


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


def test_parts_of_a_batch_drop_what_the_whole_batch_drops():
    x = torch.randn(7, 11, 3)
    torch.manual_seed(5)
    whole = drop(x, 0.4, True)
    for first, last in ((0, 4), (4, 11)):
        with dropout_slice(DropoutSlice(torch.Generator().manual_seed(5), first, 11)):
            assert torch.equal(drop(x[:, first:last], 0.4, True), whole[:, first:last])


def test_neighbouring_numbers_are_dropped_independently():
    torch.manual_seed(0)
    kept = (drop(torch.ones(1_000_000), 0.5, True) > 0).float() - 0.5
    for distance in (1, 2, 7, 8, 64):
        assert abs((kept[:-distance] * kept[distance:]).mean().item() * 4) < 0.005
