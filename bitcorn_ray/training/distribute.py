"""Fit a model on Ray Train: `Model.fit` in each worker, which finds the process group that Ray made.

1. The dataset goes into the object store once, and all workers of a node read it there. 2. Ray Train starts the
workers; a model that is not distributed gets one. 3. The first worker saves checkpoints in a folder that all of them
see, and puts epochs and progress into a queue. 4. If a worker dies, Ray starts all anew, as many as there is room for,
and they resume from the last checkpoint.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, fields
from typing import Any, cast

import ray
import ray.train
from ray.train.torch import TorchTrainer
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import LogOutput, current_output, logged, logger_of
from bitcorn_ray.models.base import EpochResult, FitContext, FitResult, Model, ModelConfig, Progress, Shape
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
from bitcorn_ray.models.neural.config import TrainingConfig
from bitcorn_ray.models.registry import model_class, model_config
from bitcorn_ray.on_ray.monitoring import forget_training, record_epoch, record_own_traffic, record_progress
from bitcorn_ray.on_ray.nodes import room_for
from bitcorn_ray.on_ray.versions import guarded, is_private

_log = logger_of(__name__)
_PACKAGE = __name__.partition(".")[0]
_CLEANER = "PlacementGroupCleanerCallback"


class SharedData:
    """A dataset in Ray's object store.

    data: the same in the store's memory, which is gone when the connection to Ray ends. The given arrays are not kept,
    so that one copy serves this process and all workers of its node.
    """

    def __init__(self, data: Dataset) -> None:
        self.reference = ray.put({item.name: getattr(data, item.name) for item in fields(data)})
        self.data = Dataset(**ray.get(self.reference))


def fit_on_ray(
    data: SharedData,
    config: ModelConfig,
    shape: Shape,
    training: TrainingConfig,
    *,
    workers: int | tuple[int, int],
    gpus: float,
    checkpoints: CheckpointFolder,
    max_failures: int,
    on_epoch: Callable[[EpochResult], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    run: str = "",
) -> tuple[Model, FitResult]:
    """Fit a model on Ray workers with ``gpus`` GPUs each, see `training_service.train_on_ray`.

    workers: their number; (least, most) takes as many as Ray has room for, and fewer after a node is lost. A model that
    is not distributed uses one. checkpoints: a snapshot of the same training is resumed. run: its folder or URI, for
    logs and metrics.
    """
    record_own_traffic()  # of the inputs
    least, most = (workers, workers) if isinstance(workers, int) else workers
    if not model_class(config.kind).traits.distributed:
        least = most = 1
    cpus = _cpus_per_worker(least, most, gpus)
    scaling = ray.train.ScalingConfig(
        num_workers=cast(int, least if least == most else (least, most)),  # its annotation knows no elastic range
        use_gpu=gpus > 0,
        resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
    )
    _start_coordinator()
    # Here, and not on a node that may be lost while this process goes on.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    loop_config = {
        "data": data.reference,
        "model": config.to_json(),
        "shape": asdict(shape),
        "training": asdict(training),
        "gpu": gpus > 0,
        "queue": queue,
        "run": run,
        "logs": current_output(),
        "checkpoints": checkpoints,  # not as text: Ray writes down what is plain in a configuration
    }
    with checkpoints.claimed(), _settings(), _listening(queue, run, on_epoch, on_progress):
        # One worker needs no process group, and its controller no PyTorch: seconds less until it runs.
        trainer = TorchTrainer if most > 1 else _OneWorkerTrainer
        returned = _result(trainer, loop_config, scaling, checkpoints, max_failures)
    model = model_class(config.kind).restore(config, shape, returned["artifacts"])
    history = [EpochResult(**epoch) for epoch in returned["result"].pop("history")]
    return model, FitResult(history, **returned["result"])


def _result(
    trainer: Callable[..., Any],
    loop_config: dict[str, Any],
    scaling: ray.train.ScalingConfig,
    checkpoints: CheckpointFolder,
    max_failures: int,
) -> dict[str, Any]:
    """Run the workers, and return the result of the first one. Raises BitcornError if it refused."""
    worker: Any = guarded(_train_worker, lambda why, config: {"refused": why})
    # Ray resumes a run of a known name: our checkpoints are what to resume from, so the name is new.
    own, name = checkpoints.storage.child("ray"), uuid.uuid4().hex
    path, filesystem = own.handle
    checkpoints.storage.remove_folder("ray")  # of a driver that was killed
    try:
        result: Any = trainer(
            worker,
            train_loop_config=loop_config,
            scaling_config=scaling,
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=ray.train.FailureConfig(max_failures=max_failures),
            ),
        ).fit()
    except ray.train.TrainingFailedError as error:
        raise BitcornError(
            f"the training failed {max_failures + 1} times, the last time with: {_reason(error)}. Its checkpoints are "
            f"in {checkpoints.storage.shown}: resume it with --resume"
        ) from error
    finally:
        own.remove_folder(name)
        own.remove_empty()
    if "refused" in result.return_value:
        raise BitcornError(result.return_value["refused"])
    return dict(result.return_value)


def _start_coordinator() -> None:
    """Start the process that Ray's controller would otherwise start first and wait for."""
    with suppress(ImportError, AttributeError):  # private to Ray: without it, the start is only slower
        from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator

        default_autoscaling_coordinator.get_or_create_autoscaling_coordinator()


