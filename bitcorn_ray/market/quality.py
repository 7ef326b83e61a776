"""How good are these bars? One pass over the arrays, plain JSON-ready values out.

What counts as what:
- gap: neighbouring bars further apart than the timeframe; `missing_bars` is how many would fit between.
- duplicates: rows whose time stood before already.
- missing_values: not a number, or infinite.
- ohlc_violations: high below, or low above, another price of the bar.
- suspicious_jumps: the close leaps by over 12 times the mean absolute log return of the 24 bars before, and of the 24
  bars after, and at least 80 % of the leap is undone by the very next bar, as a bad print does and news does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.bars import Bars, modal_step, show_time, show_times
from bitcorn_ray.market.columns import PRICE_COLUMNS
from bitcorn_ray.market.partition import timeframe_ms

__all__ = ["quality_flags", "quality_report"]

_JUMP_SIZE = 12.0
_JUMP_UNDONE = 0.8
_JUMP_NEIGHBOURS = 24


def quality_report(bars: Bars, timeframe: str | None = None, *, list_gaps: bool = True) -> dict[str, Any]:
    """Diagnose T bars in ascending order of time; times may repeat, values may be missing (NaN).

    timeframe: the grid that the bars should be on; by default their most frequent distance. list_gaps: False only
    counts the gaps, which is quicker where there are thousands.
    Every value is plain (int, float, str, list, dict, None), so that it can be written as JSON.
    """
    times = bars.timestamp
    step = 0 if times is None else (timeframe_ms(timeframe) if timeframe else modal_step(times))
    unique = None if times is None else times[np.r_[True, np.diff(times) > 0]] if len(times) else times
    span = 0 if unique is None or step == 0 or len(unique) == 0 else int((unique[-1] - unique[0]) // step) + 1
    return {
        "rows": len(bars),
        "first_timestamp": None if times is None or len(times) == 0 else show_time(int(times[0])),
        "last_timestamp": None if times is None or len(times) == 0 else show_time(int(times[-1])),
        "step_ms": step,
        "expected_rows": span,
        "gaps": _gaps(unique, step, list_gaps),
        "duplicates": 0 if unique is None or times is None else len(times) - len(unique),
        "missing_values": {name: int((~np.isfinite(getattr(bars, name))).sum()) for name in (*PRICE_COLUMNS, "volume")},
        "non_positive_prices": int(sum((getattr(bars, name) <= 0).sum() for name in PRICE_COLUMNS)),
        "ohlc_violations": _ohlc_violations(bars),
        "zero_volume_bars": int((bars.volume == 0).sum()),
        "suspicious_jumps": _suspicious_jumps(bars),
    }


def quality_flags(report: dict[str, Any]) -> list[str]:
    """Return what is wrong, in a few words each, worst first; empty for clean bars.

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
    return [f"{count} {what}" for what, count in counts.items() if count]


def _gaps(times: NDArray[np.int64] | None, step: int, listed: bool) -> dict[str, Any]:
    if times is None or step == 0 or len(times) < 2:
        return {"count": 0, "missing_bars": 0, "longest": 0, "list": []}
    distance = np.diff(times)
    at = np.flatnonzero(distance > step)
    # A gap that is no multiple of the step misses the bars that would have fitted, and the grid moved.
    missing = np.ceil(distance[at] / step).astype(np.int64) - 1
    gaps = []
    if listed:
        after, before = (show_times(times[places]) for places in (at, at + 1))
        gaps = [
            {"after": first, "before": last, "missing_bars": count}
            for first, last, count in zip(after, before, missing.tolist(), strict=True)
        ]
    longest = int(missing.max()) if len(missing) else 0
    return {"count": len(at), "missing_bars": int(missing.sum()), "longest": longest, "list": gaps}


def _ohlc_violations(bars: Bars) -> int:
    # Comparisons with NaN are false: a missing value is reported as missing, not as a violation too.
    too_low = (bars.high < bars.open) | (bars.high < bars.close)
    too_high = (bars.low > bars.open) | (bars.low > bars.close)
    return int((too_low | too_high | (bars.high < bars.low)).sum())


def _suspicious_jumps(bars: Bars) -> list[dict[str, Any]]:
    if len(bars) < 2 * _JUMP_NEIGHBOURS + 3:
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        returns = np.diff(np.log(bars.close))
    magnitude = np.abs(returns)
    magnitude[~np.isfinite(magnitude)] = 0.0
    total = np.concatenate(([0.0], np.cumsum(magnitude)))
    # Sums over the neighbours of each row are differences of the running sum, which is continued beyond both ends.
    n = len(returns) - 1
    edges = np.full(_JUMP_NEIGHBOURS, total[-1])
    padded = np.concatenate((np.zeros(_JUMP_NEIGHBOURS), total, edges))
    before = total[:n] - padded[:n]
    after = padded[2 * _JUMP_NEIGHBOURS + 2 :][:n] - total[2:][:n]
    around = np.maximum(before, after) / _JUMP_NEIGHBOURS
    leaps = np.flatnonzero((magnitude[:-1] > _JUMP_SIZE * around) & (around > 0))
    there, back = returns[leaps], returns[leaps + 1]
    with np.errstate(invalid="ignore"):
        undone = np.sign(there) * (there + back) < (1 - _JUMP_UNDONE) * np.abs(there)
    found = leaps[undone] + 1
    return [{"at": bars.describe(int(row)), "log_return": float(returns[row - 1])} for row in found]
