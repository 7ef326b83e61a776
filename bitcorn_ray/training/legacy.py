"""Trained models of the older system, made into runs.

A folder of it holds model.pt (a state dict: `lstm.*`, and for each horizon h `heads_ret.<h>.{0,2}.*` and
`heads_vol.<h>.{0,2}.*`), a scaler that joblib pickled, and a JSON file with `feature_cols`, `seq_len`, `horizons`,
`hidden` and `num_layers`. Its heads say returns and, behind a softplus, volatilities in real units.

The older system kept no scores and no data range. So nothing is known of what was in its training: forecasts are
marked "unknown", and their bands start on the bars that are forecast from, infinite until there are enough scores.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitcorn_ray.datasets.scaling import scaler_from_json, scaler_to_json
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.config import LSTMConfig
from bitcorn_ray.models.neural.model import LSTMModel
from bitcorn_ray.models.neural.network import Network, from_per_horizon_heads, load_weights
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.run import FORMAT, Run

_WEIGHTS = ("model.pt", "model.pth")
_SCALERS = ("scaler.pkl", "scaler.joblib", "scaler.save")
_WRAPPED = ("model_state_dict", "state_dict", "model_state", "model")  # how a checkpoint may hold the weights


def import_older(folder: str | Path, *, feature_system: str, timeframe: str | None, trust_pickle: bool) -> Run:
    """Make a run of a trained model of the older system.

    feature_system: that computes its features. timeframe: of its bars, where its JSON file does not say it.
    trust_pickle: unpickle the scaler, which can run any code that its writer put into it.
    Raises BitcornError where a file is missing or is not understood, and where the scaler is not trusted.
    """
    storage = Storage(folder, "older model")
    found, meta = _read_meta(storage)
    shown = f"{storage.shown}/{found}"
    config = _config(shown, meta)
    timeframe = timeframe or meta.get("timeframe")
    if not timeframe:
        raise BitcornError(f"{shown} does not say the timeframe of its bars: give it, such as 1h")
    columns = [str(name) for name in meta["feature_cols"]]
    state = _read_state(storage, _first_of(storage, _WEIGHTS))
    network = Network(len(columns), config)
    try:
        load_weights(network, from_per_horizon_heads(state, config.horizons))
    except (KeyError, RuntimeError) as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise BitcornError(f"the weights in {storage.shown} are not those of {found}: {what}") from error
    network.eval()
    scaler = _read_scaler(storage, _first_of(storage, _SCALERS), columns, trust_pickle)
    symbol = meta.get("symbol")
    unknown = dict.fromkeys(("bars", "first", "last", "train", "validation", "test"))
    metadata = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "imported_from": storage.shown,
        "timeframe": str(timeframe),
        "partitions": [{"symbol": str(symbol), "timeframe": str(timeframe), **unknown}] if symbol else [],
        "feature_system": feature_system,
        "feature_version": None,
        "feature_cols": columns,
        "horizons": list(config.horizons),
        "seq_len": config.seq_len,
        "model": config.to_json(),
        "scaler": scaler_to_json(scaler),
        "calibration": {"method": "none, as the older system kept no scores: bands start on the bars forecast from"},
    }
    return Run(LSTMModel(config, network), scaler, metadata)


def _first_of(storage: Storage, names: tuple[str, ...]) -> str:
    there = storage.existing(names)
    for name in names:
        if name in there:
            return name
    raise BitcornError(f"{storage.shown} has no {' or '.join(names)}: give the folder that the older system wrote")


def _read_meta(storage: Storage) -> tuple[str, dict[str, Any]]:
    """Name and content of the JSON file that describes the model, by its content."""
    for name in storage.names():
        try:
            meta = json.loads(bytes(storage.read(name))) if name.endswith(".json") else None
        except (OSError, ValueError):
            continue
        if isinstance(meta, dict) and "feature_cols" in meta:
            if "format" in meta:
                raise BitcornError(f"{storage.shown} holds a run already: there is nothing to import")
            return name, meta
    raise BitcornError(
        f"{storage.shown} has no JSON file with feature_cols: give the folder that the older system wrote"
    )


def _config(path: str, meta: Mapping[str, Any]) -> LSTMConfig:
    hidden = next((meta[name] for name in ("hidden", "hidden_size", "hidden_dim") if name in meta), None)
    absent = [name for name in ("seq_len", "horizons", "num_layers") if name not in meta]
    if absent or hidden is None:
        raise BitcornError(f"{path} has no {', '.join([*absent, *(['hidden'] if hidden is None else [])])}")
    try:
        return LSTMConfig(
            horizons=tuple(int(horizon) for horizon in meta["horizons"]),
            seq_len=int(meta["seq_len"]),
            hidden_size=int(hidden),
            num_layers=int(meta["num_layers"]),
            dropout=float(meta.get("dropout", 0.0)),
            reference_span=0,
            volatility_link="softplus",
        )
    except (TypeError, ValueError) as error:
        raise BitcornError(f"{path} is not understood: {error}") from error


def _read_state(storage: Storage, found: str) -> dict[str, Tensor]:
    path = f"{storage.shown}/{found}"
    try:
        state = torch.load(io.BytesIO(storage.read(found)), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise BitcornError(
            f"{path} is no state dict of tensors ({str(error).partition('.')[0]}): save model.state_dict() and not the "
            "model itself"
        ) from error
    for name in _WRAPPED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BitcornError(f"{path} holds no state dict of tensors: save model.state_dict()")
    return {str(name).removeprefix("module."): value.float() for name, value in state.items()}


def _read_scaler(storage: Storage, found: str, columns: list[str], trust_pickle: bool) -> Any:
    """Rebuild the StandardScaler from its numbers."""
    path = f"{storage.shown}/{found}"
    if not trust_pickle:
        raise BitcornError(
            f"{path} is a pickle, and to read a pickle is to run whatever code its writer put into it: pass "
            "--trust-pickle where you know who that was"
        )
    import joblib

    try:
        scaler = joblib.load(io.BytesIO(storage.read(found)))
    except Exception as error:  # whatever the pickle does
        raise BitcornError(f"{path} cannot be unpickled: {type(error).__name__}: {error}") from error
    mean, scale = getattr(scaler, "mean_", None), getattr(scaler, "scale_", None)
    if type(scaler).__name__ != "StandardScaler" or mean is None or scale is None:
        raise BitcornError(
            f"{path} holds a {type(scaler).__name__}, and not a fitted StandardScaler with mean and scale"
        )
    names = [str(name) for name in getattr(scaler, "feature_names_in_", columns)]
    if len(mean) != len(columns) or names != columns:
        raise BitcornError(
            f"{path} was fitted on {len(mean)} features ({', '.join(names)}), not on {', '.join(columns)}"
        )
    rows = int(np.max(getattr(scaler, "n_samples_seen_", 0)))
    means, scales = ([float(value) for value in numbers] for numbers in (mean, scale))
    variances = [value**2 for value in scales]
    return scaler_from_json({"mean": means, "scale": scales, "variance": variances, "rows": rows})
