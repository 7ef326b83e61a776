"""A training that takes a second, for the tests that need one."""

from __future__ import annotations

import numpy as np

from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.dataset import training_data

HOUR = 3_600_000
MODEL = ModelConfig(horizons=(1, 3), seq_len=8, hidden_size=6, num_layers=2)
TRAINING = TrainingConfig(epochs=3, batch_size=32, threads=1)


def make_data(bars, model=MODEL, training=TRAINING):
    """Random features of bars, and the training data, scaler and facts made of them."""
    features = np.random.default_rng(0).normal(size=(len(bars), 4)).astype(np.float32)
    return training_data(features, bars.close, bars.timestamp, HOUR, model, training)
