"""A sweep or an evolution as one page: what its trials are worth first, then how they were found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bitcorn_ray.report.console import counted
from bitcorn_ray.report.evolution import evolution_sections
from bitcorn_ray.report.folds import folds_section
from bitcorn_ray.report.judgement import Track, track_sections
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
from bitcorn_ray.report.sweeps import shown_point, standing_remarks, standings

_LISTED = 50
_TICKS, _LABEL = 5, 12


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What is known of a sweep, in plain values but for the tracks.

    name: its folder. result: what sweep.json holds. plan: of the folds, as `FoldPlan.to_json`. logarithmic: names of
    the fields that are searched by their logarithms. judgement: as `SweepJudgement.to_json`, None where it could not be
    judged; why_not: why. comparable: loss of each trial that has one, by name, over the same folds, those that it did
    not do filled in. importance: share of its variance, by searched field. tracks: of the stitched out-of-sample
    forecasts; coverage: their share inside each band, by partition and horizon, in words.
    evolution: what evolution.json holds, where it is one.
    """

    name: str
    result: Mapping[str, Any]
    plan: Mapping[str, Any]
    logarithmic: Sequence[str] = ()
    judgement: Mapping[str, Any] | None = None
    why_not: str = ""
    comparable: Mapping[str, float] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    tracks: Sequence[Track] = ()
    coverage: Sequence[Sequence[str]] = ()
    evolution: Mapping[str, Any] | None = None


def sweep_page(report: SweepReport) -> str:
    """Return the page."""
    sections = [_verdict(report)]
    if report.evolution is not None:
        sections += evolution_sections(report.evolution)
    if report.judgement is not None:
        sections += [_standings(answer, report.judgement) for answer in report.judgement["answers"]]
    trained = any(trial["losses"] for trial in report.result["trials"])
    sections += [*([_losses(report.result)] if trained else []), folds_section(dict(report.plan))]
    if (parallel := _parallel(report)) is not None:
        sections.append(parallel)
    if trained and report.evolution is None:
        sections.append(_pruning(report.result))
    sections += [*_stitched(report), _trials(report.result), _configuration(report.result)]
    what = "Evolution" if report.evolution is not None else "Sweep"
    return page_of(f"{what} {report.name}", sections)


def _verdict(report: SweepReport) -> Section:
    result, best = report.result, report.result["best"]
    states = ("finished", "stopped", "failed")
    counts = [f"{result[state]} {state}" for state in states if result[state]]
    if cut := result["tried"] - sum(result[state] for state in states):
        counts.append(f"{cut} under way or cut short")
    told = {
        "trials": f"{result['tried']}: {', '.join(counts)}",
        "folds": str(len(result["folds"])),
        "ended": result["ended"],
    }
    if errors := [trial["error"] for trial in result["trials"] if trial["error"]]:
        told["first error"] = errors[0]
    if best is not None:
        told["best by validation loss"] = f"{best['name']}, {best['loss']:.5f}: {shown_point(best['point'])}"
    if report.judgement is None:
        return Section(title="Verdict", parts=[f"Not judged on test windows: {report.why_not}", facts(told)])
    told |= {
        f"probability of backtest overfitting, {answer['name']}": (
            f"{answer['overfitting']['probability']:.0%} of {answer['overfitting']['combinations']} splits"
            if answer["overfitting"]
            else "cannot be told"
        )
        for answer in report.judgement["answers"]
    }
    remarks = map(note, report.judgement["remarks"])
    return Section(
        title="Verdict", parts=[listed(report.judgement["verdict"].splitlines(), "verdict"), facts(told), *remarks]
    )


def _standings(answer: Mapping[str, Any], judgement: Mapping[str, Any]) -> Section:
    """The leaderboard of one question."""
    columns, rows = standings(answer, _LISTED)
    trials = judgement["trials"]
    told = [(*row[:2], shown_point(trials[row[1]]["search"]) if row[1] in trials else "", *row[2:]) for row in rows]
    remarks = [
        "Gains over a baseline with a star are significant for that trial alone (Diebold-Mariano, 5 %).",
        *standing_remarks(answer, judgement["folds"]),
    ]
    table = html_table((*columns[:2], "configuration", *columns[2:]), told, (0, *range(3, len(columns) + 1)), wide=True)
    return Section(title=f"Leaderboard: {answer['name']}", parts=[table, *map(note, remarks)])


def _losses(result: Mapping[str, Any]) -> Section:
    """Validation loss of each trial in each fold, and of the best."""
    best = result["best"]["name"] if result["best"] else None
    points: dict[str, list[Any]] = {"x": [], "y": [], "text": []}
    for trial in result["trials"]:
        for fold, loss in enumerate(trial["losses"]):
            points["x"].append(result["folds"][fold]["test"]["first"])
            points["y"].append(loss)
            points["text"].append(f"{trial['name']}: {shown_point(trial['point'])}")
    marker = {"color": "var(--soft)", "size": 6, "opacity": 0.6}
    hover = "%{text}<br>%{y:.5f}<extra></extra>"
    traces = [
        {
            **points,
            "y": plain(points["y"]),
            "mode": "markers",
            "name": "all trials",
            "marker": marker,
            "hovertemplate": hover,
        }
    ]
    for trial in result["trials"]:
        if trial["name"] == best:
            drawn = {
                "x": [result["folds"][n]["test"]["first"] for n in range(len(trial["losses"]))],
                "y": plain(trial["losses"]),
            }
            traces.append(
                {**drawn, "mode": "lines+markers", "name": f"best trial, {best}", "line": {"color": "var(--s2)"}}
            )
    axis = {"type": "date", "title": {"text": "first test window of the fold"}}
    layout = {"xaxis": axis, "yaxis": {"title": {"text": "validation loss"}}}
    chart = Chart(label="validation loss of every trial in each fold", data=traces, layout=layout)
    return Section(title="Loss of each fold", parts=[chart])


