"""A model that a user could write."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitcorn_ray.models.base import FitResult, ModelConfig, Prediction, Traits, single_result


@dataclass(frozen=True, kw_only=True)
class FlatConfig(ModelConfig):
    level: float = 0.01


class Flat:
    """The same volatility always."""

    Config = FlatConfig
    traits = Traits()
    needs_known_partition = False

    def __init__(self, config):
        self.config = config

    @classmethod
    def create(cls, config, shape):
        return cls(config)

    def fit(self, data, training, context):
        return FitResult([single_result(self, data, 1.0)])

    def predict(self, windows):
        shape = (len(windows), len(self.config.horizons))
        return Prediction(np.zeros(shape), np.full(shape, self.config.level))

    def history_needed(self, step):
        return 1

    def artifacts(self):
        return {"flat.json": b"{}"}

    @classmethod
    def restore(cls, config, shape, artifacts):
        return cls(config)
