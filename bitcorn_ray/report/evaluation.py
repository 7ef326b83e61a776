"""An evaluation: tables for a terminal, and sections of a page on skill, calibration and volatility over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from bitcorn_ray.report.html import SERIES, SOFT, Chart, Part, Section, heading, note, plain, stretches
from bitcorn_ray.report.table import Cell, Table, ahead, counted, name_of, number, percent

if TYPE_CHECKING:
    from bitcorn_ray.evaluation.evaluate import Evaluation, PartitionEvaluation
    from bitcorn_ray.metrics.losses import HorizonMetrics

DRAWN = 6  # partitions
_STRONGEST = "strong HAR"
_STRETCHES, _FEWEST, _TOGETHER = 1_500, 60, 8  # most and fewest stretches of a track, and the windows of a stretch
_Z95 = 1.959964
_DECADES = 4


def evaluation_tables(evaluation: Evaluation) -> tuple[Table | str, ...]:
    """Return the verdicts, the QLIKE of the run minus each baseline's, and a row per partition and horizon."""
    verdicts = ["\n  ".join([ahead(one.horizon), *one.verdict.split("; ")]) for one in evaluation.skill]
    remarks = [f"{name} of {one.symbol}: {text}" for one in evaluation.partitions for name, text in one.remarks.items()]
    measures = (">QLIKE", f">minus {_STRONGEST}'s", ">direction", ">by chance")
    bands = [f">in {100 * band.level:g} %" for band in evaluation.partitions[0].metrics[0].bands]
    rows = [row for one in evaluation.partitions for row in _metrics_rows(one)]
    metrics = Table(("partition", ">horizon", ">windows", "from", *measures, *bands, ">CRPS", ">RMSE"), rows, keys=2)
    return "\n".join(verdicts), _baselines(evaluation), metrics, *remarks


def _baselines(evaluation: Evaluation) -> Table:
    """Return the QLIKE of the run minus each baseline's; a star marks a significant difference."""
    rows = []
    for at, baseline in enumerate(evaluation.skill[0].volatility):
        compared = [one.volatility[at] for one in evaluation.skill]
        stars = ["" if one.outcome == "not distinguishable" else " *" for one in compared]
        cells = [f"{one.test.mean:+.4f}{star}" for one, star in zip(compared, stars, strict=True)]
        rows.append((baseline.baseline, *cells))
    horizons = [f">{counted(one.horizon, 'bar')}" for one in evaluation.skill]
    return Table(("QLIKE minus that of (below 0 is better)", *horizons), rows)


def _metrics_rows(one: PartitionEvaluation) -> Iterator[tuple[str | int | None, ...]]:
    for metrics, skill in zip(one.metrics, one.skill, strict=True):
        strong = next((test.test.mean for test in skill.volatility if test.baseline == _STRONGEST), None)
        direction = metrics.direction
        yield (
            name_of(one),
            metrics.horizon,
            metrics.count,
            one.first[:10],
            number(metrics.qlike),
            None if strong is None else f"{strong:+.4f}",
            percent(direction.accuracy.share) if direction else "",
            percent(direction.expected) if direction else "",
            *_covered(metrics),
            f"{metrics.crps:.3g}",
            f"{metrics.rmse_return:.3g}",
        )


def _covered(metrics: HorizonMetrics) -> list[str]:
    return [percent(band.covered.share) if band.covered else "" for band in metrics.bands]


def skill_section(evaluation: Evaluation) -> Section:
    """Return the loss of a run minus that of each baseline, with 95 % intervals: the run is better left of zero."""
    parts = list[Part]()
    for what, title in (("volatility", "QLIKE of the variance"), ("returns", "Squared error of the return")):
        traces, rows = list[Any](), 0
        for n, one in enumerate(evaluation.skill):
            compared = [test for test in getattr(one, what) if test.test.standard_error is not None]
            rows = max(rows, len(compared))
            trace = go.Scatter(
                x=plain(each.test.mean for each in compared),
                y=[each.baseline for each in compared],
                error_x={"type": "data", "array": plain(_Z95 * each.test.standard_error for each in compared)},
                mode="markers",
                orientation="h",
                name=ahead(one.horizon),
                marker={"color": SERIES[n % len(SERIES)], "size": 9},
                customdata=[f"p = {each.test.p_value:.2g}" for each in compared],
                hovertemplate="%{y}: %{x:.4f}, %{customdata}<extra></extra>",
            )
            traces.append(trace)
        axis = {"title_text": "loss of the run minus loss of the baseline", "zeroline": True, "zerolinecolor": SOFT}
        layout = go.Layout(scattermode="group", xaxis=axis, yaxis_autorange="reversed")
        label = f"{title}: that of the run minus that of each baseline, by horizon"
        parts += [heading(title), Chart(label=label, data=traces, layout=layout, height=130 + 44 * rows)]
    remark = note("Bars are 95 % intervals that allow for overlapping horizons. Left of zero is better.")
    return Section(title="Skill against each baseline", parts=[*parts, remark])


