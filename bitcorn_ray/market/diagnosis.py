"""The full diagnosis of a partition's bars: what is wrong, where, how bad that is; `quality` is the quick report.

1. Rows as stored: their order, units and formats of time, rows of one time, values that cannot be.
2. One row a time, the last stored one, and only those on the grid: silent stretches (outages, or no trade), bad prints,
   extreme bars that are real, flat and stale bars, whether the last bar is finished.
3. Coverage by day and month, a score, and the reasons for it.

Nothing is changed; repair is `clean`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import PRICE_COLUMNS, Bars, modal_step, show_time, show_times
from bitcorn_ray.market.clean import drop_duplicates
from bitcorn_ray.market.coverage import DayCoverage, cover_days, cover_months
from bitcorn_ray.market.defects import Duplicates, find_duplicates, find_order, grid_phase, value_defects
from bitcorn_ray.market.outages import SilentRuns, invented_rows, joined_rows, silent_runs
from bitcorn_ray.market.prints import BadPrint, ExtremeBar, bad_prints, extreme_bars
from bitcorn_ray.market.score import score_defects
from bitcorn_ray.market.timeframe import timeframe_ms, timeframe_of_ms

LISTED = 500
"""How many places of one kind a report lists at most; its counts are of all."""

_LAST_BARS, _LEAST_BARS = 500, 100

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found.

    report: plain JSON-ready values. bars: one row a time, on the grid, ascending. marks: times (ms UTC) of the bars
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
    """Diagnose T rows in the order in which they are stored.

    timeframe: the grid; by default the most frequent distance. units: rows by unit of the time column (s, ms, ...).
    formats: rows by format, for each further column that holds times. set_aside: rows that are not among these, as they
    say no time or no symbol, by reason. now_ms: the time now, ms UTC; a last bar whose end lies after it is unfinished.
    Raises BitcornError for rows without times, and for none at all.
    """
    if not rows.timed or len(rows) == 0:
        raise BitcornError("bars without times cannot be diagnosed: add a timestamp column")
    order, against = find_order(rows.timestamp)
    stored = rows.take(np.argsort(rows.timestamp, kind="stable"))
    duplicates, unique = find_duplicates(stored), drop_duplicates(stored)
    step = timeframe_ms(timeframe) if timeframe else modal_step(unique.timestamp)
    on_grid = (unique.timestamp - grid_phase(unique.timestamp, step)) % max(step, 1) == 0
    bars = unique if on_grid.all() else unique.take(on_grid)
    runs = silent_runs(bars, step)
    joined, invented = joined_rows(bars, step, runs), invented_rows(bars, runs, step)
    prints = bad_prints(bars, joined)
    extremes = extreme_bars(bars, joined, prints)
    flat, stale = _still_bars(bars, joined)
    impossible = value_defects(stored)
    last = _last_bar(bars, step, time.time_ns() // 1_000_000 if now_ms is None else now_ms)
    days = cover_days(bars.timestamp, ~invented, step)
    written = _written(units or {}, formats or {}, set_aside or {})
    counts = _counted(duplicates, runs, impossible, **written) | {
        "bad_prints": len(prints),
        "out_of_order": against,
        "off_grid": int((~on_grid).sum()),
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
        "order": {"stored": order, "out_of_order_rows": against},
        **written,
        **_places(stored, bars, duplicates, runs, impossible, unique.timestamp[~on_grid]),
        "flat_bars": {"count": int(flat.sum()), "longest": _longest(flat)},
        "stale_bars": _listed(bars.timestamp[stale]),
        "bad_prints": {"count": len(prints), "list": [_print(bars, each) for each in prints[:LISTED]]},
        "extreme_bars": {"count": extremes[0], "list": [_extreme(bars, each) for each in extremes[1]]},
        "last_bar": last,
        "coverage": cover_months(days),
    }
    marks = {kind: np.unique(stored.timestamp[mask]) for kind, mask in impossible.items()} | {
        "bad_prints": bars.timestamp[[each.row for each in prints]],
        "extreme_bars": bars.timestamp[[each.row for each in extremes[1]]],
        "duplicates": np.unique(duplicates.times),
        "off_grid": unique.timestamp[~on_grid],
        "invented_bars": bars.timestamp[invented],
        "stale_bars": bars.timestamp[stale],
        "outages": runs.start[runs.outage],
    }
    return Diagnosis(report=report, bars=bars, marks=marks, days=days)


def _written(
    units: Mapping[str, int], formats: Mapping[str, Mapping[str, int]], set_aside: Mapping[str, int]
) -> dict[str, Any]:
    """Report how rows were written down."""
    of_columns = {name: dict(found) for name, found in formats.items()}
    return {"time_units": dict(units), "time_formats": of_columns, "set_aside": dict(set_aside)}


def _counted(
    duplicates: Duplicates,
    runs: SilentRuns,
    impossible: Mapping[str, Mask],
    time_units: Mapping[str, int],
    time_formats: Mapping[str, Mapping[str, int]],
    set_aside: Mapping[str, int],
) -> dict[str, int]:
    """Count what the score is made of, of several of each kind; of mixtures the rows that are unlike most."""
    kinds = duplicates.counts()
    return {kind: int(mask.sum()) for kind, mask in impossible.items()} | {
        "rows_set_aside": sum(set_aside.values()),
        "mixed_time_units": sum(sorted(time_units.values())[:-1]),
        "mixed_time_formats": sum(sum(sorted(found.values())[:-1]) for found in time_formats.values()),
        "duplicates_different": len(duplicates.times) - kinds["equal"],
        "duplicates_equal": kinds["equal"],
        "outage_bars": runs.silent_bars(outage=True, missing=True),
        "no_trade_bars": int(runs.length[~runs.outage].sum()),
    }


def _places(
    stored: Bars, bars: Bars, duplicates: Duplicates, runs: SilentRuns, impossible: Mapping[str, Mask], off_grid: Rows
) -> dict[str, Any]:
    """Report where single rows and stretches are wrong."""
    return {
        "duplicates": _duplicates(duplicates),
        "off_grid": _listed(off_grid),
        "gaps": _gaps(runs),
        "zero_volume": _zero_volume(bars, runs),
        **{kind: _listed(np.unique(stored.timestamp[mask])) for kind, mask in impossible.items()},
        "missing_by_column": {n: int((~np.isfinite(getattr(stored, n))).sum()) for n in (*PRICE_COLUMNS, "volume")},
    }


def _still_bars(bars: Bars, joined: Mask) -> tuple[Mask, Mask]:
    """Mark flat bars (one price, with volume), and stale ones (not flat, equal to the bar before, volume and all)."""
    traded = bars.volume > 0
    flat: Mask = (bars.high == bars.low) & traded
    same: Mask = np.logical_and.reduce([np.diff(getattr(bars, name)) == 0 for name in (*PRICE_COLUMNS, "volume")])
    return flat, np.append(False, same) & joined & traded & ~flat


def _last_bar(bars: Bars, step: int, now_ms: int) -> dict[str, Any]:
    """Tell whether the last bar is unfinished: `certain` by the clock, `suspected` by its volume, or `no`."""
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


def _duplicates(found: Duplicates) -> dict[str, Any]:
    counts = found.counts()
    listed = zip(show_times(found.times[:LISTED]), found.kind[:LISTED].tolist(), strict=True)
    return {
        "count": len(found.times),
        "equal": counts["equal"],
        "different": len(found.times) - counts["equal"],
        "different_by": {kind: counts[kind] for kind in Duplicates.KINDS[1:]},
        "list": [{"at": at, "kind": kind} for at, kind in listed],
    }


def _gaps(runs: SilentRuns) -> dict[str, Any]:
    gaps = runs.missing > 0
    missing, outage = runs.missing[gaps], runs.outage[gaps]
    listed = zip(show_times(runs.start[gaps][:LISTED]), missing.tolist(), outage.tolist(), strict=False)
    return {
        "count": int(gaps.sum()),
        "missing_bars": int(missing.sum()),
        "longest": int(missing.max(initial=0)),
        "outages": int(outage.sum()),
        "no_trade": int((~outage).sum()),
        "list": [{"at": at, "missing_bars": n, "kind": _kind(is_outage)} for at, n, is_outage in listed],
    }


def _zero_volume(bars: Bars, runs: SilentRuns) -> dict[str, Any]:
    there = runs.length - runs.missing
    rows = there > 0
    listed = zip(show_times(runs.start[rows][:LISTED]), there[rows].tolist(), runs.outage[rows].tolist(), strict=False)
    return {
        "count": int((bars.volume == 0).sum()),
        "recorded": bool((bars.volume != 0).any()),
        "runs": int(rows.sum()),
        "longest": int(there.max(initial=0)),
        "invented_in_outages": runs.silent_bars(outage=True, missing=False),
        "list": [{"at": at, "bars": n, "kind": _kind(is_outage)} for at, n, is_outage in listed],
    }


def _kind(is_outage: bool) -> str:
    return "outage" if is_outage else "no trade"


def _print(bars: Bars, found: BadPrint) -> dict[str, Any]:
    return {"at": bars.describe(found.row), "kind": found.kind, "price": found.price, "expected": found.expected}


def _extreme(bars: Bars, found: ExtremeBar) -> dict[str, Any]:
    change, times = round(float(np.expm1(found.log_return)), 4), round(found.times, 1)
    return {"at": bars.describe(found.row), "what": found.what, "change": change, "times_usual": times}


def _longest(mask: Mask) -> int:
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False]))
    return int((edges[1::2] - edges[::2]).max(initial=0))
