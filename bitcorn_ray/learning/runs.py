"""A run: one training and its folder of artifacts.

    model.pt        the weights, a state dict of tensors
    scaler.pkl      the fitted StandardScaler, for code of the older system
    metadata.json   everything else, the scaler's numbers included; written last, so that a folder without it is no run

`load_run` reads model.pt (tensors only) and metadata.json, and never unpickles.
"""

from __future__ import annotations

import json
import math
import os
import platform
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.dataset import TrainingData
from bitcorn_ray.learning.model import LSTMMultiHead
from bitcorn_ray.learning.predict import predict_windows
from bitcorn_ray.learning.scaling import scaler_from_json, scaler_to_json
from bitcorn_ray.learning.training import FitResult, build_model
from bitcorn_ray.validation.calibration import COVERAGES, conformal_quantile, conformal_scores

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

__all__ = ["Run", "assemble_run", "is_run", "load_run", "require_writable", "save_run"]

_FORMAT = 1
# What a forecast needs of the metadata.
_NEEDED = {"symbol", "timeframe", "feature_system", "feature_version", "feature_cols", "model", "scaler", "calibration"}


@dataclass
class Run:
    """A trained model with what is needed to use it.

    model: with the best epoch's weights, in evaluation mode. scaler: of the features. metadata: plain JSON values.
    """

    model: LSTMMultiHead
    scaler: StandardScaler
    metadata: dict[str, Any]

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return ModelConfig(**{**self.metadata["model"], "horizons": tuple(self.metadata["model"]["horizons"])})


def assemble_run(
    fitted: FitResult,
    data: TrainingData,
    scaler: StandardScaler,
    model_config: ModelConfig,
    config: TrainingConfig,
    feature_cols: list[str],
    about: dict[str, Any],
) -> Run:
    """Make a run of a finished training: the model rebuilt, its bands calibrated on the validation windows.

    about: further facts for the metadata (symbol, timeframe, feature system, data). Early stopping has seen the
    validation windows too, so that its bands are as honest as that: a rolling calibration goes on from new bars.
    """
    model = build_model(data.matrix.shape[1], model_config)
    model.load_state_dict(fitted.weights)
    model.eval()
    ends = data.validation_ends
    forecast, volatility = predict_windows(model, data.matrix, ends, model_config.seq_len)
    scores = conformal_scores(forecast, volatility, data.returns[ends])
    bands = {str(level): [_finite(q) for q in conformal_quantile(scores, level)] for level in COVERAGES}
    best = fitted.best_epoch
    metadata = {
        "format": _FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "feature_cols": list(feature_cols),
        "horizons": list(model_config.horizons),
        "seq_len": model_config.seq_len,
        "model": {**asdict(model_config), "horizons": list(model_config.horizons)},
        "training": asdict(config),
        "scaler": scaler_to_json(scaler),
        "calibration": {"method": "split conformal on the validation windows", "scores": len(ends), "bands": bands},
        "best_epoch": best.epoch,
        "val_loss": best.val_loss,
        "history": [asdict(result) for result in fitted.history],
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    return Run(model, scaler, metadata)


def is_run(folder: str | Path) -> bool:
    """Tell whether a folder holds a run."""
    return (Path(folder) / "metadata.json").is_file()


def require_writable(folder: str | Path) -> None:
    """Raise BitcornError where a folder could not be written to or made; asked before what takes long."""
    folder = Path(folder).expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise BitcornError(f"nothing can be written to {folder}: {existing} is no folder that may be written")


def save_run(run: Run, folder: str | Path) -> Path:
    """Write the artifacts of a run; each file is there whole or not at all, metadata.json last.

    Raises BitcornError where the folder cannot be written.
    """
    import joblib

    folder = Path(folder).expanduser()
    metadata = json.dumps(run.metadata, indent=1, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # An older run's metadata must not describe new weights, should the writing be cut short.
        (folder / "metadata.json").unlink(missing_ok=True)
        _replace(folder / "model.pt", lambda path: torch.save(run.model.state_dict(), path))
        _replace(folder / "scaler.pkl", lambda path: joblib.dump(run.scaler, path))
        _replace(folder / "metadata.json", lambda path: path.write_text(metadata, encoding="utf-8"))
    except OSError as error:
        raise BitcornError(f"the run cannot be written to {folder}: {error}") from error
    return folder


def load_run(folder: str | Path) -> Run:
    """Rebuild model and scaler from weights and JSON alone; nothing is unpickled.

    Raises BitcornError where the folder holds no run, or one that is damaged.
    """
    folder = Path(folder).expanduser()
    if not is_run(folder):
        raise BitcornError(f"{folder} holds no run (no metadata.json): give the folder that a training wrote")
    try:
        metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        if absent := _NEEDED - metadata.keys():
            raise ValueError(f"metadata.json has no {', '.join(sorted(absent))}")
        run = Run(LSTMMultiHead(1), scaler_from_json(metadata["scaler"]), metadata)
        run.model = build_model(len(metadata["feature_cols"]), run.config)
        run.model.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError, UnpicklingError) as error:
        what = str(error).partition("\n")[0] or type(error).__name__
        raise BitcornError(f"the run in {folder} is damaged: {what}; train it anew") from error
    run.model.eval()
    return run


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _finite(value: float) -> float | None:
    """JSON has no infinity: a band without a bound is None."""
    return float(value) if math.isfinite(value) else None
