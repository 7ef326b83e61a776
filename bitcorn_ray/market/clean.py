"""Cleaning: explicit repair of stored rows, with a report of all changes.

The steps, in this order; the policy chooses each. Other defects (a missing price, high below low) stay.

- sort: by time.
- duplicates: keep the first or the last (also None) stored row of each time, or raise an error if there are several.
- off_grid: drop a bar off the grid, or snap it to the nearest grid time, if no other bar is there.
- bad_prints: keep the bars that `prints` finds, or mask them: remove them as if they were missing.
- fill: leave gaps (None), or fill those of at most `max_gap_size` missing bars, without volume: "forward" with the
  close before the gap; "linear" between that and the open after it. A linearly filled bar depends on later bars: no
  window may end on one. `filled` marks all filled bars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, drop_duplicates, grid_phase, missing_bars, modal_step, show_time, show_times
from bitcorn_ray.market.outages import continuous_rows, silent_runs
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.prints import bad_prints
from bitcorn_ray.market.timeframe import timeframe_ms

_LISTED = 500


@dataclass(frozen=True, kw_only=True)
class CleanBars:
    """T bars, ascending, one for each time, on the grid.

    filled: (T,) mask of filled bars. report: the changes, as JSON-ready values.
    """

    bars: Bars
    filled: NDArray[np.bool_]
    report: dict[str, Any]


def clean_bars(bars: Bars, policy: CleaningPolicy | None = None, timeframe: str | None = None) -> CleanBars:
    """Clean T rows in any order by a policy, by default `CleaningPolicy()`.

    timeframe: the grid; by default the most frequent distance.
    Raises BitcornError for rows without times, for repeated times if the policy says "error", and if gaps are to be
    filled on a grid that is neither given nor found.
    """
    policy = policy or CleaningPolicy()
    if not bars.timed:
        raise BitcornError("bars without times cannot be cleaned: add a timestamp column")
    report: dict[str, Any] = {"policy": asdict(policy), "rows": len(bars)}
    report["sorted_rows"] = int((np.diff(bars.timestamp) < 0).sum())
    if report["sorted_rows"]:
        bars = bars.take(np.argsort(bars.timestamp, kind="stable"))
    bars = _without_duplicates(bars, policy, report)
    step = timeframe_ms(timeframe) if timeframe else modal_step(bars.timestamp)
    if step:
        bars = _on_grid(bars, step, policy, report)
        bars = _without_bad_prints(bars, step, policy, report)
    filled = np.zeros(len(bars), bool)
    if policy.fill is not None:
        if not step and len(bars) > 1:
            raise BitcornError("the bars have no most frequent distance: pass the timeframe to fill gaps")
        bars, filled = _filled(bars, step, policy, report)
    report["bars"] = len(bars)
    return CleanBars(bars=bars, filled=filled, report=report)


def cleaning_counts(report: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of a cleaning report: how many rows each step changed, and how many gaps are left."""
    counts = {name: int(report.get(name, 0)) for name in ("rows", "sorted_rows", "duplicates_dropped")}
    counts |= {f"off_grid_{change}": report.get("off_grid", {}).get(change, 0) for change in ("dropped", "snapped")}
    counts["bad_prints_masked"] = report.get("bad_prints", {}).get("masked", 0)
    counts |= {name: int(report.get(name, 0)) for name in ("gaps_filled", "bars_filled")}
    return {**counts, "gaps_left": int(report.get("gaps_left_count", 0)), "bars": int(report["bars"])}


def cleaning_record(
    policy: CleaningPolicy | None, reports: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Any] | None:
    """Return the record of cleaning in a run's metadata; None without a policy. reports: by the partition's name."""
    if policy is None:
        return None
    counts = {name: cleaning_counts(report) for name, report in reports.items() if report is not None}
    return {"policy": asdict(policy), "partitions": counts}


def is_summed(column: str) -> bool:
    """Return True if a further column counts events within a bar, and False if it is a state at its end.

    >>> is_summed("taker_buy_volume"), is_summed("open_interest")
    (True, False)
    """
    return "vol" in column.lower() or "trade" in column.lower() or column.lower() == "count"


