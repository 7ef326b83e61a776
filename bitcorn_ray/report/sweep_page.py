"""The page of a sweep or an evolution: the value of its trials first, then how they were found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.forecasting.forecasts import band_name
from bitcorn_ray.metrics.calibration import COVERAGES
from bitcorn_ray.metrics.selection import fill_stopped
from bitcorn_ray.report.evaluation import Track, ends, track_sections
from bitcorn_ray.report.evolution import evolution_sections
from bitcorn_ray.report.folds import folds_section
from bitcorn_ray.report.html import (
    INK,
    SERIES,
    SOFT,
    Chart,
    Part,
    Section,
    bar_chart,
    folded,
    heading,
    json_text,
    listed,
    note,
    page_of,
    plain,
)
from bitcorn_ray.report.sweeps import point_text, standing_remarks, standings
from bitcorn_ray.report.table import Facts, Table, counted, number, percent
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.leaderboard import SweepLeaderboard, leaderboard
from bitcorn_ray.tuning.results import StoredSweep, best_of, read_sweep, stitched
from bitcorn_ray.tuning.search import Trial, search_importance

_LISTED = 50
_TICKS, _LABEL = 5, 12
_STATES = ("finished", "stopped", "failed")


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What the page of a sweep shows.

    name: its folder. plan: its folds, from `FoldPlan.to_json`. config: as it was recorded. logarithmic: names of the
    fields that are searched on a logarithmic scale. judgement: None if the trials cannot be compared, for the reason
    `why_not`. comparable: loss of each trial over the same folds, by name; missing folds are filled in. importance:
    share of its variance, by searched field. tracks, coverage: of the stitched out-of-sample forecasts; coverage is a
    row per partition and horizon. evolution: the content of evolution.json, if there is one.
    """

    name: str
    ended: str
    trials: Sequence[Trial]
    plan: Mapping[str, Any]
    config: Mapping[str, Any]
    logarithmic: Sequence[str] = ()
    judgement: SweepLeaderboard | None = None
    why_not: str = ""
    comparable: Mapping[str, float] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    tracks: Sequence[Track] = ()
    coverage: Sequence[Sequence[str | int]] = ()
    evolution: Mapping[str, Any] | None = None

    @property
    def best(self) -> Trial | None:
        """Return the trial with the lowest validation loss."""
        return best_of(self.trials)


def sweep_report(place: str | Path, *, level: float = 0.01, cache_dir: str | Path | None = None) -> SweepReport:
    """Read a sweep or an evolution, and evaluate it on its test windows.

    level, cache_dir: see `leaderboard`. Raises BitcornError if the folder holds no sweep, or a damaged one.
    """
    folder = SweepFolder(place)
    sweep = read_sweep(folder)
    trials, best = tuple(sweep.trials.values()), best_of(tuple(sweep.trials.values()))
    evolution = _read_json(folder, "evolution.json")
    ended = (_read_json(folder, "sweep.json") or evolution or {}).get("ended", "not yet, or it was interrupted")
    forecasts = None if best is None else stitched(sweep.plan, sweep.bars, best, sweep.config.run.model.horizons)
    comparable, importance, judgement, why_not = _comparable_losses(trials), dict[str, float](), None, ""
    if evolution is None:  # which searches features, and these are no fields of the space
        losses = [(one.point, comparable.get(one.name)) for one in trials]
        importance = search_importance(sweep.config.space, losses)
    try:
        judgement = leaderboard(place, level=level, cache_dir=cache_dir)
    except BitcornError as error:
        why_not = str(error)
    return SweepReport(
        name=folder.shown,
        ended=ended,
        trials=trials,
        plan=sweep.folds.to_json(),
        config=sweep.written,
        logarithmic=[one.name for one in sweep.config.space.dimensions if one.kind == "loguniform"],
        judgement=judgement,
        why_not=why_not,
        comparable=comparable,
        importance=importance,
        tracks=[] if forecasts is None else _tracks(forecasts, sweep),
        coverage=[] if forecasts is None else _coverage(forecasts, sweep),
        evolution=evolution,
    )


def _comparable_losses(trials: Sequence[Trial]) -> dict[str, float]:
    """Return the mean loss of each trial over all folds, with missing folds filled in as on the leaderboard."""
    known = [one for one in trials if one.losses and np.isfinite(one.losses).all()]
    losses = np.full((max((len(one.losses) for one in known), default=0), len(known)), np.nan)
    for column, one in enumerate(known):
        losses[: len(one.losses), column] = one.losses
    means = fill_stopped(losses).mean(0).tolist() if known else []
    return dict(zip((one.name for one in known), means, strict=True))


def _read_json(folder: SweepFolder, name: str) -> dict[str, Any] | None:
    """Return a result, None before the sweep has ended."""
    try:
        read: dict[str, Any] = json.loads(bytes(folder.storage.read(name)))
    except (OSError, ValueError):
        return None
    return read


