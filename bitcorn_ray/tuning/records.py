"""The records of trained folds, `records/<key>.npz`: losses, and forecasts of the test windows.

The key of a record is a hash of the configuration, the fold, the seed, the data and the code that trains. A record is
published atomically; one that cannot be read counts as missing.
Shapes: N test windows, M validation windows, H horizons.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.fingerprint.syntax import package_fingerprint
from bitcorn_ray.models.registry import own_code
from bitcorn_ray.storage.arrays import pack_arrays, unpack_arrays
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.lineage import installed_versions

# The code that determines a record.
_ROOMS = ("datasets", "market", "metrics", "models", "tuning")
_LIBRARIES = ("numpy", "pandas", "scikit-learn", "torch")
# The arrays of a record and their names in the file.
_ARRAYS = {
    "times": "times",
    "partitions": "places",
    "returns": "returns",
    "volatilities": "volatilities",
    "validation_times": "past_times",
    "validation_partitions": "past_places",
    "validation_scores": "past_scores",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldRecord:
    """One trained fold.

    loss: objective on the validation windows, by which trials are compared. test_loss: objective on the test windows,
    which chooses nothing. best_epoch, epochs, seconds: of the training.
    times: (N,) int64 ms, open of the last bar of each test window. partitions: (N,) index of its partition. returns,
    volatilities: (N, H) float32 forecasts.
    validation_times, validation_partitions, validation_scores: (M,), (M,), (M, H) of the validation windows; with their
    conformal scores the bands of the test windows start.
    """

    loss: float
    test_loss: float
    best_epoch: int
    epochs: int
    seconds: float
    times: NDArray[np.int64]
    partitions: NDArray[np.int16]
    returns: NDArray[np.float32]
    volatilities: NDArray[np.float32]
    validation_times: NDArray[np.int64]
    validation_partitions: NDArray[np.int16]
    validation_scores: NDArray[np.float32]


class Records:
    """The records of trained folds, in a folder that all nodes see or at a URI."""

    def __init__(self, location: str | Path) -> None:
        self.storage = Storage(location, "record of a fold")

    def load(self, key: str) -> FoldRecord | None:
        """Return a record, None if there is none or it is damaged."""
        try:
            arrays = unpack_arrays(self.storage.read(f"{key}.npz"))
            values = json.loads(arrays["facts"].tobytes())
            return FoldRecord(**values | {name: arrays[stored] for name, stored in _ARRAYS.items()})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, key: str, record: FoldRecord) -> None:
        """Write a record. Raises BitcornError if it cannot be written."""
        facts = {name: value for name, value in vars(record).items() if name not in _ARRAYS}
        arrays = {stored: getattr(record, name) for name, stored in _ARRAYS.items()}
        content = pack_arrays({"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays})
        self.storage.publish(f"{key}.npz", content)


def training_code(*kinds: str) -> str:
    """Return a fingerprint of the code that determines a record: this package's, and the versions of libraries.

    kinds: of the models that are trained, for the code of a user's own models.
    """
    versions = {name: version for name, version in installed_versions().items() if name in _LIBRARIES}
    own = [code for kind in kinds if (code := own_code(kind))]
    return record_key(package_fingerprint(*_ROOMS), versions, *own)


def record_key(*parts: Any) -> str:
    """Return a hash of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