def _parallel(report: SweepReport) -> Section | None:
    """Parallel coordinates of what was searched, and what mattered."""
    known = [trial for trial in report.result["trials"] if trial["name"] in report.comparable]
    names = [name for name in dict.fromkeys(name for trial in known for name in trial["point"]) if name != "features"]
    if len(known) < 2 or not names:
        return None
    axes = [_axis(name, [trial["point"].get(name) for trial in known], name in report.logarithmic) for name in names]
    losses = [report.comparable[trial["name"]] for trial in known]
    axes.append({"label": "loss", "values": plain(losses)})
    line = {
        "color": plain(losses),
        "colorscale": [[0, "var(--s2)"], [1, "var(--s1)"]],
        "showscale": True,
        "colorbar": {"thickness": 12},
    }
    ink = {"color": "var(--ink)", "size": 11}
    fonts = {"labelfont": ink, "tickfont": ink, "rangefont": ink}
    chart = Chart(
        label="what each trial was configured as, and its loss",
        data=[{"type": "parcoords", "dimensions": axes, "line": line, **fonts}],
        layout={"margin": {"l": 60, "r": 40, "t": 50, "b": 30}},
        height=400,
        narrow={"margin": {"l": 40, "r": 10, "t": 50, "b": 30}},
    )
    told = note("Losses are of the same folds: what a stopped trial did not do is filled in from the others'.")
    parts: list[Html | Chart | str] = [chart, told]
    if report.importance:
        ordered = sorted(report.importance.items(), key=lambda each: each[1])
        bars = {
            "type": "bar",
            "orientation": "h",
            "y": [name for name, _ in ordered],
            "x": plain(100 * share for _, share in ordered),
            "marker": {"color": "var(--s1)"},
        }
        shares = {"xaxis": {"title": {"text": "% of the variance of the loss"}, "rangemode": "tozero"}}
        importance = Chart(
            label="importance of what was searched", data=[bars], layout=shares, height=110 + 26 * len(ordered)
        )
        parts += [Html("<h3>What mattered</h3>"), importance]
    return Section(title="What was searched", parts=parts)


def _axis(name: str, values: Sequence[Any], logarithmic: bool) -> dict[str, Any]:
    """One field as an axis: numbers as they are or by their logarithms, all else in order of first appearance."""
    label = name.rpartition(".")[2]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if not (logarithmic and min(values) > 0):
            few = sorted(set(values))
            return {"label": label, "values": plain(values), **({"tickvals": few} if len(few) <= _TICKS else {})}
        logs = [math.log10(value) for value in values]
        low, high = min(logs), max(logs)
        ticks = [low + (high - low) * n / (_TICKS - 1) for n in range(_TICKS)]
        named = {"tickvals": plain(ticks), "ticktext": [f"{10**tick:.2g}" for tick in ticks]}
        return {"label": label, "values": plain(logs), **named}
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    known = list(dict.fromkeys(texts))
    places = [known.index(text) for text in texts]
    # Two that are alike at first would be one to Plotly.
    shown = [text if len(text) <= _LABEL else f"{text[:_LABEL]}... {n}" for n, text in enumerate(known, start=1)]
    return {"label": label, "values": places, "tickvals": list(range(len(known))), "ticktext": shown}


def _pruning(result: Mapping[str, Any]) -> Section:
    folds = len(result["folds"])
    reached = [sum(len(trial["losses"]) > fold for trial in result["trials"]) for fold in range(folds)]
    done, whole = sum(reached), folds * len(result["trials"])
    bars = {"type": "bar", "x": list(range(1, folds + 1)), "y": reached, "marker": {"color": "var(--s1)"}}
    axes = {
        "xaxis": {"title": {"text": "folds"}, "dtick": 1 if folds <= 30 else None},
        "yaxis": {"title": {"text": "trials that did so many"}},
    }
    chart = Chart(label="how many trials did how many folds", data=[bars], layout=axes, height=280)
    share = f"{done:,} of {whole:,} trainings were done ({done / max(whole, 1):.0%})"
    told = share if done == whole else f"{share}; the rest was stopped, failed or cut short."
    return Section(title="Pruning", parts=[told, chart])


def _stitched(report: SweepReport) -> list[Section]:
    if not report.tracks:
        return []
    table = html_table(
        ("partition", "horizon", "windows", "inside 50 %", "inside 80 %", "inside 95 %"), report.coverage, range(1, 6)
    )
    told = note(
        "Forecasts of the best trial on the test windows of all folds, one after another. It was chosen by validation "
        "windows alone."
    )
    first, *rest = track_sections(report.tracks)
    title = first.title.replace("Volatility", "Stitched out-of-sample forecasts: volatility", 1)
    return [Section(title=title, parts=[told, table, *first.parts]), *rest]


def _trials(result: Mapping[str, Any]) -> Section:
    rows = [
        (
            trial["name"],
            trial["state"],
            f"{len(trial['losses'])}",
            "" if trial["loss"] is None else f"{trial['loss']:.5f}",
            f"{trial['seconds']:.1f}",
            trial["error"] or shown_point(trial["point"]),
        )
        for trial in result["trials"]
    ]
    table = html_table(
        ("trial", "state", "folds", "validation loss", "seconds", "configuration"), rows, (2, 3, 4), wide=True
    )
    return Section(title="All trials", parts=[folded(counted(len(rows), "trial", "trials"), table)])


def _configuration(result: Mapping[str, Any]) -> Section:
    return Section(title="Configuration", parts=[folded("The sweep's configuration", json_text(result["config"]))])
