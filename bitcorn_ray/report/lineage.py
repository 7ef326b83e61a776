"""What a run was made of, and how it compares with one that was made again, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from bitcorn_ray.report.console import short_time, table


def lineage_tables(recorded: Mapping[str, Any]) -> tuple[Table, ...]:
    """The facts, a line each, and a row a partition. recorded: as `run_lineage` gives it."""
    data, cluster, features = recorded["data"], recorded["cluster"], recorded["features"] or {}
    machines = dict.fromkeys(
        f"{each['gpu'] or each['cpu']}, {each['instructions']}, {each['threads']} threads"
        for each in cluster["workers"]
    )
    facts = {
        "run": recorded["run"],
        "created": short_time(recorded["created"]),
        "bars": data.get("source", "given in Python"),
        "data seen": data["digest"],
        "features": f"{features['name']}, version {features['version']}" if features else None,
        "code": ", ".join(f"{room} {digest[:8]}" for room, digest in recorded["code"].items()),
        "configuration": _flat(recorded["config"]) if recorded["config"] else "given in Python",
        "seed": f"{recorded['seeds']['training']}, {'' if recorded['deterministic'] else 'not '}deterministic",
        "precision": recorded["precision"],
        "cluster": f"{'Ray' if cluster['ray'] else 'no Ray'}, {cluster['nodes']} nodes, {cluster['cpus']:g} CPUs, "
        f"{cluster['gpus']:g} GPUs",
        "trained by": f"{len(cluster['workers'])} x {'; '.join(machines)}",
        "made with": ", ".join(f"{name} {version}" for name, version in recorded["versions"].items()),
    }
    told = table(("", ""), ((name, str(value)) for name, value in facts.items() if value), left=(0, 1))
    rows = [
        (
            f"{each['symbol']} {each['timeframe']}",
            f"{each['bars']:,}",
            f"{short_time(each['first'])} to {short_time(each['last'])}",
            " ".join(chunk["key"][:8] for chunk in each["chunks"]),
        )
        for each in data.get("partitions", ())
    ]
    return (told, table(("partition", "bars", "from", "chunks"), rows, left=(0, 2, 3))) if rows else (told,)


def reproduction_tables(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """Losses of each epoch then and now, what differs, and the verdict. result: as `Reproduction.to_json` gives it."""
    rows = [
        (str(each["epoch"]), *(_number(value) for name in ("train_loss", "val_loss") for value in each[name]))
        for each in result["epochs"]
    ]
    names = ("epoch", "training loss then", "now", "validation loss then", "now")
    differs = [
        f"{what}: {line}"
        for what, key in (("data", "data"), ("code", "code"), ("version", "versions"), ("machine", "machines"))
        for line in result[key]
    ]
    appended = [f"{name}: {count:,} bars appended since, left out" for name, count in result["appended"].items()]
    kept = f"the new run is in {result['out']}" if result["out"] else None
    return table(names, rows, left=()), *differs, *appended, _verdict(result), kept


def _verdict(result: Mapping[str, Any]) -> str:
    losses, weights = result["loss_difference"], result["weight_difference"]
    promised = "to the bit" if result["bitwise"] else "to 1e-6 in the losses"
    told = (
        "losses and weights are the same to the bit"
        if losses == 0 and weights == 0
        else f"losses differ by up to {_size(losses)}, relative, and weights by up to {_size(weights)}"
    )
    return f"{'equal' if result['equal'] else 'DIFFERENT'}, where equal {promised} is promised: {told}"


def _size(difference: float | None) -> str:
    return "no number, as they are not as many" if difference is None else f"{difference:.2g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _flat(config: Mapping[str, Any]) -> str:
    """A configuration in a line, what is empty left out."""
    parts = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            parts.append(f"{name} ({_flat(value)})" if value else "")
        elif value is not None and value != []:
            parts.append(f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}")
    return ", ".join(filter(None, parts))
