"""What a training logs beside its run: TensorBoard event files always, MLflow where it is asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import EpochResult
from bitcorn_ray.storage.storage import Storage

_log = logging.getLogger(__name__)


class TrainingLogs:
    """Logs of one training: a scalar an epoch for each of loss by horizon, learning rate and samples per second.

    run: where the run will be; the event files lie in `tensorboard` there. They are written in a local folder, and
    published after each epoch where the run is elsewhere. horizons: bars ahead. parameters: in plain values.
    mlflow: address of a server or folder, by default MLFLOW_TRACKING_URI; without either MLflow is left alone.
    Raises BitcornError where MLflow is asked for and not installed.
    """

    def __init__(
        self, run: Storage, horizons: Sequence[int], parameters: Mapping[str, Any], mlflow: str | None = None
    ) -> None:
        self._place, self._horizons, self._last = run.child("tensorboard", "event files"), horizons, 0
        self._local: TemporaryDirectory[str] | None = None
        self._events: Any = None
        self._mlflow: Any = None
        address = mlflow or os.environ.get("MLFLOW_TRACKING_URI")
        if address:
            self._mlflow = _mlflow()
            self._mlflow.set_tracking_uri(address)
            self._mlflow.set_experiment("bitcorn")
            self._mlflow.start_run(run_name=run.name)
            self._mlflow.log_params(parameters)

    def epoch(self, result: EpochResult) -> None:
        """Log an epoch; one that a restarted worker repeats is logged once.

        Raises BitcornError where the folder, which is made with the first epoch, cannot be written.
        """
        if result.epoch <= self._last:
            return
        self._last = result.epoch
        if self._events is None:
            self._events = self._begun()
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
        """Finish the files, and MLflow's run."""
        if self._events is not None:
            self._events.close()
            self._publish()
        if self._local is not None:
            self._local.cleanup()
        if self._mlflow:
            self._mlflow.end_run()

    def _begun(self) -> Any:
        from tensorboardX import SummaryWriter

        path, elsewhere = self._place.handle
        if elsewhere is not None:
            self._local = TemporaryDirectory(prefix="bitcorn-tensorboard-")
            path = self._local.name
        try:
            return SummaryWriter(path, flush_secs=1)  # one looks while it trains
        except OSError as error:
            raise BitcornError(f"nothing can be written to {path}: {error}") from error

    def _publish(self) -> None:
        """Put the event files where the run is; a training does not end because of them."""
        if self._local is None:
            return
        self._events.flush()
        try:
            for file in Path(self._local.name).iterdir():
                self._place.publish(file.name, file.read_bytes())
        except BitcornError as error:
            _log.warning("an epoch cannot be seen in TensorBoard yet: %s", error)


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise BitcornError("MLflow is asked for, but not installed: pip install 'bitcorn_ray[mlflow]'") from error
    return mlflow
