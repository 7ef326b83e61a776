"""One training, from its inputs to its run, in this process or on Ray.

1. Get the inputs. 2. Start anew, or find the checkpoint to resume from. 3. Fit the model, and log each epoch. 4. Make
the run, calibrated on the validation windows, save it, and remove the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from bitcorn_ray.datasets.load import TrainingInputs
from bitcorn_ray.logging import logged, logger_of
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.models.base import EpochResult, FitContext, FitResult, Model, ModelConfig, Progress, Shape
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder, data_digest, training_identity
from bitcorn_ray.models.neural.config import TrainingConfig
from bitcorn_ray.models.registry import model_class, own_code
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.config import RunConfig, recorded_config
from bitcorn_ray.training.lineage import machine_shape, package_code
from bitcorn_ray.training.run import Run, assemble_run, run_storage, save_run
from bitcorn_ray.training.tracking import TrainingLogs

if TYPE_CHECKING:
    from bitcorn_ray.training.distribute import SharedData

_log = logger_of(__name__)

OnEpoch = Callable[[EpochResult], None]
OnProgress = Callable[[Progress], None]


def checkpoint_folder(run: Storage) -> str:
    """Return the folder or URI of the checkpoints of a run that is being trained."""
    return run.child("checkpoints").address


class RayWorkers(NamedTuple):
    """The Ray workers of a training: their number, or the least and the most, and the GPUs of one worker."""

    workers: int | tuple[int, int]
    gpus: float = 0
    max_failures: int = 3


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training.

    out: folder or URI of the run, None to save nothing. device: of a training in this process. ray: workers, None to
    train in this process. config: plain values for the run's lineage, None for a training that is given in Python.
    """

    model: ModelConfig
    training: TrainingConfig
    out: str | Path | None = None
    device: str = "cpu"
    ray: RayWorkers | None = None
    mlflow: str | None = None
    config: Mapping[str, Any] | None = None
    log_fn: Callable[[str], None] | None = None

    @classmethod
    def of(cls, config: RunConfig, *, max_failures: int = 3, log_fn: Callable[[str], None] | None = None) -> Self:
        """Return the training of a configuration."""
        return cls(
            model=config.model,
            training=config.training,
            out=config.out,
            device="cuda" if config.gpus else "cpu",
            ray=RayWorkers(config.workers, config.gpus, max_failures) if config.workers else None,
            mlflow=config.mlflow,
            config=config.to_json(),
            log_fn=log_fn,
        )

    def run(
        self,
        inputs: Callable[[], TrainingInputs],
        *,
        resume: bool = False,
        on_epoch: OnEpoch | None = None,
        on_progress: OnProgress | None = None,
    ) -> Run:
        """Train and return the run. resume: continue from the folder's checkpoints, if any.

        Raises BitcornError as loading the inputs, fitting the model and saving the run do.
        """
        folder = run_storage(self.out) if self.out is not None else None
        if folder is not None:
            folder.require_writable()
        with self._ray_session(), logged(_log, "run", **({} if folder is None else {"run": folder.shown})):
            given = inputs()
            self._log_windows(given.about["data"])
            checkpoints = self._checkpoints(folder, given, resume)
            shared = self._shared(given)
            if shared is not None:
                given = replace(given, data=shared.data)  # frees the copy outside of the object store
            with self._logging(folder, on_epoch) as report:
                model, result = self._fit(given, shared, checkpoints, report, on_progress)
            for note in result.notes:
                self._write_line(note)
            about = {**given.about, "lineage": self._lineage(given, result)}
            run = assemble_run(model, result, given.data, given.scaler, self.training, given.feature_cols, about)
        if folder is not None:
            save_run(run, folder.address)
            if checkpoints is not None:
                checkpoints.clear()
            self._write_line(f"run saved to {shown_uri(str(self.out))}")
        return run

    def _ray_session(self) -> AbstractContextManager[None]:
        if self.ray is None:
            return nullcontext()
        from bitcorn_ray.on_ray.session import ray_session

        return ray_session()

    def _checkpoints(self, folder: Storage | None, given: TrainingInputs, resume: bool) -> CheckpointFolder | None:
        if folder is None:
            return None
        identity = training_identity(given.data, self.model, self.training)
        checkpoints = CheckpointFolder(checkpoint_folder(folder), identity)
        if snapshot := checkpoints.begin(resume=resume):
            self._write_line(f"resuming after {snapshot['step']:,} steps")
        return checkpoints

    def _shared(self, given: TrainingInputs) -> SharedData | None:
        """Return the dataset in Ray's object store, None without Ray."""
        if self.ray is None:
            return None
        from bitcorn_ray.training.distribute import SharedData

        uses_bars = model_class(self.model.kind).traits.uses_bars
        return SharedData(given.data if uses_bars else replace(given.data, bars=()))

    @contextmanager
    def _logging(self, folder: Storage | None, on_epoch: OnEpoch | None) -> Iterator[OnEpoch | None]:
        """Yield a callback that logs an epoch to the run's folder and passes it on."""
        if folder is None:
            yield on_epoch
            return
        logs = TrainingLogs(folder, self.model.horizons, {**self.model.to_json(), **asdict(self.training)}, self.mlflow)

        def report(result: EpochResult) -> None:
            logs.epoch(result)
            if on_epoch:
                on_epoch(result)

        try:
            yield report
        finally:
            logs.close()

    def _fit(
        self,
        given: TrainingInputs,
        shared: SharedData | None,
        checkpoints: CheckpointFolder | None,
        report: OnEpoch | None,
        on_progress: OnProgress | None,
    ) -> tuple[Model, FitResult]:
        shape = Shape(given.data.matrix.shape[1], len(given.data.names), timeframe_ms(given.about["timeframe"]))
        if self.ray is None or shared is None:
            model = model_class(self.model.kind).create(self.model, shape)
            context = FitContext(device=self.device, report=report, progress=on_progress, checkpoints=checkpoints)
            with checkpoints.claimed() if checkpoints is not None else nullcontext():
                return model, model.fit(given.data, self.training, context)
        from bitcorn_ray.training.distribute import fit_on_ray

        assert checkpoints is not None
        return fit_on_ray(
            shared,
            self.model,
            shape,
            self.training,
            workers=self.ray.workers,
            gpus=self.ray.gpus,
            checkpoints=checkpoints,
            max_failures=self.ray.max_failures,
            on_epoch=report,
            on_progress=on_progress,
            run=shown_uri(str(self.out)),
        )

    def _lineage(self, given: TrainingInputs, result: FitResult) -> dict[str, Any]:
        if self.ray is None:
            shape = machine_shape()
        else:
            from bitcorn_ray.on_ray.session import cluster_shape

            shape = cluster_shape()
        return {
            "data": {**given.about.get("lineage", {}).get("data", {}), "digest": data_digest(given.data)},
            "code": package_code() | own_code(self.model.kind),
            "config": None if self.config is None else recorded_config(self.config),
            "cluster": {"ray": self.ray is not None, **shape, "workers": result.machines},
        }

    def _log_windows(self, facts: dict[str, Any]) -> None:
        tested = f", {facts['test_windows']:,} are kept for testing" if facts["test_windows"] else ""
        self._write_line(
            f"{facts['train_windows']:,} windows train, {facts['validation_windows']:,} validate{tested}, "
            f"{facts['purged_windows']} purged between them, {sum(facts['left_out'].values()):,} left out"
        )

    def _write_line(self, line: str) -> None:
        if self.log_fn:
            self.log_fn(line)
