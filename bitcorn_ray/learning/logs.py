"""What a training logs beside its run: TensorBoard event files always, MLflow where it is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.progress import EpochResult

__all__ = ["TrainingLogs"]


class TrainingLogs:
    """Logs of one training: a scalar an epoch for each of loss by horizon, learning rate and samples per second.

    folder: of the event files. horizons: bars ahead. parameters: of the training, in plain values.
    mlflow: address of a server or folder, by default MLFLOW_TRACKING_URI; without either MLflow is left alone.
    Raises BitcornError where MLflow is asked for and not installed.
    """

    def __init__(
        self, folder: Path, horizons: Sequence[int], parameters: Mapping[str, Any], mlflow: str | None = None
    ) -> None:
        self._folder, self._horizons, self._last = folder, horizons, 0
        self._events: Any = None
        self._mlflow: Any = None
        address = mlflow or os.environ.get("MLFLOW_TRACKING_URI")
        if address:
            self._mlflow = _mlflow()
            self._mlflow.set_tracking_uri(address)
            self._mlflow.set_experiment("bitcorn")
            self._mlflow.start_run(run_name=folder.parent.name)
            self._mlflow.log_params(parameters)

    def epoch(self, result: EpochResult) -> None:
        """Log an epoch; one that a restarted worker repeats is logged once.

        Raises BitcornError where the folder, which is made with the first epoch, cannot be written.
        """
        if result.epoch <= self._last:
            return
        self._last = result.epoch
        if self._events is None:
            self._events = _event_files(self._folder)
        values = {
            "loss/train": result.train_loss,
            "loss/validation": result.val_loss,
            "learning_rate": result.learning_rate,
            "samples_per_second": result.samples_per_second,
        }
        for part, losses in (("train", result.train_loss_by_horizon), ("validation", result.val_loss_by_horizon)):
            values |= {f"loss/{part}/{horizon}": loss for horizon, loss in zip(self._horizons, losses, strict=True)}
        for name, value in values.items():
            self._events.add_scalar(name, value, result.epoch)
        if self._mlflow:
            self._mlflow.log_metrics(values, step=result.epoch)

    def close(self) -> None:
        """Finish the files, and MLflow's run."""
        if self._events is not None:
            self._events.close()
        if self._mlflow:
            self._mlflow.end_run()


def _event_files(folder: Path) -> Any:
    from tensorboardX import SummaryWriter

    try:
        return SummaryWriter(str(folder), flush_secs=1)  # one looks while it trains
    except OSError as error:
        raise BitcornError(f"nothing can be written to {folder}: {error}") from error


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise BitcornError("MLflow is asked for, but not installed: pip install 'bitcorn_ray[mlflow]'") from error
    return mlflow
