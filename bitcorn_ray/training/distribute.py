"""Training on Ray Train: `learning.training.fit` in each worker, which finds the process group that Ray made.

1. The data go into the object store once, and all workers of a node read them there. 2. Ray Train starts the
workers. 3. The first worker saves checkpoints in a folder that all of them see, and puts what happens into a queue.
4. Where a worker dies, Ray starts all anew, as many as there is room for, and they go on from the last checkpoint.
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
import torch
from ray.train.torch import TorchTrainer
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import LogOutput, asked_output, logged, logger_of
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
from bitcorn_ray.models.neural.config import ModelConfig, TrainingConfig
from bitcorn_ray.models.neural.progress import EpochResult, FitResult, Progress
from bitcorn_ray.models.neural.trainer import fit
from bitcorn_ray.on_ray.monitoring import count_own_traffic, forget_training, record_epoch, record_progress
from bitcorn_ray.on_ray.nodes import room_for
from bitcorn_ray.on_ray.versions import guarded, is_private

__all__ = ["SharedData", "fit_on_ray"]

_log = logger_of(__name__)
_PACKAGE = __name__.partition(".")[0]
_CLEANER = "PlacementGroupCleanerCallback"


class SharedData:
    """Training data in Ray's object store.

    data: the same, in the store's memory, which is gone when the connection to Ray ends. The arrays that were given are
    not held on to, so that one copy serves this process and all workers of its node.
    """

    def __init__(self, data: Dataset) -> None:
        self.reference = ray.put({item.name: getattr(data, item.name) for item in fields(data)})
        self.data = Dataset(**ray.get(self.reference))


def fit_on_ray(
    data: SharedData,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    workers: int | tuple[int, int],
    gpus: float,
    checkpoints: CheckpointFolder,
    max_failures: int,
    on_epoch: Callable[[EpochResult], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    run: str = "",
) -> FitResult:
    """Train on Ray workers with ``gpus`` GPUs each; see `training_service.train_on_ray`.

    workers: how many; (least, most) takes as many as Ray has room for, and fewer after a node is lost.
    checkpoints: what is there already is gone on from. run: its place, as logs and metrics may show it.
    """
    count_own_traffic()  # of the inputs
    least, most = (workers, workers) if isinstance(workers, int) else workers
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
        "model": asdict(model),
        "training": asdict(training),
        "gpu": gpus > 0,
        "queue": queue,
        "run": run,
        "logs": asked_output(),
        "checkpoints": checkpoints,  # not as text: Ray writes down what is plain in a configuration
    }
    with checkpoints.claimed(), _settings(), _listening(queue, run, on_epoch, on_progress):
        # One worker needs no process group, and its controller no PyTorch: seconds less until it runs.
        trainer = TorchTrainer if most > 1 else _OneWorkerTrainer
        returned = _result(trainer, loop_config, scaling, checkpoints, max_failures)
    weights = {name: torch.from_numpy(value.copy()) for name, value in returned["weights"].items()}
    history = [EpochResult(**each) for each in returned["history"]]
    return FitResult(weights, history, returned["learned"], returned["precision"], returned["machines"])


def _result(
    trainer: Callable[..., Any],
    loop_config: dict[str, Any],
    scaling: ray.train.ScalingConfig,
    checkpoints: CheckpointFolder,
    max_failures: int,
) -> dict[str, Any]:
    """Run the workers, and return what the first one returns. Raises BitcornError where that is a refusal."""
    worker: Any = guarded(_train_worker, lambda why, config: {"refused": why})
    # Ray goes on with what it knows under a name: what there is to go on from is in our checkpoints.
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
            f"in {checkpoints.storage.shown}, to be gone on from"
        ) from error
    finally:
        own.remove_folder(name)
        own.remove_empty()
    if "refused" in result.return_value:
        raise BitcornError(result.return_value["refused"])
    return dict(result.return_value)


def _start_coordinator() -> None:
    """Let the process start beside the controller that Ray's controller would start first, and wait for."""
    with suppress(ImportError, AttributeError):  # Ray's own, and nothing is lost where it is elsewhere
        from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator

        default_autoscaling_coordinator.get_or_create_autoscaling_coordinator()


class _OneWorkerTrainer(DataParallelTrainer):
    def _create_default_callbacks(self) -> list[Any]:
        """Without the process that frees the worker's place where the controller dies: a private Ray ends with it."""
        every = super()._create_default_callbacks()
        return [each for each in every if not (is_private() and type(each).__name__ == _CLEANER)]


def _train_worker(config: dict[str, Any]) -> dict[str, Any]:
    first = ray.train.get_context().get_world_rank() == 0
    device = str(ray.train.torch.get_device()) if config["gpu"] else "cpu"
    data = Dataset(**ray.get(config["data"]))
    model, training = ModelConfig(**config["model"]), TrainingConfig(**config["training"])
    checkpoints: CheckpointFolder = config["checkpoints"]

    def tell(told: EpochResult | Progress) -> None:
        config["queue"].put((type(told).__name__, asdict(told)))

    try:
        with _logs_of_the_job(config["logs"]), logged(_log, "training", run=config["run"]) if first else nullcontext():
            fitted = fit(
                data,
                model,
                training,
                device=device,
                report=tell if first else None,
                progress=tell if first else None,
                checkpoints=checkpoints,
            )
    except BitcornError as error:
        # Returned and not raised: Ray would start the training again, and it would end the same.
        return {"refused": str(error)}
    weights = {name: value.numpy() for name, value in fitted.weights.items()}
    history = [asdict(result) for result in fitted.history]
    told = {"learned": fitted.learned, "precision": fitted.precision, "machines": fitted.machines}
    return {"weights": weights, "history": history, **told}


@contextmanager
def _logs_of_the_job(asked: LogOutput | None) -> Iterator[None]:
    """Let logs of this package be written as the job asked: Ray Train has set the root logger to messages alone."""
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
    """Whole CPUs for each worker, as many as let the workers find room on the nodes, each on one.

    Ray would wait for ever for workers that no node can hold: refuse them.
    """
    have, most_here = ray.cluster_resources(), room_for(1, gpus)
    if most_here < least:
        raise BitcornError(
            f"{least} workers with {gpus:g} GPUs each need {least} CPUs and {least * gpus:g} GPUs, but Ray has "
            f"{have.get('CPU', 0.0):g} CPUs and {have.get('GPU', 0.0):g} GPUs: take fewer"
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
    """Record what the first worker puts into the queue, and hand it on, in this process; a repeated epoch once."""
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
                return  # the cluster is lost, which the training tells

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
    """Ray Train's settings for the length of a training, where the user has not set them."""
    for name in ("ray.train", "ray.data", "ray.tune"):
        # It tells each step of starting up; what fails comes as an exception anyhow.
        logging.getLogger(name).setLevel(logging.WARNING)
    # The controller looks at the workers this often; the default is 2 seconds.
    settings = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    if len(ray.nodes()) == 1:
        settings["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process that waits for other nodes to be taken away
    settings = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            os.environ.pop(name, None)
