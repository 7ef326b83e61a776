"""Checkpoints: what a training goes on from, in a folder or at a URI of its own.

    step-<steps done>-<claim>.pt    a snapshot in plain values and tensors; the newest readable one counts
    claim-<claim>                   of the training that may write here: the last one

A snapshot is published whole, and the one before it stays until then. Where it cannot be written, a full disk for one,
training goes on and the last good one remains.

Two trainings may write to one place at once: a worker outlives its killed driver, a machine that was given up still
runs. So who trains claims the place first. Snapshots that others save from then on do not count, and before it saves
each looks whether its claim is still the last one; where it is not, it stops.
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
from bitcorn_ray.models.neural.config import ModelConfig, TrainingConfig
from bitcorn_ray.storage.publish import TEMPORARY
from bitcorn_ray.storage.storage import Storage

__all__ = ["CheckpointFolder", "Superseded", "data_digest", "training_identity"]

_log = logger_of(__name__)
_KEPT = 2
_SNAPSHOT, _CLAIM = "step-", "claim-"
# What may be another when a training goes on: how long it goes on, and how it is carried out.
_FREE = {"epochs", "patience", "threads", "checkpoint_epochs", "checkpoint_minutes"}


def training_identity(data: Dataset, model: ModelConfig, training: TrainingConfig) -> str:
    """Digest of the data and of what the configuration says about the result."""
    config = {name: value for name, value in asdict(training).items() if name not in _FREE}
    return _digest([asdict(model), config, data.names], data)


def data_digest(data: Dataset) -> str:
    """Digest of all that a training sees: features as they are scaled, targets, and which windows are for what."""
    return _digest([data.names], data)


def _digest(values: list[Any], data: Dataset) -> str:
    digest = hashlib.sha256(json.dumps(values).encode())
    for item in fields(data):
        value = getattr(data, item.name)
        if isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()[:32]


class Superseded(BitcornError):
    """Another training has claimed the place of this one's checkpoints, or has finished there."""


class CheckpointFolder:
    """Snapshots of one training, in a folder or at a URI. Nothing is created before it is claimed or saved to.

    identity: of the training (`training_identity`); snapshots of another one are refused. "" takes any.
    Its copies in workers have the claim of the one that they were made from.
    """

    def __init__(self, place: str | Path, identity: str = "") -> None:
        self.storage, self.identity = Storage(place, "checkpoints"), identity
        self._claim = ""
        self._earlier: frozenset[str] | None = None  # snapshots without this claim that count; None: all of them

    def begin(self, *, resume: bool) -> dict[str, Any] | None:
        """Settle what is gone on from, which is returned: with resume the newest snapshot that is there, else none.

        Without resume all are removed. Raises BitcornError as `load` does.
        """
        if not resume:
            self.clear()
        self._earlier = frozenset(self._snapshots()) if resume else frozenset()
        return self.load()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Claim the place for the length of a training, and give it back.

        Raises BitcornError where it cannot be written, and Superseded at its end where another training has claimed it.
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
        """Raise Superseded where this training's claim is not the last one any more."""
        if self._claim and self._claims()[-1:] != [f"{_CLAIM}{self._claim}"]:
            raise Superseded(
                f"another training has taken {self.storage.shown} over, or has finished there: this one ends, as its "
                "checkpoints would no longer count"
            )

    def save(self, snapshot: dict[str, Any]) -> bool:
        """Save a snapshot, which has the number of steps done under `step`; tells whether that was possible.

        Raises Superseded where another training has claimed the place.
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
            _log.warning("no checkpoint could be saved, training goes on without: %s", error)
            return False
        self._remove(lambda: self._snapshots()[:-_KEPT])
        return True

    def load(self) -> dict[str, Any] | None:
        """Return the newest snapshot that counts and can be read, or None; tensors only, nothing is unpickled.

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
        """Remove all snapshots and claims, and the folder where nothing else is in it."""
        ours = (_SNAPSHOT, _CLAIM, TEMPORARY)
        self._remove(lambda: [name for name in self.storage.names() if name.startswith(ours)])
        self.storage.remove_empty()

    def _snapshots(self) -> list[str]:
        """Names of those that count, the newest last: no other training's that was saved after this one began."""
        names = [name for name in self.storage.names() if name.startswith(_SNAPSHOT) and name.endswith(".pt")]
        if self._earlier is not None:
            names = [name for name in names if name in self._earlier or (self._claim and self._claim in name)]
        return sorted(names, key=lambda name: name not in (self._earlier or ()))

    def _claims(self) -> list[str]:
        return [name for name in self.storage.names() if name.startswith(_CLAIM)]

    def _remove(self, which: Callable[[], list[str]]) -> None:
        """Remove what is no longer needed; a store that does not answer just now ends no training."""
        try:
            self.storage.delete(which())
        except BitcornError as error:
            _log.warning("checkpoints that are no longer needed stay: %s", error)
