"""Runs: tables of many, of one, of its lineage and its reproduction for a terminal, and the page of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from bitcorn_ray.report.evaluation import DRAWN, Track, calibration_section, skill_section, track_sections
from bitcorn_ray.report.forecasts import FanPanel, fan_section
from bitcorn_ray.report.html import (
    SERIES,
    SOFT,
    Chart,
    Part,
    Section,
    folded,
    heading,
    json_text,
    listed,
    note,
    page_of,
    plain,
)
from bitcorn_ray.report.quality import PartitionQuality, main_reasons
from bitcorn_ray.report.table import Facts, Html, Table, ahead, counted, first_of, number, short_time

if TYPE_CHECKING:
    from bitcorn_ray.evaluation.evaluate import Evaluation
    from bitcorn_ray.tuning.reproduce import Reproduction

_CONFIGURATION = ("model", "training", "seq_len", "horizons", "feature_system", "feature_version")
_LINEAGE = ("lineage", "versions", "cache_keys", "features", "data", "sweep", "created", "imported_from")


def runs_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row per run. summaries: from `training.summary.summary`, with `name`, and `error` if unreadable."""
    rows = [
        (one["name"], "", "cannot be read", "", "", "", "", "")
        if one.get("error")
        else (
            one["name"],
            short_time(one["created"]),
            f"{first_of(one['symbols'], 3)} {one['timeframe']}",
            str(one["feature_system"]),
            first_of(one["model"]["horizons"], 6),
            _network(one["model"]),
            f"{one['best_epoch']} of {one['epochs']}" if one["best_epoch"] else "-",
            number(one["val_loss"], missing="-"),
        )
        for one in summaries
    ]
    columns = ("run", "created", "symbols", "features", "horizons", "network", ">best epoch", ">validation loss")
    return Table(columns, rows)


def run_facts(summary: Mapping[str, Any], training: bool = True) -> Facts:
    """Return all facts about a run. summary: from `training.summary.summary`. training: include its options."""
    model, version = summary["model"], summary["feature_version"] or "unknown"
    windows = {part: _windows(summary[part], summary["windows"][part]) for part in ("train", "validation", "test")}
    return Facts(
        {
            "run": summary["run"],
            "created": short_time(summary["created"]),
            "imported from": summary["imported_from"],
            "partitions": f"{first_of(summary['symbols'], 50) or 'unknown'}, {summary['timeframe']}",
            "features": f"{summary['features']} of {summary['feature_system']}, version {version}",
            **{f"{part} windows": text for part, text in windows.items()},
            "network": _network(model),
            "horizons": first_of(model["horizons"], 50),
            "window": f"{model['seq_len']} bars",
            "training": _pairs({name: _value(value) for name, value in summary["training"].items() if training}),
            "epochs": f"{summary['epochs']}, the best was {summary['best_epoch']}" if summary["epochs"] else None,
            "validation loss": number(summary["val_loss"]),
            "by horizon": ", ".join(f"{h}: {number(loss)}" for h, loss in summary["val_loss_by_horizon"].items()),
            "calibration": summary["calibration"],
            "versions": _pairs(summary["versions"]),
        }
    )


def comparison_tables(comparison: Mapping[str, Any]) -> tuple[Table | str, ...]:
    """Return the differences and losses, a column per run, and whether the losses can be compared.

    comparison: from `training.summary.comparison`.
    """
    rows = [(name, *map(_value, values)) for name, values in comparison["differs"].items()]
    rows += [(name, *(number(x, missing="-") for x in values)) for name, values in comparison["losses"].items()]
    differences = Table(("", *(f">{run}" for run in comparison["runs"])), rows)
    if comparison["comparable"]:
        return (differences,)
    reasons = ", ".join(comparison["not_comparable_for"])
    remark = f"the losses are not comparable: {reasons} differ; `bitcorn evaluate` compares runs on the same bars"
    return differences, remark


def _network(model: Mapping[str, Any]) -> str:
    """Return the kind of a model with its sizes. model: of a run's metadata; an older run has a cell for its kind."""
    extras = [name.replace("_", " ") for name in ("input_norm", "layer_norm", "skip") if model.get(name)]
    kind = str(model.get("kind") or model.get("cell", "lstm"))
    sizes = [str(model[name]) for name in ("num_layers", "hidden_size") if name in model]
    kind = " ".join([kind, " x ".join(sizes)]) if sizes else kind
    if "channels" in model:
        kind += f" of {model['channels']} channels"
    return ", ".join([kind, *extras])


