"""A run: one training and its artifacts, in a folder or at a URI.

    model.pt          the weights, a state dict of tensors
    scaler.pkl        the fitted StandardScaler, for code of the older system
    calibration.npz   the scores of the validation windows, from which bands roll on
    metadata.json     everything else, the scaler's numbers included; written last: a folder without it is no run

`load_run` reads tensors, arrays and JSON, and never unpickles. metadata.json holds the digests of the other files, so
that those of two runs are never taken for one.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.datasets.scaling import scaler_from_json, scaler_to_json
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import show_time
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import timeframe_ms
from bitcorn_ray.metrics.calibration import COVERAGES, RollingConformal, conformal_quantile, conformal_scores
from bitcorn_ray.models.neural.config import ModelConfig, TrainingConfig
from bitcorn_ray.models.neural.heads import from_per_horizon_heads
from bitcorn_ray.models.neural.machine import installed_versions
from bitcorn_ray.models.neural.network import LSTMMultiHead, build_model
from bitcorn_ray.models.neural.predict import predict_windows
from bitcorn_ray.models.neural.trainer import FitResult
from bitcorn_ray.storage.location import Location, reason_of
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.artifacts import digest, read_checked, strict_json

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

__all__ = [
    "FORMAT", "PastScores", "Run", "assemble_run", "find_runs", "is_run", "load_run", "load_weights", "read_metadata",
    "run_storage", "save_run",
]  # fmt: skip

Place = TypeVar("Place", str, Path)

FORMAT = 2
# What a forecast needs of the metadata.
_NEEDED = {
    "timeframe", "partitions", "feature_system", "feature_version", "feature_cols", "model", "scaler", "calibration",
}  # fmt: skip
_METADATA, _MODEL, _SCALER, _CALIBRATION = "metadata.json", "model.pt", "scaler.pkl", "calibration.npz"
_BEFORE_ALL_TIMES = -(2**40)  # the number of a bar without a time: it lies before any that has one


@dataclass(frozen=True)
class PastScores:
    """How far off the forecasts of one partition were: |outcome - forecast| / volatility.

    bars: (M,) int64, ascending: number of each forecast's last bar on the timeframe's grid, its opening divided by the
    timeframe. scores: (M, H).
    """

    bars: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass
class Run:
    """A trained model with what is needed to use it.

    model: with the best epoch's weights, in evaluation mode. scaler: of the features. metadata: plain JSON values.
    scores: of the validation windows, in the order of metadata["partitions"]; empty where nothing was calibrated.
    """

    model: LSTMMultiHead
    scaler: StandardScaler
    metadata: dict[str, Any]
    scores: list[PastScores] = field(default_factory=list)

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return ModelConfig(**{**self.metadata["model"], "horizons": tuple(self.metadata["model"]["horizons"])})

    def place_of(self, symbol: str) -> int | None:
        """Place of a symbol, in any spelling, among the run's partitions; None where it was not trained on."""
        for place, partition in enumerate(self.metadata["partitions"]):
            if normalise_symbol(partition["symbol"]) == normalise_symbol(symbol):
                return place
        return None


def assemble_run(
    fitted: FitResult,
    data: Dataset,
    scaler: StandardScaler,
    model_config: ModelConfig,
    config: TrainingConfig,
    feature_cols: list[str],
    about: dict[str, Any],
) -> Run:
    """Make a run of a finished training: the model rebuilt, its calibration begun on the validation windows.

    about: further facts for the metadata: timeframe, symbol, feature system and its identity, data.
    Early stopping has seen the validation windows too, so that bands are as honest as that until they have rolled on.
    Nothing of the test windows is looked at.
    """
    model = build_model(data.matrix.shape[1], model_config, len(data.names))
    model.load_state_dict(fitted.weights)
    model.eval()
    step = timeframe_ms(about["timeframe"])
    scores = [_validation_scores(model, data, model_config, place, step) for place in range(len(data.names))]
    best = fitted.best_epoch
    metadata = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "partitions": [_partition(data, place, about["timeframe"]) for place in range(len(data.names))],
        "feature_cols": list(feature_cols),
        "horizons": list(model_config.horizons),
        "seq_len": model_config.seq_len,
        "model": {**asdict(model_config), "horizons": list(model_config.horizons)},
        "training": asdict(config),
        "scaler": scaler_to_json(scaler),
        "calibration": {
            "method": "rolling conformal, begun on the validation windows",
            "window": RollingConformal(model_config.horizons).window,
            "coverages": list(COVERAGES),
            "bands": [{str(c): conformal_quantile(one.scores, c).tolist() for c in COVERAGES} for one in scores],
        },
        "best_epoch": best.epoch,
        "val_loss": best.val_loss,
        "history": [asdict(result) for result in fitted.history],
        "precision": fitted.precision,
        "learned": fitted.learned,
        "versions": installed_versions(),
    }
    return Run(model, scaler, json.loads(strict_json(metadata)), scores)


