"""Training on Ray Train: `learning.training.fit` in each worker, a checkpoint after each epoch.

1. The data go into the object store once. 2. `TorchTrainer` starts the workers; each runs `fit`, which finds the
process group that Ray made. 3. After each epoch the first worker saves a checkpoint, and all report. 4. Where a
worker dies, Ray starts all anew, and they go on from the last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.dataset import TrainingData
from bitcorn_ray.learning.training import EpochResult, FitResult, fit

__all__ = ["fit_on_ray"]

_CHECKPOINT = "checkpoint.pt"


def fit_on_ray(
    data: TrainingData,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    workers: int,
    gpus: float,
    artifacts_dir: Path,
    max_failures: int,
    on_epoch: Callable[[EpochResult], None] | None = None,
) -> FitResult:
    """Train on ``workers`` Ray workers with ``gpus`` GPUs each; see `training_service.train_on_ray`.

    Checkpoints lie in a hidden folder beside ``artifacts_dir``, named by the configuration and the data, so that a
    training that was cut short goes on, and another one starts anew; it goes when the training has finished.
    """
    cpus = _cpus_per_worker(workers, gpus)
    artifacts_dir = artifacts_dir.expanduser().absolute()
    storage = artifacts_dir.parent / f".{artifacts_dir.name}.checkpoints"
    queue = Queue(actor_options={"num_cpus": 0})
    loop_config = {
        "data": ray.put({item.name: getattr(data, item.name) for item in fields(data)}),
        "model": asdict(model),
        "training": asdict(training),
        "gpu": gpus > 0,
        "queue": queue,
    }
    _quiet()
    worker: Any = _train_worker
    trainer = TorchTrainer(
        worker,
        train_loop_config=loop_config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=gpus > 0, resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})}
        ),
        run_config=ray.train.RunConfig(
            name=_identity(data, model, training, workers),
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    with _listening(queue, on_epoch):
        result: Any = trainer.fit()
    shutil.rmtree(storage, ignore_errors=True)
    returned = result.return_value
    if "refused" in returned:
        raise BitcornError(returned["refused"])
    weights = {name: torch.from_numpy(value.copy()) for name, value in returned["weights"].items()}
    return FitResult(weights, [EpochResult(**result) for result in returned["history"]])


def _train_worker(config: dict[str, Any]) -> dict[str, Any]:
    first = ray.train.get_context().get_world_rank() == 0
    device = str(ray.train.torch.get_device()) if config["gpu"] else "cpu"
    data = TrainingData(**ray.get(config["data"]))

    def report(result: EpochResult, snapshot: Callable[[], dict[str, Any]]) -> None:
        metrics = {"epoch": result.epoch, "train_loss": result.train_loss, "val_loss": result.val_loss}
        if not first:
            ray.train.report(metrics)
            return
        config["queue"].put(asdict(result))
        with tempfile.TemporaryDirectory() as folder:
            torch.save(snapshot(), Path(folder) / _CHECKPOINT)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    model, training = ModelConfig(**config["model"]), TrainingConfig(**config["training"])
    try:
        fitted = fit(data, model, training, device=device, report=report, resume=_last_checkpoint())
    except BitcornError as error:
        # Returned and not raised: Ray would start the training again, and it would end the same.
        return {"refused": str(error)}
    weights = {name: value.numpy() for name, value in fitted.weights.items()}
    return {"weights": weights, "history": [asdict(result) for result in fitted.history]}


def _last_checkpoint() -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        snapshot: dict[str, Any] = torch.load(Path(folder) / _CHECKPOINT, map_location="cpu", weights_only=True)
    return snapshot


def _cpus_per_worker(workers: int, gpus: float) -> int:
    """Whole CPUs for each worker. Ray would wait for ever for workers that no node can hold: refuse them."""
    have = ray.cluster_resources()
    cpus, have_gpus = int(have.get("CPU", 0)), have.get("GPU", 0.0)
    if workers > cpus or workers * gpus > have_gpus:
        raise BitcornError(
            f"{workers} workers with {gpus:g} GPUs each need {workers} CPUs and {workers * gpus:g} GPUs, but Ray has "
            f"{cpus} CPUs and {have_gpus:g} GPUs: take fewer"
        )
    return max(1, cpus // workers)


def _identity(data: TrainingData, model: ModelConfig, training: TrainingConfig, workers: int) -> str:
    digest = hashlib.sha256(json.dumps([asdict(model), asdict(training), workers]).encode())
    for item in fields(data):
        digest.update(getattr(data, item.name).tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _listening(queue: Queue, on_epoch: Callable[[EpochResult], None] | None) -> Iterator[None]:
    """Hand the epochs that the first worker puts into the queue to ``on_epoch``, in this process."""
    finished = threading.Event()

    def listen() -> None:
        while True:
            last_round = finished.is_set()
            try:
                while True:
                    result = EpochResult(**queue.get(timeout=0.2))
                    if on_epoch:
                        on_epoch(result)
            except Empty:
                if last_round:
                    return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        finished.set()
        listener.join()
        queue.shutdown()


def _quiet() -> None:
    """Ray Train tells each step of starting up; what fails comes as an exception anyhow."""
    for name in ("ray.train", "ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The controller looks at the workers this often, and each report waits for it; the default is 2 seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
