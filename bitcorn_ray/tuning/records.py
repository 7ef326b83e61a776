"""What a sweep keeps on disk while it runs, so that nothing finished is ever done again.

    records/<key>.npz     one trained fold of one configuration: its losses, and its forecasts of the test windows
    trials.jsonl          a line when a trial is chosen, and one when it ends

The key of a record is a hash of the configuration, the fold, the seed, the data and the code that trains. A record is
published atomically; one that cannot be read counts as missing. A torn last line of the journal is skipped.
Shapes: N test windows, M validation windows, H horizons.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.fingerprint.syntax import package_fingerprint
from bitcorn_ray.models.registry import own_code
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.lineage import installed_versions
from bitcorn_ray.tuning.space import Point

# The code that decides a record.
_ROOMS = ("datasets", "market", "metrics", "models", "tuning")
_LIBRARIES = ("numpy", "pandas", "scikit-learn", "torch")
_LOG = "trials.jsonl"
_ARRAYS = ("times", "places", "returns", "volatilities", "past_times", "past_places", "past_scores")


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldRecord:
    """One fold trained.

    loss: objective on the validation windows, by which trials are compared. test_loss: on the test windows; nothing is
    chosen by it. best_epoch, epochs: of the training. seconds: it took. times: (N,) int64 ms, opening of each test
    window's last bar. places: (N,) of its partition. returns, volatilities: (N, H) float32 forecasts.
    past_times, past_places, past_scores: (M,), (M,), (M, H) of the validation windows, with their conformal scores, on
    which the bands of the test windows begin.
    """

    loss: float
    test_loss: float
    best_epoch: int
    epochs: int
    seconds: float
    times: NDArray[np.int64]
    places: NDArray[np.int16]
    returns: NDArray[np.float32]
    volatilities: NDArray[np.float32]
    past_times: NDArray[np.int64]
    past_places: NDArray[np.int16]
    past_scores: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point that was tried.

    state: "running" (or cut short), "finished" (all folds), "stopped" (by the scheduler) or "failed". losses: of its
    folds as far as it came. error: why it failed. seconds: of its trainings.
    """

    name: str
    point: Point
    state: str = "running"
    losses: tuple[float, ...] = ()
    error: str | None = None
    seconds: float = 0.0
    setting: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """Mean over its folds, None without any."""
        return float(np.mean(self.losses)) if self.losses else None


def training_code(*kinds: str) -> str:
    """Return a fingerprint of the code that makes a record: this package's rooms, and the versions of libraries.

    kinds: of the models that are trained, for the code of those that are a user's own.
    """
    versions = {name: version for name, version in installed_versions().items() if name in _LIBRARIES}
    own = [code for kind in kinds if (code := own_code(kind))]
    return record_key(package_fingerprint(*_ROOMS), versions, *own)


def record_key(*parts: Any) -> str:
    """Return a hash of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Records:
    """Records of the trained folds, in a folder that all nodes see or at a URI."""

    def __init__(self, place: str | Path) -> None:
        self.storage = Storage(place, "record of a fold")

    def load(self, key: str) -> FoldRecord | None:
        """Return a record, None where there is none that can be read."""
        try:
            with np.load(io.BytesIO(self.storage.read(f"{key}.npz")), allow_pickle=False) as arrays:
                facts = json.loads(bytes(arrays["facts"]).decode())
                return FoldRecord(**facts, **{name: arrays[name] for name in _ARRAYS})
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, key: str, record: FoldRecord) -> None:
        """Write a record. Raises BitcornError where it cannot be written."""
        facts = {name: value for name, value in vars(record).items() if name not in _ARRAYS}
        content = io.BytesIO()
        np.savez(
            content,
            facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
            **{name: getattr(record, name) for name in _ARRAYS},
        )
        self.storage.publish(f"{key}.npz", content.getvalue())


class Journal:
    """The trials of a sweep, in the order in which they were chosen. storage: of the sweep."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self) -> dict[str, Trial]:
        """Return the latest state of all trials by name."""
        trials: dict[str, Trial] = {}
        for line in self._storage.lines(_LOG):
            try:
                values = json.loads(line)
                trial = Trial(**{**values, "losses": tuple(values["losses"])})
            except (ValueError, KeyError, TypeError):  # torn when the driver died
                continue
            trials[trial.name] = trial
        return trials

    def take(self, trial: Trial | None, event: Any) -> Trial:
        """Return how a trial stands after an event of `run_trials`, and note its beginning and its end.

        trial: as it stood, None where it was not known. Raises BitcornError where it cannot be.
        """
        if event.kind == "chosen" or trial is None:
            trial = Trial(name=event.trial, point=event.point, setting=event.configuration)
        elif event.kind == "fold":
            seconds = trial.seconds + (event.told["seconds"] or 0.0)
            return replace(trial, losses=(*trial.losses, event.told["fold_loss"]), seconds=seconds)
        else:
            trial = replace(trial, state=event.outcome.state, losses=event.outcome.losses, error=event.error)
        self.write(trial)
        return trial

    def write(self, trial: Trial) -> None:
        """Add how a trial stands. Raises BitcornError where that cannot be done."""
        self._storage.add_line(_LOG, json.dumps(asdict(replace(trial, setting=dict(trial.setting)))))