def calibration_section(evaluation: Evaluation) -> Section:
    """Return how often outcomes fell inside the bands, and where in the forecast distribution."""
    partitions = evaluation.partitions
    rows: list[Sequence[Cell]] = [
        (name_of(one), metrics.horizon, metrics.count, *_covered(metrics), f"{metrics.crps:.3g}")
        for one in partitions
        for metrics in one.metrics
    ]
    levels = [f">inside {100 * band.level:g} %" for band in partitions[0].metrics[0].bands]
    table = Table(("partition", ">horizon", ">windows", *levels, ">CRPS"), rows)
    by_horizon = list(zip(*(one.metrics for one in partitions), strict=True))
    title = heading("Where outcomes fell in the forecast distribution (PIT)")
    return Section(title="Calibration", parts=[_coverage_chart(by_horizon), title, _pit_chart(by_horizon), table])


def _coverage_chart(by_horizon: Sequence[Sequence[HorizonMetrics]]) -> Chart:
    """Draw the share of outcomes inside each band against its level. by_horizon: metrics of all partitions."""
    diagonal = {"color": SOFT, "dash": "dot", "width": 1}
    traces = [go.Scatter(x=[0, 100], y=[0, 100], mode="lines", line=diagonal, name="ideal", hoverinfo="skip")]
    for n, metrics in enumerate(by_horizon):
        colour, levels = SERIES[n % len(SERIES)], [100 * band.level for band in metrics[0].bands]
        trace = go.Scatter(
            x=levels,
            y=plain(_mean_coverage(metrics, level) for level in range(len(levels))),
            mode="lines+markers",
            name=ahead(metrics[0].horizon),
            marker={"color": colour, "size": 8},
            line={"color": colour, "width": 1},
            hovertemplate="%{x} % band: %{y:.1f} % inside<extra></extra>",
        )
        traces.append(trace)
    axes = {name: {"title_text": f"{title}, %", "range": [40, 100]} for name, title in
            (("xaxis", "level of the band"), ("yaxis", "outcomes inside"))}  # fmt: skip
    label = "share of outcomes inside each band against its level"
    return Chart(label=label, data=traces, layout=go.Layout(**axes), height=380)


def _mean_coverage(metrics: Sequence[HorizonMetrics], level: int) -> float | None:
    """Return the coverage of all partitions in percent."""
    known = [(one.bands[level].covered, one.count) for one in metrics]
    hits = [(covered.share * count, count) for covered, count in known if covered is not None]
    return 100 * sum(inside for inside, _ in hits) / sum(count for _, count in hits) if hits else None


def _pit_chart(by_horizon: Sequence[Sequence[HorizonMetrics]]) -> Chart:
    traces, bins = list[Any](), 1
    for n, metrics in enumerate(by_horizon):
        weights = np.array([one.count for one in metrics], np.float64)
        shares = np.average([one.pit.histogram for one in metrics], axis=0, weights=weights)
        bins = len(shares)
        trace = go.Scatter(
            x=[round(edge / bins, 4) for edge in range(bins + 1)],
            y=plain(100 * np.append(shares, shares[-1])),
            mode="lines",
            line={"shape": "hv", "color": SERIES[n % len(SERIES)], "width": 1.5},
            name=ahead(metrics[0].horizon),
        )
        traces.append(trace)
    layout = go.Layout(
        xaxis={"title_text": "probability below the outcome", "range": [0, 1]},
        yaxis={"title_text": "% of outcomes", "rangemode": "tozero"},
    )
    layout.shapes = [{"type": "line", "x0": 0, "x1": 1, "y0": 100 / bins, "y1": 100 / bins,
                      "line": {"color": SOFT, "dash": "dot", "width": 1}}]  # fmt: skip
    label = "histogram of the probability integral transform, by horizon; it is flat for calibrated forecasts"
    return Chart(label=label, data=traces, layout=layout)


