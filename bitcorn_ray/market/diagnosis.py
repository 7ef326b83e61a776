"""Diagnosis of a partition's bars: a quick report for every load, and a full one with a score. Nothing is changed.

`quality_report` checks bars in ascending order of time:

- gaps: neighbouring bars further apart than the timeframe; `missing_bars` is how many would fit between them.
- duplicates: rows with the time of an earlier row.
- missing_values: NaN or infinite.
- ohlc_violations: high below, or low above, another price of the bar.
- suspicious_jumps: closes that are bad prints by the rule of `prints`: jumps that the next bar reverses.

`diagnose` checks rows as they are stored:

1. All rows: their order, units and formats of time, rows with equal times, impossible values.
2. The last row of each time, on the grid: outages and times without a trade, bad prints, changes of level (see
   `levels`), extreme bars that are real, flat and stale bars, whether the last bar is finished.
3. Coverage by day and month, and a score from 0 to 100: 100 minus the cost of each kind of defect,
   cost = min(cap, base + slope * percent of the bars).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import (
    PRICE_COLUMNS,
    Bars,
    drop_duplicates,
    grid_phase,
    missing_bars,
    modal_step,
    show_time,
    show_times,
)
from bitcorn_ray.market.levels import level_changes
from bitcorn_ray.market.outages import SilentRuns, continuous_rows, invented_rows, silent_runs
from bitcorn_ray.market.prints import bad_closes, bad_prints, extreme_bars
from bitcorn_ray.market.timeframe import UNIT_MS, timeframe_ms, timeframe_of_ms

LISTED = 500
"""How many occurrences of one kind a full report lists; its counts are of all."""

COSTS: dict[str, tuple[float, float, float, str]] = {
    # kind: base, slope, cap, description
    "rows_set_aside": (5, 10, 40, "rows without a time, a symbol or a fixed timeframe"),
    "missing_values": (5, 10, 40, "rows with missing values"),
    "non_positive_prices": (10, 10, 50, "rows with prices of 0 or less"),
    "negative_volume": (5, 10, 30, "rows with negative volume"),
    "ohlc_violations": (5, 10, 40, "rows whose high or low contradicts other prices"),
    "bad_prints": (5, 50, 40, "bad prints"),
    "level_changes": (20, 0, 20, "changes of the level of prices"),
    "mixed_time_units": (5, 0, 5, "rows in another unit of time than the others"),
    "mixed_time_formats": (2, 0, 2, "rows in another format of time than the others"),
    "out_of_order": (3, 0.5, 15, "rows out of order"),
    "duplicates_different": (3, 1, 20, "rows of a time that stands before, with other values"),
    "duplicates_equal": (1, 0.2, 5, "repeated rows"),
    "off_grid": (3, 3, 30, "rows off the grid of the timeframe"),
    "outage_bars": (1, 4, 40, "bars missing in outages"),
    "invented_bars": (1, 4, 40, "invented bars, without volume, in outages"),
    "no_trade_bars": (0, 0.2, 10, "bars in which nothing was traded"),
    "stale_bars": (3, 10, 30, "bars that repeat the one before, volume and all"),
    "unfinished_last_bar": (1, 0, 1, "unfinished last bar"),
}

_VALUES = (*PRICE_COLUMNS, "volume")
_PLURAL = re.compile("(?<=bar|row)s|(?<=print)s|(?<=change)s")
_LAST_BARS, _LEAST_BARS = 500, 100

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


def quality_report(bars: Bars, timeframe: str | None = None, *, list_gaps: bool = True) -> dict[str, Any]:
    """Return the quick report of T bars in ascending order of time, as JSON-ready values.

    Times may repeat and values may be missing (NaN). timeframe: the grid, by default the most frequent distance.
    list_gaps: False only counts the gaps, which is faster if there are thousands.
    """
    jumps = zip(*(array.tolist() for array in bad_closes(bars)), strict=True)
    times = bars.timestamp if bars.timed else bars.timestamp[:0]
    step = timeframe_ms(timeframe) if timeframe and bars.timed else modal_step(times)
    rises = times[1:] > times[:-1]
    unique = times if rises.all() else times[np.append(True, rises)]
    return {
        "rows": len(bars),
        "first_timestamp": show_time(int(times[0])) if len(times) else None,
        "last_timestamp": show_time(int(times[-1])) if len(times) else None,
        "step_ms": step,
        "expected_rows": int((unique[-1] - unique[0]) // step) + 1 if step and len(unique) else 0,
        "gaps": _gaps(unique, step, list_gaps),
        "duplicates": len(times) - len(unique),
        "missing_values": _missing_by_column(bars),
        "non_positive_prices": int(sum((getattr(bars, name) <= 0).sum() for name in PRICE_COLUMNS)),
        "ohlc_violations": int(_ohlc_violations(bars).sum()),
        "zero_volume_bars": int((bars.volume == 0).sum()),
        "suspicious_jumps": [{"at": bars.describe(row), "log_return": size} for row, size in jumps],
    }


def quality_flags(report: Mapping[str, Any]) -> list[str]:
    """Return the defects of a quick report, a few words for each kind, worst first; empty for clean bars.

    >>> quality_flags({"duplicates": 2, "gaps": {"count": 0}})
    ['2 duplicates']
    """
    counts = {
        "missing values": sum(report.get("missing_values", {}).values()),
        "non-positive prices": report.get("non_positive_prices", 0),
        "OHLC violations": report.get("ohlc_violations", 0),
        "duplicates": report.get("duplicates", 0),
        "suspicious jumps": len(report.get("suspicious_jumps", ())),
        "missing bars": report.get("gaps", {}).get("missing_bars", 0),
        "zero-volume bars": report.get("zero_volume_bars", 0),
    }
    return [f"{count} {kind}" for kind, count in counts.items() if count]


@dataclass(frozen=True)
class DayCoverage:
    """Coverage of D consecutive days, UTC.

    first_day: days since 1970. expected: (D,) bars that open on each day. there: (D,) how many of them are present and
    not invented.
    """

    first_day: int
    expected: Rows
    there: Rows


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The result of `diagnose`.

    report: JSON-ready values. bars: one row for each time, on the grid, ascending. marks: times (ms UTC) of the bars
    with a defect, by kind. days: coverage.
    """

    report: dict[str, Any]
    bars: Bars
    marks: dict[str, Rows]
    days: DayCoverage


