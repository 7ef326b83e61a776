import copy

import torch
from torch import nn

from bitcorn_ray.models.neural.config import LSTMConfig
from bitcorn_ray.models.neural.network import Network
from bitcorn_ray.models.neural.trainer import AveragedWeights, on_cpu, parameter_groups


def test_matrices_decay_and_levels_do_not():
    model = Network(4, LSTMConfig(layer_norm=True, skip=True), 1)
    decaying, level = parameter_groups(model, 0.01)
    assert (decaying["weight_decay"], level["weight_decay"]) == (0.01, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in level["params"]} == {n for n in names.values() if "bias" in n or "norm" in n}
    assert len(decaying["params"]) + len(level["params"]) == len(names)


def test_the_mean_of_weights_is_the_exponential_one_and_goes_on_from_its_state():
    layer = nn.Linear(1, 1, bias=False)
    average, expected = AveragedWeights(layer, 0.9), layer.weight.item()
    for step in range(1, 200):
        nn.init.constant_(layer.weight, float(step))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.applied():
        assert abs(layer.weight.item() - expected) < 1e-3
    assert layer.weight.item() == 199
    other = AveragedWeights(copy.deepcopy(layer), 0.9)
    other.restore(average.state())
    for each in (average, other):
        each.update()
    assert torch.equal(average.means[0], other.means[0])


def test_copies_do_not_follow_the_weights():
    layer = nn.Linear(2, 2)
    kept = on_cpu(layer.state_dict())
    before = kept["weight"].clone()
    nn.init.zeros_(layer.weight)
    assert torch.equal(kept["weight"], before)
