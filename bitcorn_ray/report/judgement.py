"""How good forecasts were, as parts of a page: skill against baselines, calibration, and volatility over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.report.console import ahead
from bitcorn_ray.report.page import SERIES, Chart, Html, Section, html_table, note, plain, stretches

_DRAWN = 6  # partitions
_STRETCHES, _FEWEST, _TOGETHER = 1_500, 60, 8  # at most and at least, where there are as many windows; windows of each
_Z95 = 1.959964
_DECADES = 4


@dataclass(frozen=True, kw_only=True)
class Track:
    """Volatility of one partition and horizon over time, (N,) each: as it was forecast, and as it came.

    name: of the partition. horizon: bars. times: ms UTC, ascending. realised: root of the realised variance, or NaN.
    """

    name: str
    horizon: int
    times: NDArray[np.int64]
    forecast: NDArray[np.floating]
    realised: NDArray[np.floating]


def skill_section(evaluation: Mapping[str, Any]) -> Section:
    """Loss of a run less that of each baseline, with intervals of 95 %: left of zero the run is better.

    evaluation: as `Evaluation.to_json` gives it.
    """
    parts = list[Html | Chart]()
    for field, what in (("volatility", "QLIKE of the variance"), ("returns", "Squared error of the return")):
        traces = []
        for place, one in enumerate(evaluation["skill"]):
            compared = [each for each in one[field] if each["test"]["standard_error"] is not None]
            traces.append(
                {
                    "x": plain(each["test"]["mean"] for each in compared),
                    "y": [each["baseline"] for each in compared],
                    "error_x": {
                        "type": "data",
                        "array": plain(_Z95 * each["test"]["standard_error"] for each in compared),
                    },
                    "mode": "markers",
                    "orientation": "h",
                    "name": ahead(one["horizon"]),
                    "marker": {"color": SERIES[place % len(SERIES)], "size": 9},
                    "customdata": [f"p = {each['test']['p_value']:.2g}" for each in compared],
                    "hovertemplate": "%{y}: %{x:.4f}, %{customdata}<extra></extra>",
                }
            )
        rows = max((len(trace["y"]) for trace in traces), default=0)
        axis = {"title": {"text": "the run's, less the baseline's"}, "zeroline": True, "zerolinecolor": "var(--soft)"}
        chart = Chart(
            label=f"{what}: the run's, less that of each baseline, by horizon",
            data=traces,
            layout={"scattermode": "group", "xaxis": axis, "yaxis": {"autorange": "reversed"}},
            height=130 + 44 * rows,
        )
        parts += [Html(f"<h3>{what}</h3>"), chart]
    remark = note("Bars are intervals of 95 %, with errors that know of overlapping horizons. Left of zero is better.")
    return Section(title="Skill against each baseline", parts=[*parts, remark])


def calibration_section(evaluation: Mapping[str, Any]) -> Section:
    """How often outcomes fell inside the bands, and where in the forecast distribution. See `skill_section`."""
    partitions = evaluation["partitions"]
    rows, charts = [], []
    for one in partitions:
        for metrics in one["metrics"]:
            covered = [
                "" if band["covered"] is None else f"{100 * band['covered']['share']:.1f} %"
                for band in metrics["bands"]
            ]
            name = f"{one['symbol']} {one['timeframe']}"
            rows.append((name, f"{metrics['horizon']}", f"{metrics['count']:,}", *covered, f"{metrics['crps']:.3g}"))
    levels = [f"inside {100 * band['level']:g} %" for band in partitions[0]["metrics"][0]["bands"]]
    table = html_table(("partition", "horizon", "windows", *levels, "CRPS"), rows, range(1, 4 + len(levels)))
    together = [[one["metrics"][place] for one in partitions] for place in range(len(evaluation["horizons"]))]
    charts.append(_coverage_chart(together))
    charts.append(_pit_chart(together))
    return Section(
        title="Calibration",
        parts=[charts[0], Html("<h3>Where outcomes fell in the forecast distribution (PIT)</h3>"), charts[1], table],
    )


def _coverage_chart(together: Sequence[Sequence[Mapping[str, Any]]]) -> Chart:
    """Points on the diagonal keep their promise. together: metrics of all partitions, by horizon."""
    traces: list[dict[str, Any]] = [
        {
            "x": [0, 100],
            "y": [0, 100],
            "mode": "lines",
            "line": {"color": "var(--soft)", "dash": "dot", "width": 1},
            "name": "as promised",
            "hoverinfo": "skip",
        }
    ]
    for place, metrics in enumerate(together):
        shares = [_mean_coverage(metrics, level) for level in range(len(metrics[0]["bands"]))]
        traces.append(
            {
                "x": [100 * band["level"] for band in metrics[0]["bands"]],
                "y": plain(None if share is None else 100 * share for share in shares),
                "mode": "lines+markers",
                "name": ahead(metrics[0]["horizon"]),
                "marker": {"color": SERIES[place % len(SERIES)], "size": 8},
                "line": {"color": SERIES[place % len(SERIES)], "width": 1},
                "hovertemplate": "%{x} % band: %{y:.1f} % inside<extra></extra>",
            }
        )
    return Chart(
        label="share of outcomes inside each band, beside its promise",
        data=traces,
        layout={
            "xaxis": {"title": {"text": "promised, %"}, "range": [40, 100]},
            "yaxis": {"title": {"text": "inside, %"}, "range": [40, 100]},
        },
        height=380,
    )


def _mean_coverage(metrics: Sequence[Mapping[str, Any]], level: int) -> float | None:
    known = [(each["bands"][level]["covered"], each["count"]) for each in metrics if each["bands"][level]["covered"]]
    total = sum(count for _, count in known)
    return sum(covered["share"] * count for covered, count in known) / total if total else None


def _pit_chart(together: Sequence[Sequence[Mapping[str, Any]]]) -> Chart:
    traces = []
    for place, metrics in enumerate(together):
        weights = np.array([each["count"] for each in metrics], np.float64)
        shares = np.average([each["pit"]["histogram"] for each in metrics], axis=0, weights=weights)
        bins = len(shares)
        traces.append(
            {
                "x": [round(n / bins, 4) for n in range(bins + 1)],
                "y": plain(100 * np.append(shares, shares[-1])),
                "mode": "lines",
                "line": {"shape": "hv", "color": SERIES[place % len(SERIES)], "width": 1.5},
                "name": ahead(metrics[0]["horizon"]),
            }
        )
    flat = {"type": "line", "x0": 0, "x1": 1, "y0": 100 / bins, "y1": 100 / bins}
    return Chart(
        label="histogram of the probability integral transform, by horizon; flat where the forecasts are calibrated",
        data=traces,
        layout={
            "xaxis": {"title": {"text": "probability below the outcome"}, "range": [0, 1]},
            "yaxis": {"title": {"text": "% of outcomes"}, "rangemode": "tozero"},
            "shapes": [{**flat, "line": {"color": "var(--soft)", "dash": "dot", "width": 1}}],
        },
    )


def track_sections(tracks: Sequence[Track]) -> list[Section]:
    """Volatility over time, a section a partition, of the first few."""
    sections, by_name = [], dict[str, list[Track]]()
    for track in tracks:
        by_name.setdefault(track.name, []).append(track)
    for name, own in list(by_name.items())[:_DRAWN]:
        charts = [part for track in own for part in (Html(f"<h3>{ahead(track.horizon)}</h3>"), _track_chart(track))]
        told = note("Root of the mean variance of each stretch of time, as forecast and as it came.")
        sections.append(Section(title=f"Volatility of {name}, forecast and realised", parts=[told, *charts]))
    return sections


def _track_chart(track: Track) -> Chart:
    """Draw a track as roots of mean squares of equally many windows, of those whose outcome is known."""
    known = np.isfinite(track.realised)
    times, forecast, realised = track.times[known], track.forecast[known], track.realised[known]
    if not len(times):
        return Chart(label="nothing is known of what came", data=[], height=80)
    # What came in one window is mostly chance: only several together have a height that a forecast could have.
    starts = stretches(len(times), min(_STRETCHES, max(_FEWEST, len(times) // _TOGETHER)))
    counts = np.diff(np.append(starts, len(times)))

    def root(values: NDArray[np.floating]) -> list[float | None]:
        squares = np.add.reduceat(values.astype(np.float64) ** 2, starts)
        return plain(100 * np.sqrt(squares / counts))

    last = np.append(starts[1:], len(times)) - 1
    hover = "%{x|%Y-%m-%d %H:%M}: %{y:.3f} %<extra></extra>"

    def line(name: str, values: list[float | None], colour: str, width: float) -> dict[str, Any]:
        drawn = {"x": times[last].tolist(), "y": values, "mode": "lines", "name": name}
        return {**drawn, "line": {"color": colour, "width": width}, "hovertemplate": hover}

    came, said = root(realised), root(forecast)
    many = f", {len(times):,} windows drawn as {len(starts):,} stretches" if len(times) > len(starts) else ""
    return Chart(
        label=f"volatility of {track.name} {ahead(track.horizon)}, forecast and realised",
        data=[
            line(f"realised{many}", came, "var(--s2)", 1),
            line("forecast", said, "var(--s1)", 1.5),
        ],
        layout={
            "xaxis": {"type": "date"},
            "yaxis": {**_logarithmic([*came, *said]), "title": {"text": "volatility, %"}},
        },
        height=320,
    )


def _logarithmic(values: Sequence[float | None]) -> dict[str, Any]:
    """A logarithmic axis with ticks at 1, 2 and 5 of each decade, or at 1 alone where these would be many."""
    there = [value for value in values if value]
    decades = range(math.floor(math.log10(min(there))), math.ceil(math.log10(max(there))) + 1) if there else range(0)
    digits = (1, 2, 5) if len(decades) <= _DECADES else (1,)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
