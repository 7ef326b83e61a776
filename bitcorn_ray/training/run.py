"""A run: one training and its artifacts, in a folder or at a URI.

    metadata.json     the configuration, data, history, scaler and lineage; written last: without it there is no run
    calibration.npz   the scores of the validation windows, from which bands start
    scaler.pkl        the fitted StandardScaler, for code of the older system; never read here
    model.pt, ...     the files of the fitted model, as its kind writes them (`models.base.Model.artifacts`)

`load_run` reads tensors, arrays and JSON, and never unpickles. metadata.json holds the digests of the other files, so
that files of two runs are never mixed.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.datasets.scaling import scaler_from_json, scaler_to_json
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.metrics.calibration import COVERAGES, SCORE_WINDOW, conformal_quantile, conformal_scores
from bitcorn_ray.models.base import FitResult, Model, ModelConfig, Shape, WindowSet
from bitcorn_ray.models.neural.config import TrainingConfig
from bitcorn_ray.models.registry import model_class, model_config
from bitcorn_ray.storage.arrays import pack_arrays, unpack_arrays
from bitcorn_ray.storage.location import Location, reason_of
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.artifacts import digest, read_checked, strict_json
from bitcorn_ray.training.lineage import installed_versions

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler


PathOrUri = TypeVar("PathOrUri", str, Path)

FORMAT = 2
# The metadata that a forecast needs.
_NEEDED = {
    "timeframe", "partitions", "feature_system", "feature_version", "feature_cols", "model", "scaler", "calibration",
}  # fmt: skip
_METADATA, _SCALER, _CALIBRATION = "metadata.json", "scaler.pkl", "calibration.npz"
_BEFORE_ALL_TIMES = -(2**40)  # number of the first bar without a time: before any bar with one


@dataclass(frozen=True)
class PastScores:
    """The errors of past forecasts of one partition, |outcome - forecast| / volatility.

    bars: (M,) int64, ascending: number of each forecast's last bar on the timeframe's grid, its open time divided by
    the timeframe. scores: (M, H).
    """

    bars: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass
class Run:
    """A fitted model with its scaler, metadata and calibration.

    scaler: of the features. metadata: plain JSON values. scores: of the validation windows, in the order of
    metadata["partitions"]; empty if the model was not calibrated.
    """

    model: Model
    scaler: StandardScaler
    metadata: dict[str, Any]
    scores: list[PastScores] = field(default_factory=list)

    @property
    def config(self) -> ModelConfig:
        """Return the model's configuration."""
        config: ModelConfig = self.model.config
        return config

    def move_to(self, device: str) -> None:
        """Move the model to a device, if it has a network."""
        if (network := getattr(self.model, "network", None)) is not None:
            network.to(device)

    def partition_index(self, symbol: str) -> int | None:
        """Return the index of a symbol, in any spelling, among the run's partitions; None if it was not trained on."""
        for index, partition in enumerate(self.metadata["partitions"]):
            if normalise_symbol(partition["symbol"]) == normalise_symbol(symbol):
                return index
        return None


def assemble_run(
    model: Model,
    result: FitResult,
    data: Dataset,
    scaler: StandardScaler,
    training: TrainingConfig,
    feature_cols: list[str],
    about: dict[str, Any],
) -> Run:
    """Return the run of a fitted model, with its calibration started on the validation windows.

    about: further facts for the metadata: timeframe, symbol, feature system and its identity, data.
    Model selection has seen the validation windows too, so the first bands are slightly optimistic until newer scores
    replace these. The test windows are not read.
    """
    config: ModelConfig = model.config
    step = timeframe_ms(about["timeframe"])
    scores = [_validation_scores(model, data, index, step) for index in range(len(data.names))]
    best = result.best_epoch
    metadata = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "partitions": [_partition(data, index, about["timeframe"]) for index in range(len(data.names))],
        "feature_cols": list(feature_cols),
        "horizons": list(config.horizons),
        "seq_len": config.seq_len,
        "model": config.to_json(),
        "training": asdict(training),
        "scaler": scaler_to_json(scaler),
        "calibration": {
            "method": "rolling conformal, started on the validation windows",
            "window": SCORE_WINDOW,
            "coverages": list(COVERAGES),
            "bands": [{str(c): conformal_quantile(own.scores, c).tolist() for c in COVERAGES} for own in scores],
        },
        "best_epoch": best.epoch,
        "val_loss": best.val_loss,
        "history": [asdict(epoch) for epoch in result.history],
        "precision": result.precision,
        "learned": result.learned,
        **({"notes": result.notes} if result.notes else {}),
        "versions": installed_versions(),
    }
    return Run(model, scaler, json.loads(strict_json(metadata)), scores)


def run_storage(path: str | Path) -> Storage:
    """Return the storage of a run. path: a folder, or a URI such as `s3://bucket/run`."""
    return Storage(path, "run", "make room, or give another --out")


def is_run(path: str | Path) -> bool:
    """Return True if a folder or URI holds a run."""
    return run_storage(path).has(_METADATA)


def find_runs(path: str | Path) -> list[str]:
    """Return the paths of all runs below a folder or URI, from there ("" for itself), sorted.

    Hidden folders are skipped. Raises BitcornError if there is no such folder.
    """
    root = Location.of(path)
    if not root.is_remote and not root.path.is_dir():
        raise BitcornError(f"no folder {root}: give the one that trainings wrote their runs to")
    names = (file.relative_to(root) for file in root.files(lambda folder: not folder.startswith(".")))
    found = (name.rpartition("/") for name in names)
    return sorted(
        folder
        for folder, _, name in found
        if name == _METADATA and not any(part.startswith(".") for part in folder.split("/"))
    )


