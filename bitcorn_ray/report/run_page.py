"""A run as one page: what its forecasts are worth first, then the forecast, and where both come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from bitcorn_ray.report.console import ahead, counted
from bitcorn_ray.report.fan import FanPanel, fan_section
from bitcorn_ray.report.judgement import Track, calibration_section, skill_section, track_sections
from bitcorn_ray.report.page import (
    Chart,
    Html,
    Section,
    facts,
    folded,
    html_table,
    json_text,
    listed,
    note,
    page_of,
    plain,
)
from bitcorn_ray.report.runs import run_facts

_DRAWN = 6  # partitions


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What is known of a run, in plain values but for the tracks.

    summary: as `learning.summary.summary` gives it. metadata: of the run. evaluation: as `Evaluation.to_json`, None
    where it was not evaluated; why_not: why. fans: its latest forecasts. quality: of the bars, a report a partition,
    with symbol and timeframe.
    """

    summary: Mapping[str, Any]
    metadata: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None = None
    why_not: str = ""
    fans: Sequence[FanPanel] = ()
    tracks: Sequence[Track] = ()
    quality: Sequence[Mapping[str, Any]] = ()


def run_page(report: RunReport) -> str:
    """Return the page."""
    evaluation, history = report.evaluation, report.metadata.get("history") or []
    sections = [_verdict(report)]
    sections += [_fan(panel) for panel in report.fans[:_DRAWN] if panel.fans]
    if evaluation is not None:
        sections += [skill_section(evaluation), calibration_section(evaluation)]
    sections += track_sections(report.tracks)
    if history:
        sections.append(_learning(history, report.metadata["horizons"], report.summary["best_epoch"]))
    sections += [_data(report), _configuration(report)]
    return page_of(f"Run {report.summary['run']}", sections)


def _verdict(report: RunReport) -> Section:
    if report.evaluation is None:
        return Section(title="Verdict", parts=[f"Not judged out of sample: {report.why_not}"])
    evaluation = report.evaluation
    told = [Html(f"<b>{ahead(each['horizon'])}</b><br>") + _lines(each["verdict"]) for each in evaluation["skill"]]
    one = evaluation["partitions"]
    span = f"{min(p['first'] for p in one)[:10]} to {max(p['last'] for p in one)[:10]}"
    windows = sum(p["windows"] for p in one)
    partitions = counted(len(one), "partition", "partitions")
    about = f"Out of sample, on {evaluation['source']}: {windows:,} windows of {partitions}, {span}."
    if len(one) > _DRAWN:
        about += f" The forecasts and volatilities of the first {_DRAWN} are drawn."
    errors = [f"{name} could not be judged: {why}" for name, why in evaluation["errors"].items()]
    return Section(
        title="Verdict", parts=[listed(map(Html, told), "verdict"), *map(note, [about, *errors, *evaluation["notes"]])]
    )


def _lines(verdict: str) -> Html:
    return Html("<br>".join(escape(part) for part in verdict.split("; ")))


def _fan(panel: FanPanel) -> Section:
    section = fan_section(panel)
    return Section(title=f"Latest forecast: {section.title}", parts=section.parts)


def _learning(history: Sequence[Mapping[str, Any]], horizons: Sequence[int], best: int | None) -> Section:
    epochs = [each["epoch"] for each in history]
    charts = []
    for name, place in [("all horizons", None), *((ahead(h), n) for n, h in enumerate(horizons))]:
        traces = []
        for part, words, colour in (("train", "training", "var(--s1)"), ("val", "validation", "var(--s2)")):
            key = f"{part}_loss" if place is None else f"{part}_loss_by_horizon"
            values = [
                each[key] if place is None else (each.get(key) or [None] * len(horizons))[place] for each in history
            ]
            drawn = {"x": epochs, "y": plain(values), "mode": "lines+markers", "name": words}
            traces.append({**drawn, "line": {"color": colour}})
        shapes = []
        if best is not None:
            mark = {"type": "line", "x0": best, "x1": best, "yref": "paper", "y0": 0, "y1": 1}
            shapes = [{**mark, "line": {"color": "var(--soft)", "dash": "dot", "width": 1}}]
        axis = {"title": {"text": "epoch"}, "dtick": 1 if len(epochs) <= 20 else None}
        layout = {"xaxis": axis, "yaxis": {"title": {"text": f"loss, {name}"}}, "shapes": shapes}
        charts.append(
            Chart(label=f"training and validation loss by epoch, {name}", data=traces, layout=layout, height=260)
        )
    told = note(f"The dotted line is the best epoch, {best}, whose weights are the run's.") if best else Html()
    return Section(title="Learning curves", parts=[told, *charts])


def _data(report: RunReport) -> Section:
    features = report.metadata.get("feature_cols") or []
    parts: list[Html | Chart | str] = [
        facts({name: value for name, value in run_facts(report.summary).items() if name != "training"})
    ]
    if report.quality:
        rows = [
            (
                f"{each['symbol']} {each['timeframe']}",
                f"{each['score']:.1f}",
                f"{each['bars']:,}",
                "; ".join(reason["text"] for reason in each["reasons"][:3]) or "nothing is wrong",
            )
            for each in report.quality
        ]
        parts += [
            Html("<h3>Quality of the bars</h3>"),
            html_table(("partition", "score", "bars", "most of all"), rows, (1, 2)),
        ]
    parts.append(folded(f"{len(features)} features", Html(listed(features))))
    return Section(title="What went in", parts=parts)


def _configuration(report: RunReport) -> Section:
    metadata = report.metadata
    folds = [
        folded(title, json_text({name: metadata[name] for name in names if name in metadata}))
        for title, names in (
            ("Configuration", ("model", "training", "seq_len", "horizons", "feature_system", "feature_version")),
            ("Lineage", ("lineage", "versions", "cache_keys", "features", "data", "sweep", "created", "imported_from")),
        )
    ]
    return Section(title="Configuration and lineage", parts=folds)