def run_storage(place: str | Path) -> Storage:
    """Return where a run is or will be. place: a folder, or a URI such as `s3://bucket/run`."""
    return Storage(place, "run", "make room, or give another --out")


def is_run(place: str | Path) -> bool:
    """Tell whether a folder or URI holds a run."""
    return run_storage(place).has(_METADATA)


def find_runs(place: str | Path) -> list[str]:
    """Return the paths of all runs below a folder or URI, from there ("" for itself), sorted.

    Hidden folders are passed over. Raises BitcornError where there is no such folder.
    """
    root = Location.of(place)
    if not root.is_remote and not root.path.is_dir():
        raise BitcornError(f"no folder {root}: give the one that trainings wrote their runs to")
    names = (file.relative_to(root) for file in root.files(lambda folder: not folder.startswith(".")))
    found = (name.rpartition("/") for name in names)
    return sorted(
        folder
        for folder, _, name in found
        if name == _METADATA and not any(part.startswith(".") for part in folder.split("/"))
    )


def save_run(run: Run, place: Place) -> Place:
    """Write the artifacts of a run to a folder or URI, over those of an older one; returns the place.

    Raises BitcornError where it cannot be written or the disk is full; an older run in a folder is then still whole.
    """
    import joblib

    contents = {_MODEL: io.BytesIO(), _SCALER: io.BytesIO(), _CALIBRATION: io.BytesIO()}
    torch.save({name: value.detach().cpu() for name, value in run.model.state_dict().items()}, contents[_MODEL])
    joblib.dump(run.scaler, contents[_SCALER])
    arrays = {f"{what}_{place}": each for place, one in enumerate(run.scores) for what, each in vars(one).items()}
    np.savez(contents[_CALIBRATION], **arrays)
    files = {name: content.getvalue() for name, content in contents.items()}
    digests = {name: digest(content) for name, content in files.items()}
    metadata = strict_json({**run.metadata, "files": digests}).encode()
    run_storage(place).publish_together({**files, _METADATA: metadata})
    return place


def read_metadata(place: str | Path) -> dict[str, Any]:
    """Read what a run says about itself, without its weights.

    Raises BitcornError where the folder or URI holds no run, a damaged one, or one of a newer version.
    """
    storage = run_storage(place)
    if not storage.has(_METADATA):
        raise BitcornError(f"{storage.shown} holds no run (no {_METADATA}): give the place that a training wrote")
    try:
        metadata: dict[str, Any] = json.loads(bytes(storage.read(_METADATA)))
        if not isinstance(metadata, dict):
            raise ValueError(f"{_METADATA} holds no fields")
        number = metadata.get("format")
        if number is None and "feature_cols" in metadata:
            raise BitcornError(
                f"{storage.shown} holds a model of the older system: `bitcorn runs import` makes a run of it"
            )
        if isinstance(number, int) and number > FORMAT:
            raise BitcornError(
                f"the run in {storage.shown} has format {number}, newer than {FORMAT}: update bitcorn_ray"
            )
        if number == 1:
            metadata = _from_format_1(metadata)
        if absent := _NEEDED - metadata.keys():
            raise ValueError(f"{_METADATA} has no {', '.join(sorted(absent))}")
    except BitcornError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(storage, error) from error
    return metadata


