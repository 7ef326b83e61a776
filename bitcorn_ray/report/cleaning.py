"""What a cleaning policy did to bars, in a line a partition."""

from __future__ import annotations

from collections.abc import Mapping

_TOLD = {
    "sorted_rows": "moved into order",
    "duplicates_dropped": "dropped as of a time that is there",
    "off_grid_dropped": "dropped as off the grid",
    "off_grid_snapped": "snapped to the grid",
    "bad_prints_masked": "masked as bad prints",
}


def cleaning_line(partition: str, counts: Mapping[str, int]) -> str:
    """Say what was done to a partition's bars; counts: as `market.clean.cleaning_counts` gives them."""
    done = [f"{counts[name]:,} {what}" for name, what in _TOLD.items() if counts[name]]
    if counts["bars_filled"]:
        done.append(f"{counts['bars_filled']:,} filled in {_gaps(counts['gaps_filled'])}")
    if counts["gaps_left"]:
        done.append(f"{_gaps(counts['gaps_left'], 'longer ')} left")
    changed = ", ".join(done) or "nothing to clean"
    return f"{partition}: {counts['rows']:,} rows became {counts['bars']:,} bars ({changed})"


def _gaps(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}gap{'' if count == 1 else 's'}"
