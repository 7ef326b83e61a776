"""Checkpoints: what a training goes on from, in a folder or at a URI of its own.

    step-<steps done>.pt    a snapshot in plain values and tensors; the newest readable one counts

A snapshot is published whole, and the one before it stays until then. Where it cannot be written, a full disk for one,
training goes on and the last good one remains.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.dataset import TrainingData
from bitcorn_ray.logs import logger_of
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import Storage

__all__ = ["CheckpointFolder", "data_digest", "training_identity"]

_log = logger_of(__name__)
_KEPT = 2
# What may be another when a training goes on: how long it goes on, and how it is carried out.
_FREE = {"epochs", "patience", "threads", "checkpoint_epochs", "checkpoint_minutes"}


def training_identity(data: TrainingData, model: ModelConfig, training: TrainingConfig) -> str:
    """Digest of the data and of what the configuration says about the result."""
    config = {name: value for name, value in asdict(training).items() if name not in _FREE}
    return _digest([asdict(model), config, data.names], data)


def data_digest(data: TrainingData) -> str:
    """Digest of all that a training sees: features as they are scaled, targets, and which windows are for what."""
    return _digest([data.names], data)


def _digest(values: list[Any], data: TrainingData) -> str:
    digest = hashlib.sha256(json.dumps(values).encode())
    for item in fields(data):
        value = getattr(data, item.name)
        if isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()[:32]


class CheckpointFolder:
    """Snapshots of one training, in a folder or at a URI. Nothing is created before something is saved.

    identity: of the training (`training_identity`); snapshots of another one are refused. "" takes any.
    """

    def __init__(self, place: str | Path, identity: str = "") -> None:
        self.storage, self.identity = Storage(place, "checkpoints"), identity

    def save(self, snapshot: dict[str, Any]) -> bool:
        """Save a snapshot, which has the number of steps done under `step`; tells whether that was possible."""
        content = io.BytesIO()
        torch.save({**snapshot, "identity": self.identity}, content)
        try:
            self.storage.publish(f"step-{snapshot['step']:010d}.pt", pa.py_buffer(content.getbuffer()), durable=True)
        except BitcornError as error:
            _log.warning("no checkpoint could be saved, training goes on without: %s", error)
            return False
        self._remove(lambda: self._snapshots()[:-_KEPT])
        return True

    def load(self) -> dict[str, Any] | None:
        """Return the newest snapshot that can be read, or None; tensors only, nothing is unpickled.

        Raises BitcornError where it is of another training.
        """
        for name in reversed(self._snapshots()):
            try:
                content = io.BytesIO(self.storage.read(name))
                snapshot: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
                _log.warning("the checkpoint %s in %s is damaged and passed over: %s", name, self.storage.shown, error)
                continue
            if self.identity and snapshot["identity"] != self.identity:
                raise BitcornError(
                    f"the checkpoints in {self.storage.shown} are of a training with other data or another "
                    "configuration: go on with those that it had, or start anew without them"
                )
            return snapshot
        return None

    def __bool__(self) -> bool:
        return bool(self._snapshots())

    def clear(self) -> None:
        """Remove all snapshots, and the folder where nothing else is in it."""
        self._remove(lambda: [name for name in self.storage.names() if name.startswith(("step-", TEMPORARY))])
        self.storage.remove_empty()

    def _snapshots(self) -> list[str]:
        return [name for name in self.storage.names() if name.startswith("step-") and name.endswith(".pt")]

    def _remove(self, which: Callable[[], list[str]]) -> None:
        """Remove what is no longer needed; a store that does not answer just now ends no training."""
        try:
            self.storage.delete(which())
        except BitcornError as error:
            _log.warning("checkpoints that are no longer needed stay: %s", error)