def diagnose(
    rows: Bars,
    timeframe: str | None = None,
    *,
    units: Mapping[str, int] | None = None,
    formats: Mapping[str, Mapping[str, int]] | None = None,
    set_aside: Mapping[str, int] | None = None,
    now_ms: int | None = None,
) -> Diagnosis:
    """Return the full diagnosis of T rows in the order in which they are stored.

    timeframe: the grid, by default the most frequent distance. units: rows by unit of the time column (s, ms, ...).
    formats: rows by format, for each further column of times. set_aside: further rows, without a time or a symbol, by
    reason. now_ms: the present time, ms UTC; a last bar that ends later is unfinished.
    Raises BitcornError if the rows have no times, and if there are no rows.
    """
    if not rows.timed or len(rows) == 0:
        raise BitcornError("bars without times cannot be diagnosed: add a timestamp column")
    order, out_of_order = find_order(rows.timestamp)
    stored = rows.take(np.argsort(rows.timestamp, kind="stable"))
    duplicate_times, duplicate_kinds = find_duplicates(stored)
    unique = drop_duplicates(stored)
    step = timeframe_ms(timeframe) if timeframe else modal_step(unique.timestamp)
    on_grid = (unique.timestamp - grid_phase(unique.timestamp, step)) % max(step, 1) == 0
    off_grid = unique.timestamp[~on_grid]
    bars = unique if on_grid.all() else unique.take(on_grid)
    runs = silent_runs(bars, step)
    continuous, invented = continuous_rows(bars, step, runs), invented_rows(bars, runs, step)
    prints = bad_prints(bars, continuous)
    extreme_count, extremes = extreme_bars(bars, continuous, prints)
    flat, stale = _still_bars(bars, continuous)
    levels = level_changes(bars)
    impossible = {kind: stored.timestamp[mask] for kind, mask in value_defects(stored).items()}
    last = _last_bar(bars, step, time.time_ns() // 1_000_000 if now_ms is None else now_ms)
    days = cover_days(bars.timestamp, ~invented, step)
    units, formats, set_aside = units or {}, formats or {}, set_aside or {}
    repeated = int((duplicate_kinds == "equal").sum())
    counts = {kind: len(times) for kind, times in impossible.items()} | {
        "rows_set_aside": sum(set_aside.values()),
        # All rows but those of the most frequent unit or format.
        "mixed_time_units": sum(sorted(units.values())[:-1]),
        "mixed_time_formats": sum(sum(sorted(found.values())[:-1]) for found in formats.values()),
        "duplicates_different": len(duplicate_times) - repeated,
        "duplicates_equal": repeated,
        "outage_bars": int(runs.missing[runs.outage].sum()),
        "no_trade_bars": int(runs.length[~runs.outage].sum()),
        "bad_prints": len(prints),
        "level_changes": len(levels),
        "out_of_order": out_of_order,
        "off_grid": len(off_grid),
        "invented_bars": int(invented.sum()),
        "stale_bars": int(stale.sum()),
        "unfinished_last_bar": int(last["unfinished"] != "no"),
    }
    expected = int(days.expected.sum())
    score, reasons = score_defects(counts, max(expected, len(rows)))
    report = {
        "score": score,
        "reasons": reasons,
        "rows": len(rows),
        "bars": len(bars),
        "expected_bars": expected,
        "first_timestamp": show_time(int(bars.timestamp[0])),
        "last_timestamp": show_time(int(bars.timestamp[-1])),
        "timeframe": timeframe or (timeframe_of_ms(step) if step else None),
        "step_ms": step,
        "order": {"stored": order, "out_of_order_rows": out_of_order},
        "time_units": dict(units),
        "time_formats": {name: dict(found) for name, found in formats.items()},
        "set_aside": dict(set_aside),
        "duplicates": _duplicates(duplicate_times, duplicate_kinds),
        "off_grid": _listed(off_grid),
        "gaps": _classified_gaps(runs),
        "zero_volume": _zero_volume(bars, runs),
        **{kind: _listed(np.unique(times)) for kind, times in impossible.items()},
        "missing_by_column": _missing_by_column(stored),
        "flat_bars": {"count": int(flat.sum()), "longest": _longest(flat)},
        "stale_bars": _listed(bars.timestamp[stale]),
        "bad_prints": {
            "count": len(prints),
            "list": [
                {"at": bars.describe(bad.row), "kind": bad.kind, "price": bad.price, "expected": bad.expected}
                for bad in prints[:LISTED]
            ],
        },
        "extreme_bars": {
            "count": extreme_count,
            "list": [
                {
                    "at": bars.describe(bar.row),
                    "what": bar.what,
                    "change": round(float(np.expm1(bar.log_return)), 4),
                    "times_usual": round(bar.times, 1),
                }
                for bar in extremes
            ],
        },
        "level_changes": {
            "count": len(levels),
            "list": [
                {"at": bars.describe(each.row), "factor": round(each.factor, 6), "what": each.what}
                for each in levels[:LISTED]
            ],
        },
        "last_bar": last,
        "coverage": cover_months(days),
    }
    marks = {kind: np.unique(times) for kind, times in impossible.items()} | {
        "bad_prints": bars.timestamp[[bad.row for bad in prints]],
        "extreme_bars": bars.timestamp[[bar.row for bar in extremes]],
        "level_changes": bars.timestamp[[each.row for each in levels]],
        "duplicates": np.unique(duplicate_times),
        "off_grid": off_grid,
        "invented_bars": bars.timestamp[invented],
        "stale_bars": bars.timestamp[stale],
        "outages": runs.start[runs.outage],
    }
    return Diagnosis(report=report, bars=bars, marks=marks, days=days)


def find_order(timestamp: Rows) -> tuple[str, int]:
    """Return the order of stored rows, `ascending` or `descending`, and how many rows violate it.

    >>> find_order(np.array([3, 2, 2, 5, 1]))
    ('descending', 1)
    """
    steps = np.diff(timestamp)
    rising, falling = int((steps > 0).sum()), int((steps < 0).sum())
    return ("descending", rising) if falling > rising else ("ascending", falling)


def find_duplicates(bars: Bars) -> tuple[Rows, NDArray[np.str_]]:
    """Return the times (D,) of rows with the time of a later row, and how their values compare with the last one's.

    bars: ascending in time, equal times in stored order. The comparison is "equal"; "rounding" (the same to the
    decimals of the coarser row); "unfinished" (one is an earlier state of the other: the same open, within its range,
    less volume); or "conflict".
    """
    times = bars.timestamp
    again = np.flatnonzero(np.diff(times) == 0)
    last_of_time = np.append(np.flatnonzero(np.diff(times) > 0), len(bars) - 1)
    kept = last_of_time[np.searchsorted(last_of_time, again)]
    one, other = bars.take(again), bars.take(kept)
    kind = np.full(len(again), "conflict", "U10")
    kind[_is_earlier(one, other) | _is_earlier(other, one)] = "unfinished"
    pairs = [(getattr(one, name), getattr(other, name)) for name in _VALUES]
    kind[np.logical_and.reduce([_same_but_rounded(a, b) for a, b in pairs])] = "rounding"
    kind[np.logical_and.reduce([(a == b) | (np.isnan(a) & np.isnan(b)) for a, b in pairs])] = "equal"
    return times[again], kind


def value_defects(bars: Bars) -> dict[str, Mask]:
    """Return masks of the rows (T,) with impossible values, by kind.

    missing_values: a value is not finite. non_positive_prices: a price of 0 or less. negative_volume.
    ohlc_violations: high below, or low above, another price; a missing price violates nothing.
    """
    return {
        "missing_values": ~np.logical_and.reduce([np.isfinite(getattr(bars, name)) for name in _VALUES]),
        "non_positive_prices": np.logical_or.reduce([getattr(bars, name) <= 0 for name in PRICE_COLUMNS]),
        "negative_volume": bars.volume < 0,
        "ohlc_violations": _ohlc_violations(bars),
    }


def score_defects(counts: Mapping[str, int], bars: int) -> tuple[float, list[dict[str, Any]]]:
    """Return the score and its reasons: `kind`, `count`, `cost` and `text`, the most expensive first.

    counts: by kind, see `COSTS`. bars: the base of the percentages.

    >>> score_defects({"outage_bars": 10}, 1_000)
    (95.0, [{'kind': 'outage_bars', 'count': 10, 'cost': 5.0, 'text': '10 bars missing in outages'}])
    """
    reasons, total = list[dict[str, Any]](), 0.0
    for kind, count in counts.items():
        base, slope, cap, description = COSTS[kind]
        if count:
            cost = min(cap, base + slope * 100 * count / max(bars, 1))
            total += cost
            text = f"{count:,} {description}" if count != 1 else f"1 {_PLURAL.sub('', description, count=1)}"
            reasons.append({"kind": kind, "count": count, "cost": round(cost, 2), "text": text})
    reasons.sort(key=lambda reason: -float(reason["cost"]))
    return round(max(0.0, 100.0 - total), 1), reasons


def cover_days(times: Rows, real: Mask, step: int) -> DayCoverage:
    """Count bars by day. times: (T,) rising, on a grid of ``step`` ms. real: (T,) which of them count."""
    if len(times) == 0 or step <= 0:
        return DayCoverage(0, np.zeros(0, np.int64), np.zeros(0, np.int64))
    day = UNIT_MS["d"]
    first, last = int(times[0]) // day, int(times[-1]) // day
    edges = np.arange(first, last + 2) * day
    # The number of grid points before each midnight, from the first bar to the last one.
    before = np.clip(-(-(edges - times[0]) // step), 0, (int(times[-1]) - int(times[0])) // step + 1)
    there = np.bincount(times[real] // day - first, minlength=len(edges) - 1)
    return DayCoverage(first, np.diff(before), np.minimum(there, np.diff(before)))


def cover_months(days: DayCoverage) -> list[dict[str, Any]]:
    """Return `month` (YYYY-MM), `expected`, `there` and `share` of each month that expects bars."""
    if len(days.expected) == 0:
        return []
    dates = np.arange(days.first_day, days.first_day + len(days.expected)).view("M8[D]")
    months, starts = np.unique(dates.astype("M8[M]"), return_index=True)
    expected, there = (np.add.reduceat(counts, starts).tolist() for counts in (days.expected, days.there))
    return [
        {"month": str(month), "expected": e, "there": t, "share": round(t / e, 4)}
        for month, e, t in zip(months, expected, there, strict=True)
        if e
    ]


def _missing_by_column(bars: Bars) -> dict[str, int]:
    return {name: int((~np.isfinite(getattr(bars, name))).sum()) for name in _VALUES}


def _ohlc_violations(bars: Bars) -> Mask:
    # Comparisons with NaN are false: a missing value is reported as missing, not as a violation too.
    too_low = (bars.high < bars.open) | (bars.high < bars.close) | (bars.high < bars.low)
    violations: Mask = too_low | (bars.low > bars.open) | (bars.low > bars.close)
    return violations


def _gaps(times: Rows, step: int, listed: bool) -> dict[str, Any]:
    missing = missing_bars(times, step) if step else np.zeros(0, np.int64)
    at = np.flatnonzero(missing > 0)
    missing = missing[at]
    gaps = []
    if listed:
        edges = zip(show_times(times[at]), show_times(times[at + 1]), missing.tolist(), strict=True)
        gaps = [{"after": after, "before": before, "missing_bars": count} for after, before, count in edges]
    longest = int(missing.max(initial=0))
    return {"count": len(at), "missing_bars": int(missing.sum()), "longest": longest, "list": gaps}


def _is_earlier(one: Bars, other: Bars) -> Mask:
    """Return True if a row is an earlier state of another one."""
    same_open = np.abs(one.open - other.open) <= 1e-6 * np.abs(other.open)
    earlier: Mask = same_open & (one.high <= other.high) & (one.low >= other.low) & (one.volume < 0.99 * other.volume)
    return earlier


def _same_but_rounded(one: NDArray[np.float64], other: NDArray[np.float64]) -> Mask:
    same: Mask = (one == other) | (np.isnan(one) & np.isnan(other))
    scale = 1e-12 * np.maximum(np.abs(one), np.abs(other))
    for decimals in range(9):
        for coarse, fine in ((one, other), (other, one)):
            # The coarser value has no more decimals than it is rounded to. At half a unit it can be rounded either way.
            is_coarse = np.abs(np.round(coarse, decimals) - coarse) <= scale
            near = np.abs(fine - coarse) <= 0.5000001 * 10.0**-decimals + scale
            same |= is_coarse & near & (np.abs(fine - coarse) <= 1e-2 * np.abs(fine))
    return same


def _still_bars(bars: Bars, continuous: Mask) -> tuple[Mask, Mask]:
    """Mark flat bars (one price, with volume), and stale ones (not flat, equal to the bar before, with its volume)."""
    traded = bars.volume > 0
    flat: Mask = (bars.high == bars.low) & traded
    same: Mask = np.logical_and.reduce([np.diff(getattr(bars, name)) == 0 for name in _VALUES])
    return flat, np.append(False, same) & continuous & traded & ~flat


def _last_bar(bars: Bars, step: int, now_ms: int) -> dict[str, Any]:
    """Report whether the last bar is unfinished: `certain` by the clock, `suspected` by its volume, or `no`."""
    before = bars.volume[-_LAST_BARS - 1 : -1]
    before = before[before > 0]
    state, why = "no", "its time is over, and its volume is not the least"
    if int(bars.timestamp[-1]) + step > now_ms:
        state, why = "certain", "its time is not over yet"
    elif len(before) >= _LEAST_BARS and 0 < bars.volume[-1] < before.min():
        state, why = "suspected", f"its volume is less than that of each of the {len(before)} bars before"
    return {"at": show_time(int(bars.timestamp[-1])), "unfinished": state, "why": why}


def _listed(times: Rows) -> dict[str, Any]:
    return {"count": len(times), "list": show_times(times[:LISTED])}


def _duplicates(times: Rows, kinds: NDArray[np.str_]) -> dict[str, Any]:
    counts = {kind: int((kinds == kind).sum()) for kind in ("equal", "rounding", "unfinished", "conflict")}
    equal = counts.pop("equal")
    listed = zip(show_times(times[:LISTED]), kinds[:LISTED].tolist(), strict=True)
    return {
        "count": len(times),
        "equal": equal,
        "different": len(times) - equal,
        "different_by": counts,
        "list": [{"at": at, "kind": kind} for at, kind in listed],
    }


def _classified_gaps(runs: SilentRuns) -> dict[str, Any]:
    gaps = runs.missing > 0
    missing, outages = runs.missing[gaps], int(runs.outage[gaps].sum())
    return {
        "count": len(missing),
        "missing_bars": int(missing.sum()),
        "longest": int(missing.max(initial=0)),
        "outages": outages,
        "no_trade": len(missing) - outages,
        "list": _listed_runs(runs, "missing_bars", runs.missing),
    }


def _zero_volume(bars: Bars, runs: SilentRuns) -> dict[str, Any]:
    there = runs.length - runs.missing
    return {
        "count": int((bars.volume == 0).sum()),
        "recorded": bool((bars.volume != 0).any()),
        "runs": int((there > 0).sum()),
        "longest": int(there.max(initial=0)),
        "invented_in_outages": int(there[runs.outage].sum()),
        "list": _listed_runs(runs, "bars", there),
    }


def _listed_runs(runs: SilentRuns, name: str, counts: Rows) -> list[dict[str, Any]]:
    """Return the start, the count and the kind of the runs with a count above 0."""
    rows = np.flatnonzero(counts > 0)[:LISTED]
    listed = zip(show_times(runs.start[rows]), counts[rows].tolist(), runs.outage[rows].tolist(), strict=True)
    return [{"at": at, name: count, "kind": "outage" if outage else "no trade"} for at, count, outage in listed]


def _longest(mask: Mask) -> int:
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False]))
    return int((edges[1::2] - edges[::2]).max(initial=0))