def _windows(span: Sequence[str] | None, count: int | None) -> str | None:
    if span is None:
        return None
    return f"{'' if count is None else f'{count:,}, '}{short_time(span[0])} to {short_time(span[1])}"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(_value, value)) if isinstance(value, list | tuple) else str(value)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def lineage_tables(lineage: Mapping[str, Any]) -> tuple[Facts | Table, ...]:
    """Return what a run was made from, and a row per partition. lineage: from `training.lineage.run_lineage`."""
    data, cluster, features = lineage["data"], lineage["cluster"], lineage["features"]
    workers = cluster["workers"]
    machines = [f"{one['gpu'] or one['cpu']}, {one['instructions']}, {one['threads']} threads" for one in workers]
    facts = {
        "run": lineage["run"],
        "created": short_time(lineage["created"]),
        "bars": data.get("source", "given in Python"),
        "digest of the bars": data["digest"],
        "features": f"{features['name']}, version {features['version']}" if features else None,
        "code": _pairs({room: digest[:8] for room, digest in lineage["code"].items()}),
        "configuration": _flat(lineage["config"]) if lineage["config"] else "given in Python",
        "seed": f"{lineage['seeds']['training']}, {'' if lineage['deterministic'] else 'not '}deterministic",
        "precision": lineage["precision"],
        "cluster": f"{'Ray' if cluster['ray'] else 'no Ray'}, {cluster['nodes']} nodes, {cluster['cpus']:g} CPUs, "
        f"{cluster['gpus']:g} GPUs",
        "trained by": f"{len(workers)} x {'; '.join(dict.fromkeys(machines))}",
        "versions": _pairs(lineage["versions"]),
    }
    rows = [
        (
            f"{one['symbol']} {one['timeframe']}",
            one["bars"],
            f"{short_time(one['first'])} to {short_time(one['last'])}",
            " ".join(chunk["key"][:8] for chunk in one["chunks"]),
        )
        for one in data.get("partitions", ())
    ]
    return Facts(facts), *([Table(("partition", ">bars", "from", "chunks"), rows)] if rows else [])


def reproduction_tables(result: Reproduction) -> tuple[Table | str, ...]:
    """Return the losses of a run and of its reproduction, a row per epoch, and all differences."""
    rows = [
        (one["epoch"], *(number(loss, 6, "-") for name in ("train_loss", "val_loss") for loss in one[name]))
        for one in result.epochs
    ]
    columns = (">epoch", ">training loss then", ">now", ">validation loss then", ">now")
    differences = {"data": result.data, "code": result.code, "version": result.versions, "machine": result.machines}
    lines = [f"{what}: {line}" for what, lines in differences.items() for line in lines]
    lines += [f"{name}: {count:,} bars appended since, left out" for name, count in result.appended.items()]
    if result.loss_difference == result.weight_difference == 0:
        found = "losses and weights are the same to the bit"
    else:
        losses, weights = _difference(result.loss_difference), _difference(result.weight_difference)
        found = f"losses differ by up to {losses}, relative, and weights by up to {weights}"
    promised = "to the bit" if result.bitwise else "to 1e-6 in the losses"
    verdict = f"{'equal' if result.equal else 'DIFFERENT'}, where equal {promised} is promised: {found}"
    kept = [f"the new run is in {result.out}"] if result.out else []
    return Table(columns, rows), *lines, verdict, *kept


def _difference(value: float | None) -> str:
    return "an unknown amount, because the shapes differ" if value is None else f"{value:.2g}"