@dataclass(frozen=True, kw_only=True)
class Track:
    """Forecast and realised volatility of one partition and horizon over time, (N,) each.

    name: of the partition. horizon: bars. times: ms UTC, ascending. realised: root of the realised variance, or NaN.
    """

    name: str
    horizon: int
    times: NDArray[np.int64]
    forecast: NDArray[np.floating]
    realised: NDArray[np.floating]


def evaluation_tracks(evaluation: Evaluation) -> list[Track]:
    """Return the volatility of each partition at the shortest and the longest horizon."""
    return [
        Track(
            name=name_of(partition),
            horizon=horizon,
            times=windows.times,
            forecast=windows.volatilities[:, evaluation.horizons.index(horizon)],
            realised=np.sqrt(windows.realised[:, evaluation.horizons.index(horizon)]),
        )
        for partition, windows in zip(evaluation.partitions, evaluation.windows, strict=True)
        for horizon in ends(evaluation.horizons)
    ]


def ends(horizons: Sequence[int]) -> list[int]:
    """Return the shortest and the longest horizon."""
    return sorted({min(horizons), max(horizons)})


def track_sections(tracks: Sequence[Track]) -> list[Section]:
    """Return volatility over time, a section for each of the first partitions."""
    sections = []
    for name in list(dict.fromkeys(track.name for track in tracks))[:DRAWN]:
        own = [track for track in tracks if track.name == name]
        charts = [part for track in own for part in (heading(ahead(track.horizon)), _track_chart(track))]
        remark = note("Root of the mean variance of each stretch of time, forecast and realised.")
        sections.append(Section(title=f"Volatility of {name}, forecast and realised", parts=[remark, *charts]))
    return sections


def _track_chart(track: Track) -> Chart:
    """Draw the root mean square of stretches of equally many windows whose outcome is known."""
    known = np.isfinite(track.realised)
    times, count = track.times[known], int(known.sum())
    if not count:
        return Chart(label="no outcome is known", data=[], height=80)
    # The outcome of one window is mostly noise; only a mean of several is comparable with a forecast.
    starts = stretches(count, min(_STRETCHES, max(_FEWEST, count // _TOGETHER)))
    lengths = np.diff(np.append(starts, count))

    def root(values: NDArray[np.floating]) -> list[float | None]:
        squares = np.add.reduceat(values[known].astype(np.float64) ** 2, starts)
        return plain(100 * np.sqrt(squares / lengths))

    realised, forecast = root(track.realised), root(track.forecast)
    drawn = f", {count:,} windows drawn as {len(starts):,} stretches" if count > len(starts) else ""
    lines = (
        (f"realised{drawn}", realised, {"color": SERIES[1], "width": 1}),
        ("forecast", forecast, {"color": SERIES[0], "width": 1.5}),
    )
    hover = "%{x|%Y-%m-%d %H:%M}: %{y:.3f} %<extra></extra>"
    last = times[starts + lengths - 1].tolist()
    return Chart(
        label=f"volatility of {track.name} {ahead(track.horizon)}, forecast and realised",
        data=[
            go.Scatter(x=last, y=y, mode="lines", name=name, line=line, hovertemplate=hover) for name, y, line in lines
        ],
        layout=go.Layout(
            xaxis_type="date", yaxis={"title_text": "volatility, %", **_logarithmic([*realised, *forecast])}
        ),
        height=320,
    )


def _logarithmic(values: Sequence[float | None]) -> dict[str, Any]:
    """Return a logarithmic axis with ticks at 1, 2 and 5 of each decade, or at 1 only if there are many decades."""
    known = [value for value in values if value]
    decades = range(math.floor(math.log10(min(known))), math.ceil(math.log10(max(known))) + 1) if known else range(0)
    digits = (1, 2, 5) if len(decades) <= _DECADES else (1,)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
