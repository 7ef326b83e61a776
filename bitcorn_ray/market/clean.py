"""From rows as stored to clean bars: explicit repair, with a record of all that was done.

In this order: sort; one row a time; off the grid; bad prints; gaps. Each step is chosen by the policy, and what none of
them is told to repair (a missing price, high below low) is left as it is. Exact semantics:

- duplicates: the first or the last (also None) stored row of each time is kept, or an error is raised where there are
  several.
- off_grid: a bar between the places of the grid is dropped, or snapped to the nearest place, if no other bar is there.
- bad_prints: bars that `prints` finds are kept, or masked: taken out, as if they were missing.
- fill: gaps of at most `max_gap_size` missing bars are left (None), or filled, without volume: "forward" with the close
  before the gap; "linear" between that and the open after it. A bar that was filled linearly knows what came after it:
  no window may end on one. `filled` marks all filled bars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, modal_step, show_time, show_times
from bitcorn_ray.market.defects import grid_phase
from bitcorn_ray.market.outages import joined_rows, silent_runs
from bitcorn_ray.market.policy import CleaningPolicy
from bitcorn_ray.market.prints import bad_prints
from bitcorn_ray.market.timeframe import timeframe_ms

_LISTED = 500


@dataclass(frozen=True, kw_only=True)
class CleanBars:
    """T bars, ascending, one a time, on the grid.

    filled: (T,) bars that were made here. report: what was done, in plain JSON-ready values.
    """

    bars: Bars
    filled: NDArray[np.bool_]
    report: dict[str, Any]


def clean_bars(bars: Bars, policy: CleaningPolicy | None = None, timeframe: str | None = None) -> CleanBars:
    """Repair T rows in any order as the policy says, by default `CleaningPolicy()`.

    timeframe: the grid; by default the most frequent distance.
    Raises BitcornError for rows without times, for times that stand twice where the policy says "error", and where a
    grid is needed and neither given nor to be seen.
    """
    policy = policy or CleaningPolicy()
    if not bars.timed:
        raise BitcornError("bars without times cannot be cleaned: add a timestamp column")
    report: dict[str, Any] = {"policy": asdict(policy), "rows": len(bars)}
    moved = int((np.diff(bars.timestamp) < 0).sum())
    if moved:
        bars = bars.take(np.argsort(bars.timestamp, kind="stable"))
    report["sorted_rows"] = moved
    bars = _one_each(bars, policy, report)
    step = timeframe_ms(timeframe) if timeframe else modal_step(bars.timestamp)
    if step:
        bars = _onto_grid(bars, step, policy, report)
        bars = _without_bad_prints(bars, step, policy, report)
    filled = np.zeros(len(bars), bool)
    if policy.fill is not None:
        if not step and len(bars) > 1:
            raise BitcornError("the bars do not say their timeframe: pass it, so that gaps can be filled")
        bars, filled = _filled(bars, step, policy, report)
    report["bars"] = len(bars)
    return CleanBars(bars=bars, filled=filled, report=report)


def cleaning_counts(report: Mapping[str, Any]) -> dict[str, int]:
    """Return a cleaning's report in numbers alone: what was done, and how many gaps were left."""
    counts = {name: int(report.get(name, 0)) for name in ("rows", "sorted_rows", "duplicates_dropped")}
    counts |= {f"off_grid_{done}": report.get("off_grid", {}).get(done, 0) for done in ("dropped", "snapped")}
    counts["bad_prints_masked"] = report.get("bad_prints", {}).get("masked", 0)
    counts |= {name: int(report.get(name, 0)) for name in ("gaps_filled", "bars_filled")}
    return {**counts, "gaps_left": int(report.get("gaps_left_count", 0)), "bars": int(report["bars"])}


def cleaning_record(
    policy: CleaningPolicy | None, reports: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Any] | None:
    """What a run keeps of how its bars were repaired; None without a policy. reports: of each partition, by name."""
    if policy is None:
        return None
    counts = {name: cleaning_counts(report) for name, report in reports.items() if report is not None}
    return {"policy": asdict(policy), "partitions": counts}


def drop_duplicates(bars: Bars) -> Bars:
    """Keep the last stored row of each time; ``bars`` ascend in time, equal times in stored order."""
    if not bars.timed or len(bars) < 2:
        return bars
    last = np.append(np.diff(bars.timestamp) > 0, True)
    return bars if last.all() else bars.take(last)