def _tracks(forecasts: pa.Table, sweep: StoredSweep) -> list[Track]:
    """Return forecast and realised volatility at the shortest and the longest horizon."""
    tracks = []
    for bars in sweep.bars:
        for horizon in ends(sweep.config.run.model.horizons):
            own = _select(forecasts, bars.symbol, bars.timeframe, horizon)
            times, (_, realised) = own["cutoff"].cast(pa.int64()).to_numpy(), bars.outcomes([horizon])
            root = np.sqrt(realised[np.searchsorted(bars.timestamp, times), 0])
            forecast = own["volatility"].to_numpy()
            if len(times):
                tracks.append(Track(name=bars.name, horizon=horizon, times=times, forecast=forecast, realised=root))
    return tracks


def _coverage(forecasts: pa.Table, sweep: StoredSweep) -> list[tuple[str | int, ...]]:
    """Return a row per partition and horizon: windows, and the share of outcomes inside each finite band."""
    rows = []
    for bars in sweep.bars:
        for horizon in sweep.config.run.model.horizons:
            own = _select(forecasts, bars.symbol, bars.timeframe, horizon)
            error = np.abs(own["realised_return"].to_numpy() - own["return"].to_numpy())
            shares = []
            for coverage in COVERAGES:
                half = np.log(own[band_name("hi", coverage)].to_numpy() / own["price"].to_numpy())
                known = np.isfinite(half) & np.isfinite(error)
                shares.append(percent((error <= half)[known].mean()) if known.any() else "")
            rows.append((bars.name, horizon, own.num_rows, *shares))
    return rows


def _select(forecasts: pa.Table, symbol: str, timeframe: str, horizon: int) -> pa.Table:
    chosen = pc.and_(pc.equal(forecasts["symbol"], symbol), pc.equal(forecasts["timeframe"], timeframe))
    return forecasts.filter(pc.and_(chosen, pc.equal(forecasts["horizon"], horizon)))


def sweep_page(report: SweepReport) -> str:
    """Return the page of a sweep."""
    trained = any(one.losses for one in report.trials)
    sections = [_verdict(report)]
    if report.evolution is not None:
        sections += evolution_sections(report.evolution)
    if report.judgement is not None:
        sections += _leaderboards(report.judgement)
    if trained:
        sections.append(_losses(report))
    sections += [folds_section(report.plan), *_searched(report)]
    if trained and report.evolution is None:
        sections.append(_pruning(report))
    config = folded("The sweep's configuration", json_text(report.config))
    sections += [*_stitched(report), _trials(report), Section(title="Configuration", parts=[config])]
    return page_of(f"{'Sweep' if report.evolution is None else 'Evolution'} {report.name}", sections)


def _verdict(report: SweepReport) -> Section:
    trials, best, judgement = report.trials, report.best, report.judgement
    counts = {state: sum(one.state == state for one in trials) for state in _STATES}
    counts["running or interrupted"] = len(trials) - sum(counts.values())
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    facts: dict[str, str | int | None] = {
        "trials": f"{len(trials)}: {states}",
        "folds": len(report.plan["folds"]),
        "ended": report.ended,
        "first error": next((one.error for one in trials if one.error), None),
    }
    if best is not None:
        loss = f"validation loss {number(best.loss, 5)}"
        facts["best by validation loss"] = f"{best.name}, {loss}: {point_text(best.point)}"
    if judgement is None:
        return Section(title="Verdict", parts=[f"Not evaluated on test windows: {report.why_not}", Facts(facts)])
    for answer in judgement.board.answers:
        found = answer.overfitting
        share = "unknown" if found is None else f"{found.probability:.0%} of {found.combinations} splits"
        facts[f"probability of backtest overfitting, {answer.name}"] = share
    verdict = listed(judgement.board.verdict.splitlines(), "verdict")
    return Section(title="Verdict", parts=[verdict, Facts(facts), *map(note, judgement.remarks)])


def _leaderboards(judgement: SweepLeaderboard) -> list[Section]:
    star = note("Gains over a baseline with a star are significant for that trial alone (Diebold-Mariano, 5 %).")
    return [
        Section(
            title=f"Leaderboard: {answer.name}",
            parts=[
                standings(answer, _LISTED, judgement.trials),
                star,
                *map(note, standing_remarks(answer, judgement.board.folds)),
            ],
        )
        for answer in judgement.board.answers
    ]


def _losses(report: SweepReport) -> Section:
    """Draw the validation loss of each trial in each fold, with a line for the best."""
    starts = [fold["test"]["first"] for fold in report.plan["folds"]]
    points = [(start, loss, one) for one in report.trials for start, loss in zip(starts, one.losses, strict=False)]
    traces = [
        go.Scatter(
            x=[start for start, _, _ in points],
            y=plain(loss for _, loss, _ in points),
            text=[f"{one.name}: {point_text(one.point)}" for _, _, one in points],
            mode="markers",
            name="all trials",
            marker={"color": SOFT, "size": 6, "opacity": 0.6},
            hovertemplate="%{text}<br>%{y:.5f}<extra></extra>",
        )
    ]
    if (best := report.best) is not None:
        line = {"mode": "lines+markers", "name": f"best trial, {best.name}", "line_color": SERIES[1]}
        traces.append(go.Scatter(x=starts[: len(best.losses)], y=plain(best.losses), **line))
    axis = {"type": "date", "title_text": "first test window of the fold"}
    layout = go.Layout(xaxis=axis, yaxis_title_text="validation loss")
    chart = Chart(label="validation loss of every trial in each fold", data=traces, layout=layout)
    return Section(title="Loss of each fold", parts=[chart])


