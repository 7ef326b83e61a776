"""Time NeuralForecast's LSTM on random windows: run by an interpreter that has NeuralForecast, not this package.

    PYTHON_WITH_NEURALFORECAST benchmarks/neuralforecast_peer.py [--hidden D] [--rounds N]

One series, 13 features known of the past beside the series itself, windows of 64, horizon 12, batches of 64 windows,
two layers, dropout 0.2, its default loss (MAE). Its loop is PyTorch Lightning's, logging and checkpoints off; a round
is as many steps as an epoch of 6,000 windows. Times are those between the first and the last step of a training.
Prints one line of JSON: seconds (one a round, after one that warms up), windows and versions.
Made for NeuralForecast 3.3 (``pip install -c constraints.txt 'neuralforecast==3.3.*'``).
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
import warnings
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytorch_lightning as pl  # type: ignore[import-not-found]
from neuralforecast import NeuralForecast  # type: ignore[import-not-found]
from neuralforecast.models import LSTM  # type: ignore[import-not-found]

FEATURES, SEQ_LEN, BATCH, HORIZON, WINDOWS = 14, 64, 64, 12, 6_000
STEPS = WINDOWS // BATCH


class _Clock(pl.Callback):  # type: ignore[misc]
    """Notes when each round of steps ends."""

    times: ClassVar[list[float]] = []  # of all: NeuralForecast trains a copy of the model and its callbacks

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step % STEPS == 0:
            self.times.append(time.perf_counter())


def main() -> None:
    """Train and print the times as JSON."""
    parser = argparse.ArgumentParser(description="Time NeuralForecast's LSTM.")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    rng, rows = np.random.default_rng(0), WINDOWS + SEQ_LEN + HORIZON
    names = [f"x{place}" for place in range(FEATURES - 1)]
    frame = pd.DataFrame(rng.standard_normal((rows, FEATURES - 1), np.float32), columns=names)
    frame["y"] = rng.normal(0, 0.01, rows).astype(np.float32)
    frame["ds"], frame["unique_id"] = pd.date_range("2020-01-01", periods=rows, freq="h"), "random"
    model = LSTM(
        h=HORIZON,
        input_size=SEQ_LEN,
        encoder_n_layers=2,
        encoder_hidden_size=args.hidden,
        encoder_dropout=0.2,
        decoder_hidden_size=args.hidden // 2,
        hist_exog_list=names,
        max_steps=STEPS * (args.rounds + 1),
        batch_size=1,
        windows_batch_size=BATCH,
        val_check_steps=10**6,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[_Clock()],
    )
    NeuralForecast(models=[model], freq="h").fit(frame)
    report = {
        "seconds": np.diff(_Clock.times).tolist(),
        "windows": STEPS * BATCH,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("neuralforecast", "torch", "pytorch-lightning")},
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
