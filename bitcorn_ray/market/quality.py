"""How good are these bars? The quick report that every load comes with: plain JSON-ready values.

`diagnosis` is the thorough one.

What counts as what:
- gap: neighbouring bars further apart than the timeframe; `missing_bars` is how many would fit between.
- duplicates: rows whose time stood before already.
- missing_values: not a number, or infinite.
- ohlc_violations: high below, or low above, another price of the bar.
- suspicious_jumps: closes that are bad prints, by the rule of `prints`: leaps that the next bar undoes at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.bars import PRICE_COLUMNS, Bars, modal_step, show_time, show_times
from bitcorn_ray.market.prints import bad_closes
from bitcorn_ray.market.timeframe import timeframe_ms


def quality_report(bars: Bars, timeframe: str | None = None, *, list_gaps: bool = True) -> dict[str, Any]:
    """Diagnose T bars in ascending order of time; times may repeat, values may be missing (NaN).

    timeframe: the grid that the bars should be on; by default their most frequent distance. list_gaps: False only
    counts the gaps, which is quicker where there are thousands.
    Every value is plain (int, float, str, list, dict, None), so that it can be written as JSON.
    """
    times = bars.timestamp if bars.timed else None
    step = 0 if times is None else (timeframe_ms(timeframe) if timeframe else modal_step(times))
    unique = None if times is None else _unique(times)
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


def _unique(times: NDArray[np.int64]) -> NDArray[np.int64]:
    rises = times[1:] > times[:-1]
    return times if rises.all() else times[np.append(True, rises)]


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
    rows, returns = bad_closes(bars)
    found = zip(rows.tolist(), returns.tolist(), strict=True)
    return [{"at": bars.describe(row), "log_return": size} for row, size in found]
