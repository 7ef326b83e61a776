"""One training from its inputs to its run, wherever the steps are made: in this process or on Ray.

1. Get the inputs. 2. Start anew, or find what to go on from. 3. Train, and log each epoch. 4. Make the run, calibrated
on the validation windows, save it, and remove the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bitcorn_ray.datasets.load import TrainingInputs
from bitcorn_ray.logging import logged, logger_of
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder, data_digest, training_identity
from bitcorn_ray.models.neural.config import ModelConfig, TrainingConfig
from bitcorn_ray.models.neural.machine import own_shape
from bitcorn_ray.models.neural.progress import EpochResult, FitResult, Progress
from bitcorn_ray.models.neural.trainer import fit
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.config import recorded_config
from bitcorn_ray.training.lineage import package_code
from bitcorn_ray.training.run import Run, assemble_run, run_storage, save_run
from bitcorn_ray.training.tracking import TrainingLogs

__all__ = ["TrainingJob", "checkpoint_folder"]

_log = logger_of(__name__)

OnEpoch = Callable[[EpochResult], None]
OnProgress = Callable[[Progress], None]


def checkpoint_folder(run: Storage) -> str:
    """Folder or URI of the checkpoints of a run that is being trained."""
    return run.child("checkpoints").address


@dataclass
class TrainingJob:
    """One training, wherever it runs.

    on_ray: workers, GPUs for each and failures allowed; None: in this process. config: in plain values, for the run's
    lineage; None where a training is given in Python.
    """

    model: ModelConfig
    training: TrainingConfig
    device: str
    artifacts_dir: str | Path | None
    log_fn: Callable[[str], None] | None
    mlflow: str | None = None
    on_ray: tuple[int | tuple[int, int], float, int] | None = None
    config: Mapping[str, Any] | None = None

    def run(
        self,
        inputs: Callable[[], TrainingInputs],
        *,
        resume: bool,
        on_epoch: OnEpoch | None = None,
        on_progress: OnProgress | None = None,
    ) -> Run:
        """Do it. resume: go on from the folder's checkpoints, if any. Raises BitcornError as `fit` and its parts do."""
        folder = run_storage(self.artifacts_dir) if self.artifacts_dir is not None else None
        if folder is not None:
            folder.require_writable()
        with self._session(), logged(_log, "run", **({} if folder is None else {"run": folder.shown})):
            given = inputs()
            self._say_windows(given.about["data"])
            checkpoints = self._folder_of_checkpoints(folder, given, resume)
            train, given = self._where(given, checkpoints, on_progress)
            fitted = self._logged(train, folder, on_epoch)
            run = assemble_run(
                fitted,
                given.data,
                given.scaler,
                self.model,
                self.training,
                given.feature_cols,
                self._about(given, fitted),
            )
        if folder is not None:
            save_run(run, folder.address)
            if checkpoints is not None:
                checkpoints.clear()
            self._say(f"run saved to {shown_uri(str(self.artifacts_dir))}")
        return run

    def _about(self, given: TrainingInputs, fitted: FitResult) -> dict[str, Any]:
        """Facts for the metadata, the lineage complete."""
        if self.on_ray is None:
            shape = own_shape()
        else:
            from bitcorn_ray.on_ray.session import cluster_shape

            shape = cluster_shape()
        data = {**given.about.get("lineage", {}).get("data", {}), "digest": data_digest(given.data)}
        made = {
            "data": data,
            "code": package_code(),
            "config": None if self.config is None else recorded_config(self.config),
            "cluster": {"ray": self.on_ray is not None, **shape, "workers": fitted.machines},
        }
        return {**given.about, "lineage": made}

    def _session(self) -> AbstractContextManager[None]:
        if self.on_ray is None:
            return nullcontext()
        from bitcorn_ray.on_ray.session import ray_session

        return ray_session()

    def _folder_of_checkpoints(
        self, folder: Storage | None, given: TrainingInputs, resume: bool
    ) -> CheckpointFolder | None:
        if folder is None:
            return None
        checkpoints = CheckpointFolder(
            checkpoint_folder(folder), training_identity(given.data, self.model, self.training)
        )
        if found := checkpoints.begin(resume=resume):
            self._say(f"going on after {found['step']:,} steps")
        return checkpoints

    def _where(
        self, given: TrainingInputs, checkpoints: CheckpointFolder | None, on_progress: OnProgress | None
    ) -> tuple[Callable[[OnEpoch], FitResult], TrainingInputs]:
        """Return the function that trains, given what to call after each epoch, and the inputs as it has them."""
        if self.on_ray is None:

            def train_here(told: OnEpoch) -> FitResult:
                with checkpoints.claimed() if checkpoints is not None else nullcontext():
                    return fit(
                        given.data,
                        self.model,
                        self.training,
                        device=self.device,
                        report=told,
                        progress=on_progress,
                        checkpoints=checkpoints,
                    )

            return train_here, given
        from bitcorn_ray.training.distribute import SharedData, fit_on_ray

        assert checkpoints is not None
        shared = SharedData(given.data)
        there = partial(
            fit_on_ray,
            shared,
            self.model,
            self.training,
            workers=self.on_ray[0],
            gpus=self.on_ray[1],
            checkpoints=checkpoints,
            max_failures=self.on_ray[2],
            on_progress=on_progress,
            run=shown_uri(str(self.artifacts_dir)),
        )
        return lambda told: there(on_epoch=told), replace(given, data=shared.data)

    def _logged(
        self, train: Callable[[OnEpoch], FitResult], folder: Storage | None, on_epoch: OnEpoch | None
    ) -> FitResult:
        """Train, log to the run's folder, and hand each epoch on."""
        if folder is None:
            return train(on_epoch or (lambda result: None))
        parameters = {**asdict(self.model), **asdict(self.training)}
        logs = TrainingLogs(folder, self.model.horizons, parameters, self.mlflow)

        def told(result: EpochResult) -> None:
            logs.epoch(result)
            if on_epoch:
                on_epoch(result)

        try:
            return train(told)
        finally:
            logs.close()

    def _say_windows(self, facts: dict[str, Any]) -> None:
        tested = f", {facts['test_windows']:,} are kept for testing" if facts["test_windows"] else ""
        self._say(
            f"{facts['train_windows']:,} windows train, {facts['validation_windows']:,} validate{tested}, "
            f"{facts['purged_windows']} purged between them, {sum(facts['left_out'].values()):,} left out"
        )

    def _say(self, line: str) -> None:
        if self.log_fn:
            self.log_fn(line)
