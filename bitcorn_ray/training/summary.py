"""What runs say about themselves, briefly, and how several differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Of the metadata, what a comparison leaves out: it differs from run to run without meaning anything.
_PASSED_OVER = ("run", "created")


def summary(run: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a run in plain values: where it is, its data, features, network, training and losses."""
    best = metadata.get("best_epoch")
    epochs = metadata.get("history") or []
    chosen = [epoch for epoch in epochs if epoch.get("epoch") == best]
    horizons = metadata["model"]["horizons"]
    losses = chosen[-1].get("val_loss_by_horizon", []) if chosen else []
    return {
        "run": run,
        "created": metadata.get("created"),
        "imported_from": metadata.get("imported_from"),
        "symbols": [partition["symbol"] for partition in metadata["partitions"]],
        "timeframe": metadata["timeframe"],
        "feature_system": metadata["feature_system"],
        "feature_version": metadata["feature_version"],
        "features": len(metadata["feature_cols"]),
        **{part: _span(metadata["partitions"], part) for part in ("train", "validation", "test")},
        "windows": {
            part: (metadata.get("data") or {}).get(f"{part}_windows") for part in ("train", "validation", "test")
        },
        "model": dict(metadata["model"]),
        "training": dict(metadata.get("training") or {}),
        "epochs": len(epochs),
        "best_epoch": best,
        "val_loss": metadata.get("val_loss"),
        "val_loss_by_horizon": dict(zip(map(str, horizons), losses, strict=False)),
        "calibration": metadata["calibration"].get("method"),
        "versions": dict(metadata.get("versions") or {}),
    }


def comparison(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare runs: what differs, a list of values by name, their losses, and whether these can be compared.

    Losses can be where all runs validate on the same windows with the same loss.
    """
    flat = [_flat(each) for each in summaries]
    names = list(dict.fromkeys(name for each in flat for name in each))
    values = {name: [each.get(name) for each in flat] for name in names}
    losses = {
        name: value for name, value in values.items() if name.split(".")[0] in ("val_loss", "val_loss_by_horizon")
    }
    differs = {
        name: value
        for name, value in values.items()
        if name not in losses and name not in _PASSED_OVER and any(one != value[0] for one in value)
    }
    told_by = ("validation", "windows.validation", "training.loss", "symbols", "timeframe", "model.horizons")
    reasons = [name for name in told_by if name in differs]
    return {
        "runs": [each["run"] for each in summaries],
        "differs": differs,
        "losses": losses,
        "comparable": not reasons,
        "not_comparable_for": reasons,
    }


def _span(partitions: Sequence[Mapping[str, Any]], part: str) -> list[str] | None:
    """From the first to the last window of a part, over all partitions."""
    spans = [partition[part] for partition in partitions if partition.get(part)]
    return [min(span[0] for span in spans), max(span[1] for span in spans)] if spans else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
