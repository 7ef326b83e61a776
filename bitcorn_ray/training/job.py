"""One training, from its inputs to its run, in this process or on Ray.

1. Get the inputs. 2. Start anew, or find the checkpoint to resume from. 3. Fit the model, and log each epoch. 4. Make
the run, calibrated on the validation windows, save it, and remove the checkpoints.
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
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.models.base import EpochResult, FitContext, FitResult, Model, ModelConfig, Progress, Shape
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder, data_digest, training_identity
from bitcorn_ray.models.neural.config import TrainingConfig
from bitcorn_ray.models.registry import model_class, own_code
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.config import recorded_config
from bitcorn_ray.training.lineage import machine_shape, package_code
from bitcorn_ray.training.run import Run, assemble_run, run_storage, save_run
from bitcorn_ray.training.tracking import TrainingLogs

_log = logger_of(__name__)

OnEpoch = Callable[[EpochResult], None]
OnProgress = Callable[[Progress], None]


def checkpoint_folder(run: Storage) -> str:
    """Return the folder or URI of the checkpoints of a run that is being trained."""
    return run.child("checkpoints").address


@dataclass
class TrainingJob:
    """One training.

    on_ray: workers, GPUs for each and allowed failures; None trains in this process. config: in plain values, for the
    run's lineage; None if a training is given in Python.
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
        """Train and return the run. resume: continue from the folder's checkpoints, if any.

        Raises BitcornError as loading the inputs, fitting the model and saving the run do.
        """
        folder = run_storage(self.artifacts_dir) if self.artifacts_dir is not None else None
        if folder is not None:
            folder.require_writable()
        with self._session(), logged(_log, "run", **({} if folder is None else {"run": folder.shown})):
            given = inputs()
            self._say_windows(given.about["data"])
            checkpoints = self._checkpoints(folder, given, resume)
            fit, given = self._fit_function(given, checkpoints, on_progress)
            model, result = self._logged(fit, folder, on_epoch)
            for note in result.notes:
                self._say(note)
            about = self._about(given, result)
            run = assemble_run(model, result, given.data, given.scaler, self.training, given.feature_cols, about)
        if folder is not None:
            save_run(run, folder.address)
            if checkpoints is not None:
                checkpoints.clear()
            self._say(f"run saved to {shown_uri(str(self.artifacts_dir))}")
        return run

    def _about(self, given: TrainingInputs, result: FitResult) -> dict[str, Any]:
        """Return facts for the metadata, with the complete lineage."""
        if self.on_ray is None:
            shape = machine_shape()
        else:
            from bitcorn_ray.on_ray.session import cluster_shape

            shape = cluster_shape()
        data = {**given.about.get("lineage", {}).get("data", {}), "digest": data_digest(given.data)}
        lineage = {
            "data": data,
            "code": package_code() | own_code(self.model.kind),
            "config": None if self.config is None else recorded_config(self.config),
            "cluster": {"ray": self.on_ray is not None, **shape, "workers": result.machines},
        }
        return {**given.about, "lineage": lineage}

    def _session(self) -> AbstractContextManager[None]:
        if self.on_ray is None:
            return nullcontext()
        from bitcorn_ray.on_ray.session import ray_session

        return ray_session()

    def _checkpoints(self, folder: Storage | None, given: TrainingInputs, resume: bool) -> CheckpointFolder | None:
        if folder is None:
            return None
        identity = training_identity(given.data, self.model, self.training)
        checkpoints = CheckpointFolder(checkpoint_folder(folder), identity)
        if snapshot := checkpoints.begin(resume=resume):
            self._say(f"resuming after {snapshot['step']:,} steps")
        return checkpoints

    def _fit_function(
        self, given: TrainingInputs, checkpoints: CheckpointFolder | None, on_progress: OnProgress | None
    ) -> tuple[Callable[[OnEpoch | None], tuple[Model, FitResult]], TrainingInputs]:
        """Return the function that fits, given a callback for each epoch, and the inputs that it uses."""
        shape = Shape(given.data.matrix.shape[1], len(given.data.names), timeframe_ms(given.about["timeframe"]))
        if self.on_ray is None:

            def fit_here(report: OnEpoch | None) -> tuple[Model, FitResult]:
                context = FitContext(device=self.device, report=report, progress=on_progress, checkpoints=checkpoints)
                model = model_class(self.model.kind).create(self.model, shape)
                with checkpoints.claimed() if checkpoints is not None else nullcontext():
                    return model, model.fit(given.data, self.training, context)

            return fit_here, given
        from bitcorn_ray.training.distribute import SharedData, fit_on_ray

        assert checkpoints is not None
        uses_bars = model_class(self.model.kind).traits.uses_bars
        shared = SharedData(given.data if uses_bars else replace(given.data, bars=()))
        on_workers = partial(
            fit_on_ray,
            shared,
            self.model,
            shape,
            self.training,
            workers=self.on_ray[0],
            gpus=self.on_ray[1],
            checkpoints=checkpoints,
            max_failures=self.on_ray[2],
            on_progress=on_progress,
            run=shown_uri(str(self.artifacts_dir)),
        )
        return lambda report: on_workers(on_epoch=report), replace(given, data=shared.data)

    def _logged(
        self,
        fit: Callable[[OnEpoch | None], tuple[Model, FitResult]],
        folder: Storage | None,
        on_epoch: OnEpoch | None,
    ) -> tuple[Model, FitResult]:
        """Fit, log to the run's folder, and pass each epoch on."""
        if folder is None:
            return fit(on_epoch)
        parameters = {**self.model.to_json(), **asdict(self.training)}
        logs = TrainingLogs(folder, self.model.horizons, parameters, self.mlflow)

        def report(result: EpochResult) -> None:
            logs.epoch(result)
            if on_epoch:
                on_epoch(result)

        try:
            return fit(report)
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