def _without_duplicates(bars: Bars, policy: CleaningPolicy, report: dict[str, Any]) -> Bars:
    steps = np.diff(bars.timestamp)
    again = np.flatnonzero(steps == 0)
    if len(again) and policy.duplicates == "error":
        raise BitcornError(
            f"{len(again)} rows have the time of another row, first {bars.describe(int(again[0]))}: remove them, or "
            "clean with duplicates='first' or 'last'"
        )
    report["duplicates_dropped"] = len(again)
    if policy.duplicates == "first" and len(again):
        return bars.take(np.append(True, steps > 0))
    return drop_duplicates(bars)


def _on_grid(bars: Bars, step: int, policy: CleaningPolicy, report: dict[str, Any]) -> Bars:
    distance = (bars.timestamp - grid_phase(bars.timestamp, step)) % step
    off_grid, snapped = np.flatnonzero(distance), np.zeros(0, np.int64)
    report["off_grid"] = {"count": len(off_grid), "list": show_times(bars.timestamp[off_grid][:_LISTED])}
    if len(off_grid) == 0:
        report["off_grid"] |= {"dropped": 0, "snapped": 0}
        return bars
    keep = distance == 0
    times = bars.timestamp.copy()
    if policy.off_grid == "snap":
        nearest = times[off_grid] - distance[off_grid] + np.where(2 * distance[off_grid] >= step, step, 0)
        # Of several bars with one nearest grid time the closest is kept, and a bar that is on it already before all.
        order = np.lexsort((np.abs(times[off_grid] - nearest), nearest))
        first = np.append(True, np.diff(nearest[order]) > 0)
        chosen = order[first & ~np.isin(nearest[order], times[keep])]
        snapped = off_grid[chosen]
        times[snapped] = nearest[chosen]
        keep[snapped] = True
    report["off_grid"] |= {"dropped": len(off_grid) - len(snapped), "snapped": len(snapped)}
    kept = replace(bars, timestamp=times).take(keep)
    return kept.take(np.argsort(kept.timestamp, kind="stable"))


def _without_bad_prints(bars: Bars, step: int, policy: CleaningPolicy, report: dict[str, Any]) -> Bars:
    if len(bars) == 0:
        return bars
    found = bad_prints(bars, continuous_rows(bars, step, silent_runs(bars, step)))
    mask = policy.bad_prints == "mask"
    report["bad_prints"] = {
        "count": len(found),
        "masked": len(found) if mask else 0,
        "list": [{"at": bars.describe(bad.row), "kind": bad.kind, "price": bad.price} for bad in found[:_LISTED]],
    }
    if not (found and mask):
        return bars
    return bars.take(np.delete(np.arange(len(bars)), [bad.row for bad in found]))


def _filled(bars: Bars, step: int, policy: CleaningPolicy, report: dict[str, Any]) -> tuple[Bars, NDArray[np.bool_]]:
    times = bars.timestamp
    missing = missing_bars(times, max(step, 1))
    too_long = missing > (policy.max_gap_size or missing.max(initial=0))
    count = np.where(too_long, 0, missing)
    report["gaps_filled"] = int((count > 0).sum())
    report["bars_filled"] = int(count.sum())
    report["gaps_left_count"] = int(too_long.sum())
    report["gaps_left"] = [
        {"after": show_time(int(times[row])), "missing_bars": int(missing[row])}
        for row in np.flatnonzero(too_long)[:_LISTED]
    ]
    copies = np.append(1 + count, 1) if len(bars) else np.zeros(0, np.int64)
    source = np.repeat(np.arange(len(bars)), copies)
    offset = np.arange(len(source)) - np.repeat(np.cumsum(copies) - copies, copies)
    filled = offset > 0
    columns: dict[str, Any] = {name: column[source] for name, column in bars.columns().items()}
    columns["timestamp"] = times[source] + offset * step
    before = source[filled]
    closes: NDArray[np.float64] = bars.close[before]
    opens = closes
    if policy.fill == "linear":
        n, k = count[before] + 1.0, offset[filled]
        change = bars.open[np.minimum(before + 1, len(bars) - 1)] - bars.close[before]
        opens, closes = closes + change * (k - 1) / n, closes + change * k / n
    columns["open"][filled], columns["close"][filled] = opens, closes
    columns["high"][filled], columns["low"][filled] = np.maximum(opens, closes), np.minimum(opens, closes)
    columns["volume"][filled] = 0.0
    extra = {name: np.where(filled & is_summed(name), 0.0, column[source]) for name, column in bars.extra.items()}
    return Bars(**columns, extra=extra), filled
