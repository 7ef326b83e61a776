"""From rows as stored to bars: one bar for each time.

Every repair is counted in the quality report. (A repair is never silent, and what cannot be repaired without a guess,
a missing price for one, is left as it is.)
"""

from __future__ import annotations

import numpy as np

from bitcorn_ray.market.bars import Bars

__all__ = ["drop_duplicates"]


def drop_duplicates(bars: Bars) -> Bars:
    """Keep the last stored row of each time; ``bars`` ascend in time, equal times in stored order."""
    if bars.timestamp is None or len(bars) < 2:
        return bars
    last = np.append(np.diff(bars.timestamp) > 0, True)
    return bars if last.all() else bars.take(last)