def _flat(config: Mapping[str, Any]) -> str:
    """Return a configuration in a line, without its empty values."""
    parts = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            parts.append(f"{name} ({_flat(value)})" if value else "")
        elif value is not None and value != []:
            parts.append(f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}")
    return ", ".join(filter(None, parts))


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What the page of a run shows.

    summary: from `training.summary.summary`. metadata: of the run. evaluation: None if there is none, for the reason
    `why_not`. fans: its latest forecasts. tracks: volatility over time. quality: of the bars.
    """

    summary: Mapping[str, Any]
    metadata: Mapping[str, Any]
    evaluation: Evaluation | None = None
    why_not: str = ""
    fans: Sequence[FanPanel] = ()
    tracks: Sequence[Track] = ()
    quality: Sequence[PartitionQuality] = ()


def run_page(report: RunReport) -> str:
    """Return the page of a run: the verdict first, then forecasts, skill, training and lineage."""
    evaluation, history = report.evaluation, report.metadata.get("history") or []
    sections = [_verdict(report)]
    for panel in report.fans[:DRAWN]:
        if panel.fans:
            sections.append(Section(title=f"Latest forecast: {panel.name}", parts=fan_section(panel).parts))
    if evaluation is not None:
        sections += [skill_section(evaluation), calibration_section(evaluation)]
    sections += track_sections(report.tracks)
    if history:
        sections.append(_learning(history, report.metadata["horizons"], report.summary["best_epoch"]))
    metadata = report.metadata
    records = [
        folded(title, json_text({name: metadata[name] for name in names if name in metadata}))
        for title, names in (("Configuration", _CONFIGURATION), ("Lineage", _LINEAGE))
    ]
    sections += [_data(report), Section(title="Configuration and lineage", parts=records)]
    return page_of(f"Run {report.summary['run']}", sections)


def _verdict(report: RunReport) -> Section:
    evaluation = report.evaluation
    if evaluation is None:
        return Section(title="Verdict", parts=[f"Not evaluated out of sample: {report.why_not}"])
    verdicts = [
        Html("<br>".join([f"<b>{ahead(one.horizon)}</b>", *map(escape, one.verdict.split("; "))]))
        for one in evaluation.skill
    ]
    partitions = evaluation.partitions
    span = f"{min(one.first for one in partitions)[:10]} to {max(one.last for one in partitions)[:10]}"
    windows = sum(one.windows for one in partitions)
    count = counted(len(partitions), "partition")
    about = f"Out of sample, on {evaluation.source}: {windows:,} windows of {count}, {span}."
    if len(partitions) > DRAWN:
        about += f" The forecasts and volatilities of the first {DRAWN} are drawn."
    errors = [f"{name} could not be evaluated: {why}" for name, why in evaluation.errors.items()]
    remarks = map(note, [about, *errors, *evaluation.notes])
    return Section(title="Verdict", parts=[listed(verdicts, "verdict"), *remarks])


def _learning(history: Sequence[Mapping[str, Any]], horizons: Sequence[int], best: int | None) -> Section:
    epochs = [one["epoch"] for one in history]
    layout: dict[str, Any] = {"xaxis": {"title_text": "epoch", "dtick": 1 if len(epochs) <= 20 else None}}
    if best is not None:
        line = {"color": SOFT, "dash": "dot", "width": 1}
        layout["shapes"] = [{"type": "line", "x0": best, "x1": best, "yref": "paper", "y0": 0, "y1": 1, "line": line}]
    charts = []
    for n, name in enumerate(["all horizons", *map(ahead, horizons)]):
        traces = []
        for part, words, colour in (("train", "training", SERIES[0]), ("val", "validation", SERIES[1])):
            by_horizon = [one.get(f"{part}_loss_by_horizon") or [None] * len(horizons) for one in history]
            losses = [by[n - 1] for by in by_horizon] if n else [one[f"{part}_loss"] for one in history]
            traces.append(go.Scatter(x=epochs, y=plain(losses), mode="lines+markers", name=words, line_color=colour))
        label = f"training and validation loss by epoch, {name}"
        own = go.Layout(**layout, yaxis_title_text=f"loss, {name}")
        charts.append(Chart(label=label, data=traces, layout=own, height=260))
    remark = note(f"The dotted line is the best epoch, {best}, whose weights the run has.") if best else Html()
    return Section(title="Learning curves", parts=[remark, *charts])


def _data(report: RunReport) -> Section:
    features = report.metadata.get("feature_cols") or []
    parts: list[Part] = [run_facts(report.summary, training=False)]
    if report.quality:
        rows = [
            (str(one.partition), f"{one.report['score']:.1f}", one.report["bars"], main_reasons(one.report))
            for one in report.quality
        ]
        table = Table(("partition", ">score", ">bars", "main reasons"), rows)
        parts += [heading("Quality of the bars"), table]
    return Section(title="Data", parts=[*parts, folded(counted(len(features), "feature"), listed(features))])
