"""Checkpoints: what a training goes on from, in a folder of its own.

    step-<steps done>.pt    a snapshot in plain values and tensors; the newest readable one counts

A snapshot is written under another name and renamed when it is whole, and the one before it stays until then. Where it
cannot be written, a full disk for one, training goes on and the last good one remains.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from dataclasses import asdict, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.dataset import TrainingData

__all__ = ["CheckpointFolder", "training_identity"]

_log = logging.getLogger(__name__)
_KEPT = 2
# What may be another when a training goes on: how long it goes on, and how it is carried out.
_FREE = {"epochs", "patience", "threads", "checkpoint_epochs", "checkpoint_minutes"}


def training_identity(data: TrainingData, model: ModelConfig, training: TrainingConfig) -> str:
    """Digest of the data and of what the configuration says about the result."""
    config = {name: value for name, value in asdict(training).items() if name not in _FREE}
    digest = hashlib.sha256(json.dumps([asdict(model), config, data.names]).encode())
    for item in fields(data):
        value = getattr(data, item.name)
        if isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()[:32]


class CheckpointFolder:
    """Snapshots of one training. Nothing is created before something is saved.

    identity: of the training (`training_identity`); snapshots of another one are refused. "" takes any.
    """

    def __init__(self, folder: str | Path, identity: str = "") -> None:
        self.folder, self.identity = Path(folder).expanduser().absolute(), identity

    def save(self, snapshot: dict[str, Any]) -> bool:
        """Save a snapshot, which has the number of steps done under `step`; tells whether that was possible."""
        target = self.folder / f"step-{snapshot['step']:010d}.pt"
        temporary = self.folder / f".{target.name}.{uuid.uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save({**snapshot, "identity": self.identity}, file)
                file.flush()
                os.fsync(file.fileno())  # renamed before it is on the disk it could be found empty after a power cut
            os.replace(temporary, target)
        except (OSError, RuntimeError) as error:  # PyTorch's writer turns some of the system's errors into its own
            _log.warning("no checkpoint could be saved in %s, training goes on without: %s", self.folder, error)
            return False
        finally:
            self._remove(temporary)
        for old in self._snapshots()[:-_KEPT]:
            self._remove(old)
        return True

    def load(self) -> dict[str, Any] | None:
        """Return the newest snapshot that can be read, or None; tensors only, nothing is unpickled.

        Raises BitcornError where it is of another training.
        """
        for path in reversed(self._snapshots()):
            try:
                snapshot: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
                _log.warning("the checkpoint %s is damaged and passed over: %s", path, error)
                continue
            if self.identity and snapshot["identity"] != self.identity:
                raise BitcornError(
                    f"the checkpoints in {self.folder} are of a training with other data or another configuration: go "
                    "on with those that it had, or start anew without them"
                )
            return snapshot
        return None

    def __bool__(self) -> bool:
        return bool(self._snapshots())

    def clear(self) -> None:
        """Remove all snapshots, and the folder where nothing else is in it."""
        if self.folder.is_dir():
            for path in (*self._snapshots(), *self.folder.glob(".step-*")):
                self._remove(path)
        self.remove_empty()

    def remove_empty(self) -> None:
        """Remove the folder where nothing is in it."""
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _snapshots(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))

    @staticmethod
    def _remove(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s cannot be removed: %s", path, error)