def save_run(run: Run, path: PathOrUri) -> PathOrUri:
    """Write the files of a run to a folder or URI, replacing an older run, and return the path.

    Raises BitcornError if it cannot be written or the disk is full; an older run in a folder is then unchanged.
    """
    import joblib

    scaler = io.BytesIO()
    joblib.dump(run.scaler, scaler)
    arrays = {f"{name}_{index}": array for index, own in enumerate(run.scores) for name, array in vars(own).items()}
    files = {**run.model.artifacts(), _SCALER: scaler.getvalue(), _CALIBRATION: pack_arrays(arrays)}
    digests = {name: digest(content) for name, content in files.items()}
    metadata = strict_json({**run.metadata, "files": digests}).encode()
    run_storage(path).publish_together({**files, _METADATA: metadata})
    return path


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a run, without reading its model.

    Raises BitcornError if the folder or URI holds no run, a damaged one, or one of a newer version.
    """
    storage = run_storage(path)
    if not storage.has(_METADATA):
        raise BitcornError(f"{storage.shown} holds no run (no {_METADATA}): give the folder that a training wrote")
    try:
        metadata: dict[str, Any] = json.loads(bytes(storage.read(_METADATA)))
        if not isinstance(metadata, dict):
            raise ValueError(f"{_METADATA} holds no fields")
        number = metadata.get("format")
        if number is None and "feature_cols" in metadata:
            raise BitcornError(
                f"{storage.shown} holds a model of the older system: convert it with `bitcorn runs import`"
            )
        if number == 1:
            raise BitcornError(f"the run in {storage.shown} has format 1, of bitcorn_ray 0.2 or older: train it anew")
        if isinstance(number, int) and number > FORMAT:
            raise BitcornError(
                f"the run in {storage.shown} has format {number}, newer than {FORMAT}: update bitcorn_ray"
            )
        if absent := _NEEDED - metadata.keys():
            raise ValueError(f"{_METADATA} has no {', '.join(sorted(absent))}")
    except BitcornError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(storage, error) from error
    return metadata


def load_run(path: str | Path, device: str = "cpu") -> Run:
    """Return a run from its tensors, arrays and JSON. Nothing is unpickled.

    path: a folder, or a URI such as `s3://bucket/run`. device: for the model.
    Raises BitcornError if there is no run, or if it is damaged.
    """
    metadata, storage = read_metadata(path), run_storage(path)
    try:
        digests = metadata.pop("files", {})
        config = model_config(metadata["model"], "the model of the run")
        step = timeframe_ms(metadata["timeframe"])
        shape = Shape(len(metadata["feature_cols"]), len(metadata["partitions"]), step)
        others = (_SCALER, _CALIBRATION)
        names = [name for name in digests if name not in others]
        artifacts = {name: read_checked(storage, name, digests) for name in names}
        scores = _read_scores(read_checked(storage, _CALIBRATION, digests)) if _CALIBRATION in digests else []
        if scores and len(scores) != len(metadata["partitions"]):
            raise ValueError(f"{_CALIBRATION} has {len(scores)} partitions")
        model = model_class(config.kind).restore(config, shape, artifacts)
    except (
        OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, EOFError, UnpicklingError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise _damaged(storage, error) from error
    run = Run(model, scaler_from_json(metadata["scaler"]), metadata, scores)
    run.move_to(device)
    return run


def _validation_scores(model: Model, data: Dataset, index: int, step: int) -> PastScores:
    """Return the scores of a partition's validation windows, as many of the last ones as can still count."""
    config: ModelConfig = model.config
    kept = SCORE_WINDOW + max(config.horizons)
    rows = _rows_of(data, data.validation_ends, index)[-kept:]
    forecast = model.predict(WindowSet.of_dataset(data, rows, config))
    scores = conformal_scores(forecast.returns, forecast.volatilities, data.returns[rows]).astype(np.float32)
    bars = rows + _BEFORE_ALL_TIMES if data.timestamp is None else data.timestamp[rows] // step
    return PastScores(bars, scores)


def _partition(data: Dataset, index: int, timeframe: str) -> dict[str, Any]:
    """Return the metadata of one partition: the range of its bars, and of the last bars of each part's windows."""
    start, stop = (int(data.partition_starts[index + n]) for n in (0, 1))

    def span(rows: NDArray[np.int64]) -> list[str] | None:
        if data.timestamp is None or len(rows) == 0:
            return None
        return [show_time(int(data.timestamp[row])) for row in (rows[0], rows[-1])]

    first, last = span(np.array([start, stop - 1])) or (None, None)
    named = Partition(data.names[index].removesuffix(f" {timeframe}"), timeframe)
    parts = {"train": data.train_ends, "validation": data.validation_ends, "test": data.test_ends}
    spans = {part: span(_rows_of(data, ends, index)) for part, ends in parts.items()}
    return {**asdict(named), "bars": stop - start, "first": first, "last": last, **spans}


def _rows_of(data: Dataset, ends: NDArray[np.int64], index: int) -> NDArray[np.int64]:
    first, last = np.searchsorted(ends, data.partition_starts[index : index + 2])
    return ends[first:last]


def _read_scores(content: bytes) -> list[PastScores]:
    arrays = unpack_arrays(content)
    count = sum(name.startswith("bars_") for name in arrays)
    return [PastScores(arrays[f"bars_{index}"], arrays[f"scores_{index}"]) for index in range(count)]


def _damaged(storage: Storage, error: Exception) -> BitcornError:
    return BitcornError(f"the run in {storage.shown} is damaged: {reason_of(error, storage.address)}; train it anew")
