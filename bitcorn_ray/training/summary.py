"""Short descriptions of runs from their metadata, and comparisons of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_PARTS = ("train", "validation", "test")
_NOT_COMPARED = ("run", "created")  # they differ between any two runs
# Losses can be compared if these are the same.
_DECIDE_THE_LOSS = ("validation", "windows.validation", "training.loss", "symbols", "timeframe", "model.horizons")


def summary(run: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's location, data, features, model, training and losses as plain values."""
    best = metadata.get("best_epoch")
    epochs = metadata.get("history") or []
    losses: list[float] = next(
        (epoch.get("val_loss_by_horizon", []) for epoch in epochs if epoch.get("epoch") == best), []
    )
    counts = metadata.get("data") or {}
    return {
        "run": run,
        "created": metadata.get("created"),
        "imported_from": metadata.get("imported_from"),
        "symbols": [partition["symbol"] for partition in metadata["partitions"]],
        "timeframe": metadata["timeframe"],
        "feature_system": metadata["feature_system"],
        "feature_version": metadata["feature_version"],
        "features": len(metadata["feature_cols"]),
        **{part: _time_range(metadata["partitions"], part) for part in _PARTS},
        "windows": {part: counts.get(f"{part}_windows") for part in _PARTS},
        "model": dict(metadata["model"]),
        "training": dict(metadata.get("training") or {}),
        "epochs": len(epochs),
        "best_epoch": best,
        "val_loss": metadata.get("val_loss"),
        "val_loss_by_horizon": dict(zip(map(str, metadata["model"]["horizons"]), losses, strict=False)),
        "calibration": metadata["calibration"].get("method"),
        "versions": dict(metadata.get("versions") or {}),
    }


def comparison(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields in which runs differ, their losses, and whether the losses can be compared.

    Values are lists with one item for each run. Losses can be compared if all runs validate on the same windows with
    the same loss.
    """
    flat = [_flat(brief) for brief in summaries]
    values = {
        name: [fields.get(name) for fields in flat] for name in dict.fromkeys(name for row in flat for name in row)
    }
    losses = {name: row for name, row in values.items() if name.startswith("val_loss")}
    differs = {
        name: row
        for name, row in values.items()
        if name not in losses and name not in _NOT_COMPARED and any(value != row[0] for value in row)
    }
    reasons = [name for name in _DECIDE_THE_LOSS if name in differs]
    return {
        "runs": [brief["run"] for brief in summaries],
        "differs": differs,
        "losses": losses,
        "comparable": not reasons,
        "not_comparable_for": reasons,
    }


def _time_range(partitions: Sequence[Mapping[str, Any]], part: str) -> list[str] | None:
    """Return the first and the last time of a part over all partitions."""
    ranges = [partition[part] for partition in partitions if partition.get(part)]
    return [min(first for first, _ in ranges), max(last for _, last in ranges)] if ranges else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
