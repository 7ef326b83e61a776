"""Runs without a training: an untrained model, calibrated as a trained one is, for tests of what comes after."""

from __future__ import annotations

import numpy as np
import torch
from small_training import partition_bars, shares_of

from bitcorn_ray.datasets.dataset import build_dataset
from bitcorn_ray.datasets.load import feature_identity
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.models.base import EpochResult, FitResult
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.models.neural.model import NetworkModel
from bitcorn_ray.models.neural.network import Network
from bitcorn_ray.training.run import assemble_run, save_run

MODEL = LSTMConfig(horizons=(1, 4), seq_len=16, hidden_size=8, num_layers=1, reference_span=24)
TRAINING = TrainingConfig(val_frac=0.3)


def make_run(folder, partitions, model=MODEL, training=TRAINING, system="v2", seed=0):
    """Save the run of a model with random weights on 1h bars by symbol, as a training on all of them would."""
    found = find_system(system)
    torch.manual_seed(seed)
    warmup = found.warmup_bars
    matrix = np.concatenate([found.matrix(bars)[:, warmup:].T for bars in partitions.values()])
    rows = [
        partition_bars(bars.take(slice(warmup, None)), symbol, model.reference_span)
        for symbol, bars in partitions.items()
    ]
    data, scaler, facts = build_dataset(np.ascontiguousarray(matrix), rows, model, shares_of(training))
    network = Network(matrix.shape[1], model, len(partitions))
    network.output_scale.copy_(torch.from_numpy(data.output_scale))
    network.typical_reference.fill_(data.typical_reference)
    losses = [0.5] * len(model.horizons)
    epoch = EpochResult(1, 0.5, 0.5, losses, losses, True, 1e-3, 1.0, 100.0)
    about = {
        "symbol": next(iter(partitions)),
        "timeframe": "1h",
        "feature_system": found.spec,
        "feature_version": found.version,
        "features": feature_identity(found.on_grid(3_600_000)),
        "data": facts,
    }
    fitted = NetworkModel(model, network.eval())
    run = assemble_run(fitted, FitResult([epoch]), data, scaler, training, list(found.features), about)
    return save_run(run, folder)
