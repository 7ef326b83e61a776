"""A training that takes a second, for the tests that need one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from bitcorn_ray.datasets.dataset import PartitionBars, build_dataset
from bitcorn_ray.datasets.folds import Shares
from bitcorn_ray.models.base import FitContext, FitResult
from bitcorn_ray.models.neural import trainer
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.models.registry import model_config

HOUR = 3_600_000
MODEL = LSTMConfig(horizons=(1, 3), seq_len=8, hidden_size=6, num_layers=2, reference_span=24)
TRAINING = TrainingConfig(epochs=3, batch_size=32, threads=1, deterministic=True)


def partition_bars(bars, symbol="SIM", span=MODEL.reference_span):
    """Return one partition of one-hour bars with its reference volatility."""
    prices = {"close": bars.close, "high": bars.high, "low": bars.low}
    return PartitionBars(symbol=symbol, timeframe="1h", timestamp=bars.timestamp, step=HOUR, **prices).with_reference(
        span
    )


def shares_of(training):
    """Return the shares of the windows that validate and test."""
    return Shares(validation=training.val_frac, test=training.test_frac)


def make_data(*bars, model=MODEL, training=TRAINING):
    """Return the dataset, scaler and facts of random features of one or more partitions of bars."""
    rows = sum(map(len, bars))
    features = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
    partitions = [partition_bars(own, f"SIM{number or ''}", model.reference_span) for number, own in enumerate(bars)]
    return build_dataset(features, partitions, model, shares_of(training))


@dataclass(frozen=True)
class NetworkFit(FitResult):
    """The result of a fit, with the weights of its network."""

    weights: dict[str, Tensor] = field(default_factory=dict)


def fit(data, model, training, **context):
    """Fit a network. context: fields of a `FitContext`."""
    network, result = trainer.fit(data, model, training, FitContext(**context))
    return NetworkFit(**vars(result), weights=network.state_dict())


def changed(config, **options):
    """Return a model configuration with other options, also of another kind."""
    return model_config({**config.to_json(), **options})
