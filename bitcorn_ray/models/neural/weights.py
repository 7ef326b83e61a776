"""Weights: which of them decay, their moving average, and copies of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AveragedWeights", "on_cpu", "parameter_groups"]


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for the optimiser: matrices decay; biases, norms and single numbers, which have a level, do not."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}


class AveragedWeights:
    """Exponential mean of a model's weights over the steps (Polyak & Juditsky 1992).

    decay: of a step. Early on it is (1 + n) / (10 + n) after n steps, so that the beginning is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.weights = [parameter.detach() for parameter in model.parameters()]
        self.means = [weight.clone() for weight in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take a step's weights into the mean."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.means, self.weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the mean for the length of a block."""
        own = [weight.clone() for weight in self.weights]
        torch._foreach_copy_(self.weights, self.means)
        try:
            yield
        finally:
            torch._foreach_copy_(self.weights, own)

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes, in plain values and tensors."""
        return {"steps": self.steps, "means": [mean.to("cpu", copy=True) for mean in self.means]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.steps = state["steps"]
        torch._foreach_copy_(self.means, [mean.to(self.means[0].device) for mean in state["means"]])