def _searched(report: SweepReport) -> list[Section]:
    """Draw parallel coordinates of the searched fields, and the importance of these."""
    known = [one for one in report.trials if one.name in report.comparable]
    names = [name for name in dict.fromkeys(name for one in known for name in one.point) if name != "features"]
    if len(known) < 2 or not names:
        return []
    losses = plain(report.comparable[one.name] for one in known)
    axes = [_axis(name, [one.point.get(name) for one in known], name in report.logarithmic) for name in names]
    scale = {"colorscale": [[0, SERIES[1]], [1, SERIES[0]]], "showscale": True, "colorbar_thickness": 12}
    font = {"color": INK, "size": 11}
    lines = go.Parcoords(
        dimensions=[*axes, {"label": "loss", "values": losses}],
        line={"color": losses, **scale},
        labelfont=font,
        tickfont=font,
        rangefont=font,
    )
    margin = {"l": 60, "r": 40, "t": 50, "b": 30}
    chart = Chart(
        label="configuration of each trial, and its loss",
        data=[lines],
        layout=go.Layout(margin=margin),
        height=400,
        narrow={"margin": {**margin, "l": 40, "r": 10}},
    )
    remark = note("Losses are of the same folds: the missing folds of a stopped trial are filled in from the others'.")
    parts: list[Part] = [chart, remark]
    if report.importance:
        ordered = sorted(report.importance.items(), key=lambda item: item[1])
        fields, shares = [name for name, _ in ordered], [100 * share for _, share in ordered]
        title, axis = "% of the variance of the loss", {"rangemode": "tozero"}
        parts += [heading("Importance"), bar_chart("importance of the searched fields", fields, shares, title, **axis)]
    return [Section(title="Searched fields", parts=parts)]


def _axis(name: str, values: Sequence[Any], logarithmic: bool) -> dict[str, Any]:
    """Return a field as an axis: numbers linear or logarithmic, other values in order of first appearance."""
    label = name.rpartition(".")[2]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if not (logarithmic and min(values) > 0):
            few = sorted(set(values))
            return {"label": label, "values": plain(values), **({"tickvals": few} if len(few) <= _TICKS else {})}
        logs = [math.log10(value) for value in values]
        ticks = np.linspace(min(logs), max(logs), _TICKS)
        texts = [f"{10**tick:.2g}" for tick in ticks]
        return {"label": label, "values": plain(logs), "tickvals": plain(ticks), "ticktext": texts}
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    known = list(dict.fromkeys(texts))
    # Number long texts, because Plotly merges ticks with the same text.
    shown = [text if len(text) <= _LABEL else f"{text[:_LABEL]}... {n}" for n, text in enumerate(known, start=1)]
    rows = [known.index(text) for text in texts]
    return {"label": label, "values": rows, "tickvals": list(range(len(known))), "ticktext": shown}


def _pruning(report: SweepReport) -> Section:
    folds = len(report.plan["folds"])
    reached = [sum(len(one.losses) > fold for one in report.trials) for fold in range(folds)]
    done, whole = sum(reached), folds * len(report.trials)
    layout = go.Layout(
        xaxis={"title_text": "folds", "dtick": 1 if folds <= 30 else None},
        yaxis_title_text="trials that finished so many",
    )
    bars = go.Bar(x=list(range(1, folds + 1)), y=reached, marker_color=SERIES[0])
    chart = Chart(label="number of trials by number of finished folds", data=[bars], layout=layout, height=280)
    share = f"{done:,} of {whole:,} trainings were done ({done / max(whole, 1):.0%})"
    text = share if done == whole else f"{share}; the others were stopped, failed or interrupted."
    return Section(title="Pruning", parts=[text, chart])


def _stitched(report: SweepReport) -> list[Section]:
    if not report.tracks:
        return []
    columns = ("partition", ">horizon", ">windows", ">inside 50 %", ">inside 80 %", ">inside 95 %")
    remark = note(
        "Forecasts of the best trial on the test windows of all folds, in time order. Only validation windows chose it."
    )
    first, *rest = track_sections(report.tracks)
    title = first.title.replace("Volatility", "Stitched out-of-sample forecasts: volatility", 1)
    return [Section(title=title, parts=[remark, Table(columns, report.coverage), *first.parts]), *rest]


def _trials(report: SweepReport) -> Section:
    rows = [
        (
            one.name,
            one.state,
            len(one.losses),
            number(one.loss, 5),
            f"{one.seconds:.1f}",
            one.error or point_text(one.point),
        )
        for one in report.trials
    ]
    columns = ("trial", "state", ">folds", ">validation loss", ">seconds", "configuration")
    table = Table(columns, rows, wide=True)
    return Section(title="All trials", parts=[folded(counted(len(rows), "trial"), table)])
