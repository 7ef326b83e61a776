"""Logs of a training besides its run: TensorBoard event files always, MLflow if an address is given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import logger_of
from bitcorn_ray.models.base import EpochResult
from bitcorn_ray.storage.storage import Storage

_log = logger_of(__name__)


class TrainingLogs:
    """Logs of one training: losses by horizon, learning rate and samples per second of each epoch.

    run: storage of the run. Event files are in `tensorboard` there; for a remote run they are written to a local folder
    and published after each epoch. horizons: bars ahead. parameters: plain values. mlflow: address of a server or
    folder, by default MLFLOW_TRACKING_URI.
    Raises BitcornError if MLflow is asked for and not installed.
    """

    def __init__(
        self, run: Storage, horizons: Sequence[int], parameters: Mapping[str, Any], mlflow: str | None = None
    ) -> None:
        self._storage, self._horizons, self._last_epoch = run.child("tensorboard", "event files"), horizons, 0
        self._local: TemporaryDirectory[str] | None = None
        self._events: Any = None
        self._mlflow: Any = None
        if address := mlflow or os.environ.get("MLFLOW_TRACKING_URI"):
            self._mlflow = _import_mlflow()
            self._mlflow.set_tracking_uri(address)
            self._mlflow.set_experiment("bitcorn")
            self._mlflow.start_run(run_name=run.name)
            self._mlflow.log_params(parameters)

    def epoch(self, result: EpochResult) -> None:
        """Log an epoch once, also if a restarted worker repeats it.

        Raises BitcornError if the folder, which is created with the first epoch, cannot be written.
        """
        if result.epoch <= self._last_epoch:
            return
        self._last_epoch = result.epoch
        if self._events is None:
            self._events = self._event_writer()
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
        self._publish()
        if self._mlflow:
            self._mlflow.log_metrics(values, step=result.epoch)

    def close(self) -> None:
        """Finish the event files and MLflow's run."""
        if self._events is not None:
            self._events.close()
            self._publish()
        if self._local is not None:
            self._local.cleanup()
        if self._mlflow:
            self._mlflow.end_run()

    def _event_writer(self) -> Any:
        from tensorboardX import SummaryWriter

        path, remote = self._storage.handle
        if remote is not None:
            self._local = TemporaryDirectory(prefix="bitcorn-tensorboard-")
            path = self._local.name
        try:
            return SummaryWriter(path, flush_secs=1)  # readers look during the training
        except OSError as error:
            raise BitcornError(f"nothing can be written to {path}: {error}") from error

    def _publish(self) -> None:
        """Copy the event files to a remote run. A failure does not end the training."""
        if self._local is None:
            return
        self._events.flush()
        try:
            for file in Path(self._local.name).iterdir():
                self._storage.publish(file.name, file.read_bytes())
        except BitcornError as error:
            _log.warning("TensorBoard does not show this epoch yet: %s", error)


def _import_mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise BitcornError("MLflow is asked for, but not installed: pip install 'bitcorn_ray[mlflow]'") from error
    return mlflow
