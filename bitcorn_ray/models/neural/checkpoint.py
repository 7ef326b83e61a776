"""Checkpoints: the snapshots that a training resumes from, in a folder or at a URI of its own.

    step-<steps done>-<claim>.pt    a snapshot in plain values and tensors; the newest readable one counts
    claim-<claim>                   of the training that may write here: the last one

A snapshot is published atomically, and the previous one stays until then. If it cannot be written, because of a full
disk for example, the training continues and the last good snapshot remains.

Two trainings may write to one folder at once: a worker outlives its killed driver, or a machine that was given up still
runs. So a training claims the folder first. Snapshots that others save from then on do not count. Before it saves, a
training checks that its claim is still the last one, and stops if it is not.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import logger_of
from bitcorn_ray.models.base import ModelConfig
from bitcorn_ray.models.neural.config import TrainingConfig
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import Storage

_log = logger_of(__name__)
_KEPT = 2
_SNAPSHOT, _CLAIM = "step-", "claim-"
# Fields that may change on resume: how long a training runs, and how it is executed.
_MAY_CHANGE_ON_RESUME = {"epochs", "patience", "threads", "checkpoint_epochs", "checkpoint_minutes"}


def training_identity(data: Dataset, model: ModelConfig, training: TrainingConfig) -> str:
    """Return a digest of the data and of the configuration that decides the result."""
    config = {name: value for name, value in asdict(training).items() if name not in _MAY_CHANGE_ON_RESUME}
    return _digest([asdict(model), config, data.names], data)


def data_digest(data: Dataset) -> str:
    """Return a digest of all that a training sees: scaled features, targets, and the windows of each part."""
    return _digest([data.names], data)


def _digest(values: list[Any], data: Dataset) -> str:
    digest = hashlib.sha256(json.dumps(values).encode())
    for item in fields(data):
        value = getattr(data, item.name)
        if isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()[:32]


class Superseded(BitcornError):
    """Another training has claimed the folder of this one's checkpoints, or has finished there."""


class CheckpointFolder:
    """The snapshots of one training, in a folder or at a URI. Nothing is created before a claim or a snapshot.

    identity: of the training (`training_identity`); snapshots of another one are refused. "" accepts any.
    Copies in workers have the claim of the original.
    """

    def __init__(self, path: str | Path, identity: str = "") -> None:
        self.storage, self.identity = Storage(path, "checkpoints"), identity
        self._claim = ""
        self._earlier: frozenset[str] | None = None  # snapshots without this claim that count; None: all of them

    def begin(self, *, resume: bool) -> dict[str, Any] | None:
        """Return the snapshot to resume from: the newest one, or None without resume, which removes all of them.

        Raises BitcornError as `load` does.
        """
        if not resume:
            self.clear()
        self._earlier = frozenset(self._snapshots()) if resume else frozenset()
        return self.load()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Claim the folder for the length of a training, and release it.

        Raises BitcornError if it cannot be written, and Superseded at the end if another training has claimed it.
        """
        if self._earlier is None:
            self._earlier = frozenset(self._snapshots())
        before = self._claims()
        number = 1 + max((int(name.split("-")[1]) for name in before), default=0)
        self._claim = f"{number:06d}-{uuid.uuid4().hex[:8]}"
        self.storage.publish(f"{_CLAIM}{self._claim}", b"")
        self._remove(lambda: before)
        try:
            yield
            self.require_claim()
        finally:
            self._remove(lambda: [f"{_CLAIM}{self._claim}"])
            self.storage.remove_empty()

    def require_claim(self) -> None:
        """Raise Superseded if this training's claim is no longer the last one."""
        if self._claim and self._claims()[-1:] != [f"{_CLAIM}{self._claim}"]:
            raise Superseded(
                f"another training has taken over {self.storage.shown}, or has finished there: this one stops, as its "
                "checkpoints no longer count"
            )

    def save(self, snapshot: dict[str, Any]) -> bool:
        """Save a snapshot and return True if it could be written. Its number of steps done is under `step`.

        Raises Superseded if another training has claimed the folder.
        """
        content = io.BytesIO()
        torch.save({**snapshot, "identity": self.identity}, content)
        name = f"{_SNAPSHOT}{snapshot['step']:010d}{self._claim and f'-{self._claim}'}.pt"
        try:
            self.require_claim()
            self.storage.publish(name, pa.py_buffer(content.getbuffer()), durable=True)
        except Superseded:
            raise
        except BitcornError as error:
            _log.warning("a checkpoint could not be saved, training continues: %s", error)
            return False
        self._remove(lambda: self._snapshots()[:-_KEPT])
        return True

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable snapshot that counts, or None. Only tensors are read, nothing is unpickled.

        Raises BitcornError if it belongs to another training.
        """
        for name in reversed(self._snapshots()):
            try:
                content = io.BytesIO(self.storage.read(name))
                snapshot: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
                _log.warning("the checkpoint %s in %s is damaged and skipped: %s", name, self.storage.shown, error)
                continue
            if self.identity and snapshot["identity"] != self.identity:
                raise BitcornError(
                    f"the checkpoints in {self.storage.shown} belong to a training with other data or another "
                    "configuration: resume with the same ones, or start anew without --resume"
                )
            return snapshot
        return None

    def __bool__(self) -> bool:
        return bool(self._snapshots())

    def clear(self) -> None:
        """Remove all snapshots and claims, and the folder if it is then empty."""
        ours = (_SNAPSHOT, _CLAIM, TEMPORARY)
        self._remove(lambda: [name for name in self.storage.names() if name.startswith(ours)])
        self.storage.remove_empty()

    def _snapshots(self) -> list[str]:
        """Return the names of the snapshots that count, the newest last.

        Those that another training saved after this one began do not count.
        """
        names = [name for name in self.storage.names() if name.startswith(_SNAPSHOT) and name.endswith(".pt")]
        if self._earlier is not None:
            names = [name for name in names if name in self._earlier or (self._claim and self._claim in name)]
        return sorted(names, key=lambda name: name not in (self._earlier or ()))

    def _claims(self) -> list[str]:
        return [name for name in self.storage.names() if name.startswith(_CLAIM)]

    def _remove(self, which: Callable[[], list[str]]) -> None:
        """Remove files that are no longer needed. A store that does not answer now does not end a training."""
        try:
            self.storage.delete(which())
        except BitcornError as error:
            _log.warning("old checkpoints could not be removed: %s", error)
