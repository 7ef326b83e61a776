"""One number for a partition, 0 to 100, and the reasons for it.

Each kind of defect costs points where there is any, more for each percent of the bars that have it, up to a cap:

    cost = min(cap, base + slope * percent)

The score is 100 minus all costs, and at least 0. What is merely unusual (extreme bars, minutes without a trade in a
market that often has none) costs little or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PLURAL = re.compile("(?<=bar|row)s|(?<=print)s")

COSTS: dict[str, tuple[float, float, float, str]] = {
    # kind: base, slope, cap, in words
    "rows_set_aside": (5, 10, 40, "rows without a time, a symbol or a fixed timeframe"),
    "missing_values": (5, 10, 40, "rows with missing values"),
    "non_positive_prices": (10, 10, 50, "rows with prices of 0 or less"),
    "negative_volume": (5, 10, 30, "rows with negative volume"),
    "ohlc_violations": (5, 10, 40, "rows whose high or low contradicts other prices"),
    "bad_prints": (5, 50, 40, "bad prints"),
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


def score_defects(counts: Mapping[str, int], bars: int) -> tuple[float, list[dict[str, Any]]]:
    """Return the score and its reasons: `kind`, `count`, `cost` and `text`, the dearest first.

    counts: of each kind in `COSTS`. bars: how many the percentages refer to.

    >>> score_defects({"outage_bars": 10}, 1_000)
    (95.0, [{'kind': 'outage_bars', 'count': 10, 'cost': 5.0, 'text': '10 bars missing in outages'}])
    """
    reasons, total = list[dict[str, Any]](), 0.0
    for kind, count in counts.items():
        base, slope, cap, words = COSTS[kind]
        if count:
            cost = min(cap, base + slope * 100 * count / max(bars, 1))
            total += cost
            reasons.append({"kind": kind, "count": count, "cost": round(cost, 2), "text": _told(count, words)})
    reasons.sort(key=lambda reason: -float(reason["cost"]))
    return round(max(0.0, 100.0 - total), 1), reasons


def _told(count: int, words: str) -> str:
    """A count with its noun, the first plural of the words."""
    return f"{count:,} {words}" if count != 1 else f"1 {_PLURAL.sub('', words, count=1)}"
