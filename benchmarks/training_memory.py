"""One training on ten long series in a process of its own.

    python -m benchmarks.training_memory "in process"|"on Ray"

Prints the peak of its memory as JSON, in MiB. In process it is what the system noted (VmHWM). On Ray it is the
sum over this process and its training workers of what is theirs alone and their shares of what they share (PSS),
sampled.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.memory import highest, peak, proc_mib
from benchmarks.training import random_data
from bitcorn_ray.datasets.dataset import Dataset, PartitionBars, build_dataset
from bitcorn_ray.datasets.folds import Shares
from bitcorn_ray.models.base import FitContext, Shape
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.models.neural.trainer import fit

SERIES, BARS, FEATURES, SEQ_LEN = 10, 100_000, 90, 128
MODEL = LSTMConfig(horizons=(1, 4, 12, 24), seq_len=SEQ_LEN)
TRAINING = TrainingConfig(epochs=1, val_frac=0.002)
_WINDOWS = 6_400  # that are trained on: memory does not depend on how many of them


def long_series() -> Dataset:
    """Ten series as a training would hold them: made in place, partition after partition."""
    rng = np.random.default_rng(0)
    matrix = np.empty((SERIES * BARS, FEATURES), np.float32)
    partitions = []
    for place in range(SERIES):
        rng.standard_normal(out=matrix[place * BARS : (place + 1) * BARS], dtype=np.float32)
        close = np.exp(rng.normal(0, 0.01, BARS).cumsum())
        times = np.arange(BARS) * 3_600_000
        bars = PartitionBars(symbol=f"S{place}", timeframe="1h", close=close, timestamp=times, step=3_600_000)
        partitions.append(bars.with_reference(MODEL.reference_span))
    data, _, _ = build_dataset(matrix, partitions, MODEL, Shares(validation=TRAINING.val_frac))
    return replace(data, train_ends=data.train_ends[:: len(data.train_ends) // _WINDOWS].copy())


def main() -> None:
    """Train where the argument says, and print the figures."""
    small = LSTMConfig(horizons=(1,), seq_len=4, hidden_size=4)
    once = TrainingConfig(epochs=1)
    fit(random_data(200, once, small), small, once, FitContext())  # loads what loads lazily
    libraries, started = peak(), time.perf_counter()
    if sys.argv[1] == "in process":
        data = long_series()
        fit(data, MODEL, TRAINING, FitContext())
        most = peak()
        above = most - libraries
    else:
        data, most, above = _on_ray()
    arrays = sum(value.nbytes for value in vars(data).values() if isinstance(value, np.ndarray)) / 2**20
    print(json.dumps({"peak": most, "above": above, "arrays": arrays, "seconds": time.perf_counter() - started}))


def _on_ray() -> tuple[Dataset, float, float]:
    from bitcorn_ray.on_ray.session import ray_session
    from bitcorn_ray.training.distribute import SharedData, fit_on_ray

    data = long_series()
    with ray_session("local"), tempfile.TemporaryDirectory() as folder:
        before = _tree_pss()
        with highest(_tree_pss, seconds=0.2) as most:
            fit_on_ray(
                SharedData(replace(data, bars=())),
                MODEL,
                Shape(FEATURES, SERIES, 3_600_000),
                TRAINING,
                workers=1,
                gpus=0,
                checkpoints=CheckpointFolder(folder),
                max_failures=0,
            )
    return data, most[0], most[0] - before


def _tree_pss() -> float:
    """MiB of this process and its training workers."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = int(folder.name) == os.getpid() or b"RayTrainWorker" in (folder / "cmdline").read_bytes()
            if mine:
                total += proc_mib("Pss:", folder.name, "smaps_rollup")
        except OSError:
            continue
    return total


if __name__ == "__main__":
    main()
