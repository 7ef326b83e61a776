"""Import of trained models of the older system as runs.

Its folder holds model.pt (a state dict: `lstm.*`, and for each horizon h `heads_ret.<h>.{0,2}.*` and
`heads_vol.<h>.{0,2}.*`), a scaler that joblib pickled, and a JSON file with `feature_cols`, `seq_len`, `horizons`,
`hidden` and `num_layers`. Its heads give returns and, behind a softplus, volatilities in real units.

The older system kept no scores and no data range: forecasts are marked "unknown", and their bands start on the bars
that are forecast from, infinite until there are enough scores.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
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
from bitcorn_ray.models.neural.model import NetworkModel, read_state
from bitcorn_ray.models.neural.network import Network, load_weights
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.run import FORMAT, Run

_WEIGHTS = ("model.pt", "model.pth")
_SCALERS = ("scaler.pkl", "scaler.joblib", "scaler.save")
_WRAPPERS = ("model_state_dict", "state_dict", "model_state", "model")  # names of the weights in a checkpoint


def import_older(folder: str | Path, *, feature_system: str, timeframe: str | None, trust_pickle: bool) -> Run:
    """Return the run of a trained model of the older system.

    feature_system: of its features. timeframe: of its bars, if its JSON file does not have it. trust_pickle: unpickle
    the scaler, which can run any code that its writer put into it.
    Raises BitcornError if a file is missing or has other content, and if the scaler is not trusted.
    """
    storage = Storage(folder, "older model")
    name, meta = _read_meta(storage)
    path = f"{storage.shown}/{name}"
    config = _config(path, meta)
    timeframe = timeframe or meta.get("timeframe")
    if not timeframe:
        raise BitcornError(f"{path} does not say the timeframe of its bars: give it, such as 1h")
    columns = [str(column) for column in meta["feature_cols"]]
    network = Network(len(columns), config)
    try:
        load_weights(network, from_per_horizon_heads(_read_weights(storage), config.horizons))
    except (KeyError, RuntimeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise BitcornError(f"the weights in {storage.shown} are not those of {name}: {reason}") from error
    scaler = _read_scaler(storage, columns, trust_pickle)
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
    return Run(NetworkModel(config, network.eval()), scaler, metadata)


def from_per_horizon_heads(state: Mapping[str, Tensor], horizons: Sequence[int]) -> dict[str, Tensor]:
    """Return a state dict with `heads.*` for one with heads for each horizon. Other names stay as they are.

    Raises KeyError if a horizon has no head.
    """
    keys = [f"heads_{kind}.{horizon}" for kind in ("ret", "vol") for horizon in horizons]
    heads = {
        f"heads.{name}": torch.cat([state[f"{key}.{older}"] for key in keys])
        for name, older in {
            "weight": "0.weight", "bias": "0.bias", "out_weight": "2.weight", "out_bias": "2.bias",
        }.items()
    }  # fmt: skip
    others = {name: value for name, value in state.items() if not name.startswith(("heads_ret.", "heads_vol."))}
    return {**others, **heads}


def _existing(storage: Storage, names: tuple[str, ...]) -> str:
    present = storage.existing(names)
    for name in names:
        if name in present:
            return name
    raise BitcornError(f"{storage.shown} has no {' or '.join(names)}: give the folder that the older system wrote")


def _read_meta(storage: Storage) -> tuple[str, dict[str, Any]]:
    """Return the name and the content of the JSON file with `feature_cols`."""
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
        raise BitcornError(f"{path} has an impossible value: {error}") from error


def _read_weights(storage: Storage) -> dict[str, Tensor]:
    name = _existing(storage, _WEIGHTS)
    remedy = f"{storage.shown}/{name} is not a state dict of tensors: save model.state_dict(), not the model itself"
    try:
        state: Any = read_state(storage.read(name))
    except (OSError, RuntimeError, EOFError, UnpicklingError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise BitcornError(f"{remedy} ({str(error).partition('.')[0]})") from error
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BitcornError(remedy)
    return {str(name).removeprefix("module."): value.float() for name, value in state.items()}


def _read_scaler(storage: Storage, columns: list[str], trust_pickle: bool) -> Any:
    """Return a StandardScaler with the numbers of the pickled one."""
    import joblib

    name = _existing(storage, _SCALERS)
    path = f"{storage.shown}/{name}"
    if not trust_pickle:
        raise BitcornError(
            f"{path} is a pickle, which can run any code that its writer put into it: pass --trust-pickle if you know "
            "the writer"
        )
    try:
        scaler = joblib.load(io.BytesIO(storage.read(name)))
    except Exception as error:  # anything can fail in a pickle
        raise BitcornError(f"{path} cannot be unpickled: {type(error).__name__}: {error}") from error
    if type(scaler).__name__ != "StandardScaler" or getattr(scaler, "scale_", None) is None or scaler.mean_ is None:
        raise BitcornError(f"{path} holds a {type(scaler).__name__}, not a fitted StandardScaler with mean and scale")
    names = [str(column) for column in getattr(scaler, "feature_names_in_", columns)]
    if len(scaler.mean_) != len(columns) or names != columns:
        raise BitcornError(
            f"{path} was fitted on {len(scaler.mean_)} features ({', '.join(names)}), not on {', '.join(columns)}"
        )
    mean, scale = (np.asarray(values, np.float64) for values in (scaler.mean_, scaler.scale_))
    rows = int(np.max(getattr(scaler, "n_samples_seen_", 0)))
    return scaler_from_json({"mean": mean, "scale": scale, "variance": scale**2, "rows": rows})
