"""A training that takes a second, for the tests that need one."""

from __future__ import annotations

import numpy as np

from bitcorn_ray.datasets.dataset import PartitionRows, training_data
from bitcorn_ray.market.reference_volatility import reference_volatility
from bitcorn_ray.models.neural.config import ModelConfig, TrainingConfig

HOUR = 3_600_000
MODEL = ModelConfig(horizons=(1, 3), seq_len=8, hidden_size=6, num_layers=2, reference_span=24)
TRAINING = TrainingConfig(epochs=3, batch_size=32, threads=1, deterministic=True)


def rows_of(bars, name="SIM 1h", span=MODEL.reference_span):
    """One partition of one-hour bars."""
    reference = reference_volatility(np.log(bars.close), span) if span else None
    return PartitionRows(name=name, close=bars.close, timestamp=bars.timestamp, step=HOUR, reference=reference)


def make_data(*bars, model=MODEL, training=TRAINING, stops=None):
    """Random features of one or more partitions of bars, and the training data, scaler and facts made of them."""
    rows = sum(map(len, bars))
    features = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
    partitions = [rows_of(each, f"SIM{place or ''} 1h", model.reference_span) for place, each in enumerate(bars)]
    return training_data(features, partitions, model, training, stops)
