"""Runs on a terminal: many in a list, one in full, several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from bitcorn_ray.report.console import short_time, table


def runs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row a run, by its name in the folder; one that cannot be read is only named."""
    return table(
        ("run", "created", "symbols", "features", "horizons", "network", "best epoch", "validation loss"),
        (
            (row["name"], "", "cannot be read", "", "", "", "", "")
            if row.get("error")
            else (
                row["name"],
                short_time(row["created"]),
                f"{_listed(row['symbols'], 3)} {row['timeframe']}",
                str(row["feature_system"]),
                _listed(row["model"]["horizons"], 6),
                _network(row["model"]),
                f"{row['best_epoch']} of {row['epochs']}" if row["best_epoch"] else "-",
                _number(row["val_loss"]),
            )
            for row in rows
        ),
        left=(0, 1, 2, 3, 4, 5),
    )


def run_table(row: Mapping[str, Any]) -> Table:
    """Everything about one run, a line a fact."""
    return table(("", ""), run_facts(row).items(), left=(0, 1))


def run_facts(row: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a run, in words, by name. row: as `learning.summary.summary` gives it."""
    facts = {
        "run": row["run"],
        "created": short_time(row["created"]),
        "imported from": row["imported_from"],
        "partitions": f"{_listed(row['symbols'], 50) or 'not known'}, {row['timeframe']}",
        "features": f"{row['features']} of {row['feature_system']}, version {row['feature_version'] or 'not known'}",
        **{f"{part} windows": _part(row[part], row["windows"][part]) for part in ("train", "validation", "test")},
        "network": _network(row["model"]),
        "horizons": _listed(row["model"]["horizons"], 50),
        "window": f"{row['model']['seq_len']} bars",
        "training": ", ".join(f"{name} {_value(value)}" for name, value in row["training"].items()),
        "epochs": f"{row['epochs']}, the best was {row['best_epoch']}" if row["epochs"] else None,
        "validation loss": _number(row["val_loss"]) if row["val_loss"] is not None else None,
        "of each horizon": ", ".join(f"{h}: {_number(loss)}" for h, loss in row["val_loss_by_horizon"].items()),
        "calibration": row["calibration"],
        "made with": ", ".join(f"{name} {version}" for name, version in row["versions"].items()),
    }
    return {name: str(value) for name, value in facts.items() if value}


def comparison_tables(result: Mapping[str, Any]) -> tuple[Table | str, ...]:
    """What differs and the losses, a column a run, and whether the losses can be compared."""
    names = ("", *result["runs"])
    rows = [(name, *map(_value, values)) for name, values in result["differs"].items()]
    rows += [(name, *map(_number, values)) for name, values in result["losses"].items()]
    made = table(names, rows, left=(0,))
    if result["comparable"]:
        return (made,)
    reasons = ", ".join(result["not_comparable_for"])
    return made, f"the losses are not comparable: {reasons} differ; `bitcorn evaluate` judges all on the same bars"


def _network(model: Mapping[str, Any]) -> str:
    """Return the kind of a model with its sizes. model: of a run's metadata; an older run has a cell for its kind."""
    extras = [name.replace("_", " ") for name in ("input_norm", "layer_norm", "skip") if model.get(name)]
    kind = str(model.get("kind") or model.get("cell", "lstm"))
    if "hidden_size" in model:
        kind += f" {model['num_layers']} x {model['hidden_size']}"
    if "channels" in model:
        kind += f" of {model['channels']} channels"
    return ", ".join([kind, *extras])


def _part(span: Sequence[str] | None, count: int | None) -> str | None:
    if span is None:
        return None
    number = "" if count is None else f"{count:,}, "
    return f"{number}{short_time(span[0])} to {short_time(span[1])}"


def _listed(values: Sequence[Any], most: int) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(_value, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