class _OneWorkerTrainer(DataParallelTrainer):
    def _create_default_callbacks(self) -> list[Any]:
        """Leave out the process that frees the worker's resources if the controller dies: a private Ray ends then."""
        callbacks = super()._create_default_callbacks()
        return [call for call in callbacks if not (is_private() and type(call).__name__ == _CLEANER)]


def _train_worker(config: dict[str, Any]) -> dict[str, Any]:
    first = ray.train.get_context().get_world_rank() == 0
    device = str(ray.train.torch.get_device()) if config["gpu"] else "cpu"
    data = Dataset(**ray.get(config["data"]))
    of_model, training = model_config(config["model"]), TrainingConfig(**config["training"])
    model = model_class(of_model.kind).create(of_model, Shape(**config["shape"]))

    def send(event: EpochResult | Progress) -> None:
        config["queue"].put((type(event).__name__, asdict(event)))

    report = send if first else None
    context = FitContext(device=device, report=report, progress=report, checkpoints=config["checkpoints"])

    try:
        with _logs_of_the_job(config["logs"]), logged(_log, "training", run=config["run"]) if first else nullcontext():
            result = model.fit(data, training, context)
    except BitcornError as error:
        # Returned and not raised: Ray would start the training again, and it would fail again.
        return {"refused": str(error)}
    return {"artifacts": model.artifacts(), "result": asdict(result)}


@contextmanager
def _logs_of_the_job(asked: LogOutput | None) -> Iterator[None]:
    """Write this package's logs as the job asks: Ray Train has set the root logger to plain messages."""
    if asked is None:
        yield
        return
    own, handlers = logging.getLogger(_PACKAGE), logging.getLogger("ray").handlers  # those of the job
    own.setLevel(asked.level.upper())
    own.propagate = False
    for handler in handlers:
        own.addHandler(handler)
    try:
        yield
    finally:
        own.propagate = True
        for handler in handlers:
            own.removeHandler(handler)


def _cpus_per_worker(least: int, most: int, gpus: float) -> int:
    """Return the whole CPUs for each worker, as many as leave room for all workers on the nodes.

    Raises BitcornError for workers that no node can hold, for which Ray would wait for ever.
    """
    have, most_here = ray.cluster_resources(), room_for(1, gpus)
    if most_here < least:
        raise BitcornError(
            f"{least} workers with {gpus:g} GPUs each need {least} CPUs and {least * gpus:g} GPUs, but Ray has "
            f"{have.get('CPU', 0.0):g} CPUs and {have.get('GPU', 0.0):g} GPUs: ask for fewer"
        )
    workers = min(most, most_here)
    return next(cpus for cpus in range(int(have["CPU"]) // workers, 0, -1) if room_for(cpus, gpus) >= workers)


@contextmanager
def _listening(
    queue: Queue,
    run: str,
    on_epoch: Callable[[EpochResult], None] | None,
    on_progress: Callable[[Progress], None] | None,
) -> Iterator[None]:
    """Record what the first worker puts into the queue, and pass it on in this process; repeated epochs only once."""
    finished = threading.Event()

    def listen() -> None:
        last_epoch = 0
        while True:
            last_round = finished.is_set()
            try:
                while True:
                    kind, values = queue.get(timeout=0.2)
                    if kind == "Progress":
                        progress = Progress(**values)
                        record_progress(run, progress)
                        if on_progress:
                            on_progress(progress)
                    elif values["epoch"] > last_epoch:
                        result = EpochResult(**values)
                        last_epoch = result.epoch
                        record_epoch(run, result)
                        if on_epoch:
                            on_epoch(result)
            except Empty:
                if last_round:
                    return
            except ray.exceptions.RayError:
                return  # the cluster is lost, and the training raises it

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        finished.set()
        listener.join()
        queue.shutdown()
        forget_training(run)


def _reason(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


@contextmanager
def _settings() -> Iterator[None]:
    """Set Ray Train's settings within this block, unless the user has set them."""
    for name in ("ray.train", "ray.data", "ray.tune"):
        # It logs each step of starting up; failures are raised anyway.
        logging.getLogger(name).setLevel(logging.WARNING)
    # How often the controller polls the workers; the default is 2 seconds.
    settings = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    if len(ray.nodes()) == 1:
        settings["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process that watches for preempted nodes
    settings = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            os.environ.pop(name, None)