def is_summed(column: str) -> bool:
    """Tell whether a further column counts what happened in a bar, and not how things stood at its end.

    >>> is_summed("taker_buy_volume"), is_summed("open_interest")
    (True, False)
    """
    return "vol" in column.lower() or "trade" in column.lower() or column.lower() == "count"


def _one_each(bars: Bars, policy: CleaningPolicy, report: dict[str, Any]) -> Bars:
    again = np.flatnonzero(np.diff(bars.timestamp) == 0)
    if len(again) and policy.duplicates == "error":
        raise BitcornError(
            f"{len(again)} rows stand at a time of another row, first {bars.describe(int(again[0]))}: remove them, or "
            "clean with duplicates='first' or 'last'"
        )
    report["duplicates_dropped"] = len(again)
    if len(again) == 0:
        return bars
    if policy.duplicates == "first":
        return bars.take(np.append(True, np.diff(bars.timestamp) > 0))
    return drop_duplicates(bars)


def _onto_grid(bars: Bars, step: int, policy: CleaningPolicy, report: dict[str, Any]) -> Bars:
    phase = grid_phase(bars.timestamp, step)
    away = (bars.timestamp - phase) % step
    astray, snapped = np.flatnonzero(away), np.zeros(0, np.int64)
    report["off_grid"] = {"count": len(astray), "list": show_times(bars.timestamp[astray][:_LISTED])}
    if len(astray) == 0:
        report["off_grid"] |= {"dropped": 0, "snapped": 0}
        return bars
    keep = away == 0
    times = bars.timestamp.copy()
    if policy.off_grid == "snap":
        place = times[astray] - away[astray] + np.where(2 * away[astray] >= step, step, 0)
        # The nearest of those that fall on one place wins, and a bar that is on it already before all.
        order = np.lexsort((np.abs(times[astray] - place), place))
        first = np.append(True, np.diff(place[order]) > 0)
        chosen = order[first & ~np.isin(place[order], times[keep])]
        snapped = astray[chosen]
        times[snapped] = place[chosen]
        keep[snapped] = True
    report["off_grid"] |= {"dropped": len(astray) - len(snapped), "snapped": len(snapped)}
    moved = replace(bars, timestamp=times).take(keep)
    return moved.take(np.argsort(moved.timestamp, kind="stable"))


def _without_bad_prints(bars: Bars, step: int, policy: CleaningPolicy, report: dict[str, Any]) -> Bars:
    if len(bars) == 0:
        return bars
    found = bad_prints(bars, joined_rows(bars, step, silent_runs(bars, step)))
    masked = policy.bad_prints == "mask"
    report["bad_prints"] = {
        "count": len(found),
        "masked": len(found) if masked else 0,
        "list": [{"at": bars.describe(each.row), "kind": each.kind, "price": each.price} for each in found[:_LISTED]],
    }
    if not (found and masked):
        return bars
    return bars.take(np.delete(np.arange(len(bars)), [each.row for each in found]))


def _filled(bars: Bars, step: int, policy: CleaningPolicy, report: dict[str, Any]) -> tuple[Bars, NDArray[np.bool_]]:
    times = bars.timestamp
    missing = np.diff(times) // max(step, 1) - 1
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
    place = np.arange(len(source)) - np.repeat(np.cumsum(copies) - copies, copies)
    filled = place > 0
    columns: dict[str, Any] = {name: column[source] for name, column in bars.columns().items()}
    columns["timestamp"] = times[source] + place * step
    before = source[filled]
    prices: NDArray[np.float64] = bars.close[before]
    starts = prices
    if policy.fill == "linear":
        n, k = count[before] + 1.0, place[filled]
        ahead = bars.open[np.minimum(before + 1, len(bars) - 1)] - bars.close[before]
        starts, prices = prices + ahead * (k - 1) / n, prices + ahead * k / n
    columns["open"][filled], columns["close"][filled] = starts, prices
    columns["high"][filled], columns["low"][filled] = np.maximum(starts, prices), np.minimum(starts, prices)
    columns["volume"][filled] = 0.0
    extra = {name: np.where(filled & is_summed(name), 0.0, column[source]) for name, column in bars.extra.items()}
    return Bars(**columns, extra=extra), filled