def load_run(place: str | Path, device: str = "cpu") -> Run:
    """Rebuild a run from tensors, arrays and JSON alone; nothing is unpickled.

    place: a folder, or a URI such as `s3://bucket/run`. device: for the model. Runs of format 1 are taken over: their
    forecasts stay the same, their bands start anew.
    Raises BitcornError where there is no run, or one that is damaged.
    """
    metadata, storage = read_metadata(place), run_storage(place)
    try:
        digests = metadata.pop("files", {})
        state = torch.load(io.BytesIO(read_checked(storage, _MODEL, digests)), map_location="cpu", weights_only=True)
        if metadata.get("format") == 1:
            state = from_per_horizon_heads(state, metadata["horizons"])
        scores = _read_scores(read_checked(storage, _CALIBRATION, digests)) if _CALIBRATION in digests else []
        if scores and len(scores) != len(metadata["partitions"]):
            raise ValueError(f"{_CALIBRATION} has {len(scores)} partitions")
        run = Run(LSTMMultiHead(1), scaler_from_json(metadata["scaler"]), metadata, scores)
        run.model = build_model(len(metadata["feature_cols"]), run.config, max(len(metadata["partitions"]), 1))
        load_weights(run.model, state)
        run.model.to(device).eval()
    except (
        OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, EOFError, UnpicklingError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise _damaged(storage, error) from error
    return run


def load_weights(model: LSTMMultiHead, state: Mapping[str, Tensor]) -> None:
    """Load a state dict whose heads may have another width, and whose model knew no reference volatility.

    Raises RuntimeError, with what does not fit, where names or other shapes differ.
    """
    for name in ("weight", "bias", "out_weight"):
        if f"heads.{name}" in state:
            setattr(model.heads, name, nn.Parameter(torch.empty_like(state[f"heads.{name}"])))
    own = {name: value for name, value in model.state_dict().items() if name in ("output_scale", "typical_reference")}
    model.load_state_dict({**own, **state})


def _validation_scores(model: LSTMMultiHead, data: Dataset, config: ModelConfig, place: int, step: int) -> PastScores:
    """Scores of a partition's validation windows, as many of the last ones as can still count."""
    kept = RollingConformal(config.horizons).window + max(config.horizons)
    rows = _rows_of(data, data.validation_ends, place)[-kept:]
    symbols = np.full(len(rows), place) if config.symbol_embedding else None
    reference = data.reference if config.reference_span else None
    forecast, volatility = predict_windows(model, data.matrix, reference, rows, config.seq_len, symbols)
    scores = conformal_scores(forecast, volatility, data.returns[rows]).astype(np.float32)
    bars = rows + _BEFORE_ALL_TIMES if data.timestamp is None else data.timestamp[rows] // step
    return PastScores(bars, scores)


def _partition(data: Dataset, place: int, timeframe: str) -> dict[str, Any]:
    """What a run says about one partition: from when to when its bars are, and the last bars of each part's windows."""
    start, stop = (int(data.partition_starts[place + n]) for n in (0, 1))

    def span(rows: NDArray[np.int64]) -> list[str] | None:
        if data.timestamp is None or len(rows) == 0:
            return None
        return [show_time(int(data.timestamp[row])) for row in (rows[0], rows[-1])]

    first, last = span(np.array([start, stop - 1])) or (None, None)
    named = Partition(data.names[place].removesuffix(f" {timeframe}"), timeframe)
    parts = {"train": data.train_ends, "validation": data.validation_ends, "test": data.test_ends}
    spans = {part: span(_rows_of(data, ends, place)) for part, ends in parts.items()}
    return {**asdict(named), "bars": stop - start, "first": first, "last": last, **spans}


def _rows_of(data: Dataset, ends: NDArray[np.int64], place: int) -> NDArray[np.int64]:
    first, last = np.searchsorted(ends, data.partition_starts[place : place + 2])
    return ends[first:last]


def _from_format_1(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata of today for a run of one partition, whose volatility was relative to nothing."""
    model = {**metadata["model"], "reference_span": 0, "volatility_link": "softplus"}
    data = metadata.get("data", {})
    partition = {
        "symbol": metadata["symbol"],
        "timeframe": metadata["timeframe"],
        "bars": data.get("rows"),
        "first": data.get("first_timestamp"),
        "last": data.get("last_timestamp"),
        **dict.fromkeys(("train", "validation", "test")),
    }
    calibration = {"method": "none, as a run of format 1 kept no scores: bands start on the bars forecast from"}
    return {**metadata, "model": model, "partitions": [partition], "calibration": calibration}


def _read_scores(content: bytes) -> list[PastScores]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        count = sum(name.startswith("bars_") for name in arrays.files)
        return [PastScores(arrays[f"bars_{place}"], arrays[f"scores_{place}"]) for place in range(count)]


def _damaged(storage: Storage, error: Exception) -> BitcornError:
    return BitcornError(f"the run in {storage.shown} is damaged: {reason_of(error, storage.address)}; train it anew")
