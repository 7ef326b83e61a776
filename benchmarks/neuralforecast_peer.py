"""Time NeuralForecast's LSTM on random windows: run by an interpreter that has NeuralForecast, not this package.

    PYTHON_WITH_NEURALFORECAST benchmarks/neuralforecast_peer.py [--hidden D]

One series, 13 features known of the past beside the series itself, windows of 64, horizon 12, batches of 64 windows,
two layers, dropout 0.2, its default loss (MAE). Its loop is PyTorch Lightning's, logging and checkpoints off.
For each line on standard input it trains on, by as many steps as an epoch of 6,000 windows has, and prints a line of
JSON: seconds, windows and versions. The first such round warms up. It ends where the input does.
Made for NeuralForecast 3.3 (``pip install -c constraints.txt 'neuralforecast==3.3.*'``).
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl  # type: ignore[import-not-found]
from neuralforecast import NeuralForecast  # type: ignore[import-not-found]
from neuralforecast.models import LSTM  # type: ignore[import-not-found]

FEATURES, SEQ_LEN, BATCH, HORIZON, WINDOWS = 14, 64, 64, 12, 6_000
STEPS = WINDOWS // BATCH
VERSIONS = {
    "python": platform.python_version(),
    **{package: version(package) for package in ("neuralforecast", "torch", "pytorch-lightning")},
}


class _Turns(pl.Callback):  # type: ignore[misc]
    """Waits for a line before each round of steps, and tells how long the round took."""

    begun = 0.0

    def on_train_start(self, *_: Any) -> None:
        self._wait()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step % STEPS == 0:
            told = {"seconds": time.perf_counter() - self.begun, "windows": STEPS * BATCH, "versions": VERSIONS}
            print(json.dumps(told), flush=True)
            self._wait()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit
        self.begun = time.perf_counter()


def main() -> None:
    """Train, round by round."""
    parser = argparse.ArgumentParser(description="Time NeuralForecast's LSTM.")
    parser.add_argument("--hidden", type=int, default=64)
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
        max_steps=10**6,  # ends when nobody asks any more
        batch_size=1,
        windows_batch_size=BATCH,
        val_check_steps=10**6,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[_Turns()],
    )
    NeuralForecast(models=[model], freq="h").fit(frame)


if __name__ == "__main__":
    main()
