import pytest
import torch
from torch import nn

from bitcorn_ray.models.neural.network import Heads, from_per_horizon_heads

HORIZONS = (1, 4, 12)


def old_heads(hidden=10):
    """The older system's layout: a module a horizon."""

    def head():
        return nn.Sequential(nn.Linear(hidden, hidden // 2), nn.ReLU(), nn.Linear(hidden // 2, 1))

    return nn.ModuleDict(
        {f"heads_{kind}": nn.ModuleDict({str(h): head() for h in HORIZONS}) for kind in ("ret", "vol")}
    )


def test_all_heads_at_once_say_what_one_by_one_they_say():
    torch.manual_seed(0)
    old, heads = old_heads(), Heads(10, 3)
    state = {**old.state_dict(), "lstm.weight": torch.ones(1)}
    converted = from_per_horizon_heads(state, HORIZONS)
    assert set(converted) == {"lstm.weight", *(f"heads.{name}" for name in heads.state_dict())}
    heads.load_state_dict({name.removeprefix("heads."): v for name, v in converted.items() if name != "lstm.weight"})
    x = torch.randn(7, 10)
    for out, kind in zip(heads(x), ("ret", "vol"), strict=True):
        expected = torch.cat([old[f"heads_{kind}"][str(h)](x) for h in HORIZONS], 1)
        torch.testing.assert_close(out, expected)


def test_a_horizon_without_a_head_is_named():
    with pytest.raises(KeyError, match=r"heads_ret\.24"):
        from_per_horizon_heads(old_heads().state_dict(), (1, 24))
