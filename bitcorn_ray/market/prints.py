"""Bad prints (wrong prices), as opposed to real extreme bars.

A market continues from its last price: a bar opens near the previous close, however volatile that bar was. A wrong
price does not: the jump between two neighbouring bars reveals it, not the size of the move. Prices inside a bar (a
wick, a crash that recovers) are never bad prints, because they cannot be distinguished from trades.

Sizes are log returns. The usual size around a bar is the mean over the 24 bars before it or over the 24 after it,
whichever is larger, each without its 4 largest values, so that several bad prints do not hide each other.

1. close: the close jumps by over 12 times the usual return and 1 %, the next close reverses at least 80 % of that, and
   the next bar opens at the earlier price (at least half of the jump lies between the bars). Over 4 times the usual
   volume means that a thin order book was swept and the jump is real, unless the price more than doubled or halved. If
   a feed sets each open to the previous close, there is no jump between bars: then the bar and its successor must lack
   the volume of a real move (at most 1.5 times the usual one).
2. bar: one to three bars that open with such a jump, outside the range of the bar before, and end with the opposite
   jump.
3. open: only the open is off, outside the range of the bar before, by over 3 times the usual range, 12 times the usual
   distance between a close and the next open, and 2 %; it is the bar's lowest or highest price, and the close is back
   at the earlier price.
4. first_open: the very first open: 1.5 times or more from its close, over 20 times the usual range, while the rest of
   the bar covers less than a tenth of that (a volatile new market moves both ways).

The last bar has no successor: rules 1 and 2 do not apply to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.market.bars import Bars

_TIMES, _LEAST, _UNDONE = 12.0, 0.01, 0.8
_NEIGHBOURS, _DROPPED = 24, 4
_QUIET_VOLUME, _SWEPT_VOLUME, _TOO_FAR = 1.5, 4.0, float(np.log(2))
_OPEN_RANGES, _OPEN_LEAST = 3.0, 0.02
_FIRST_LEAST, _FIRST_RANGES, _FIRST_REST = float(np.log(1.5)), 20.0, 0.1
_LONGEST = 3
_MEDIANS = 50.0
_SEARCH_ROWS = 100_000

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class BadPrint:
    """A bar with a wrong price.

    kind: see the module. price: the wrong price. expected: the price around it.
    """

    row: int
    kind: str
    price: float
    expected: float


@dataclass(frozen=True)
class ExtremeBar:
    """A real extreme bar. what: `close` (a lasting move) or `wick`. times: its size in units of the usual one."""

    row: int
    what: str
    log_return: float
    times: float


def bad_closes(bars: Bars, continuous: Mask | None = None) -> tuple[Rows, Floats]:
    """Return the rows of closes that are bad prints (rule 1), ascending, and their log returns.

    continuous: (T,) rows that follow their predecessor without a gap; None: all do.
    """
    n = len(bars)
    if n < 3:
        return np.zeros(0, np.int64), np.zeros(0)
    returns = _log_steps(bars.close)
    size = np.abs(returns)
    candidate = size[:-1] > _LEAST
    if continuous is not None:
        candidate &= continuous[:-1] & continuous[1:]
    rows = np.flatnonzero(candidate[1:]) + 1
    jump, back = returns[rows], returns[rows + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sign(jump) * (jump + back) / np.abs(jump)  # share that remains; negative if it overshoots
        rows = rows[(left < 1 - _UNDONE) & (left > -0.5)]
        jump, opened = returns[rows], np.log(bars.open[rows + 1] / bars.close[rows])
        between = -np.sign(jump) * opened / np.abs(jump)  # share of the jump that lies between the bars
    large = size[rows] > _TIMES * usual_size(size, rows, after=2)
    rows, jump, between = rows[large], jump[large], between[large]
    volume, known = _relative_volume(bars.volume, rows)
    separate = (between >= 0.5) & (~known | (volume[0] <= _SWEPT_VOLUME) | (np.abs(jump) > _TOO_FAR))
    quiet = (np.abs(between) < 0.1) & known & (volume <= _QUIET_VOLUME).all(0)
    bad = separate | quiet
    return rows[bad], jump[bad]


def bad_prints(bars: Bars, continuous: Mask) -> list[BadPrint]:
    """Return all bad prints, rows ascending. ``bars`` have one row for each time; see `bad_closes` for ``continuous``.

    Missing and impossible prices are ignored.
    """
    found: dict[int, BadPrint] = {}
    for row in bad_closes(bars, continuous)[0].tolist():
        found[row] = BadPrint(row, "close", float(bars.close[row]), float(bars.close[row - 1]))
    for first, end in _leaps_and_back(bars, continuous):
        for row in range(first, end):
            found.setdefault(row, BadPrint(row, "bar", float(bars.close[row]), float(bars.close[first - 1])))
    for row in _bad_opens(bars, continuous).tolist():
        found.setdefault(row, BadPrint(row, "open", float(bars.open[row]), float(bars.close[row - 1])))
    if _first_open_is_bad(bars):
        found.setdefault(0, BadPrint(0, "first_open", float(bars.open[0]), float(bars.close[0])))
    return [found[row] for row in sorted(found)]


def extreme_bars(bars: Bars, continuous: Mask, bad: list[BadPrint], most: int = 20) -> tuple[int, list[ExtremeBar]]:
    """Return the number of extreme bars that are not bad, and the largest of them, at most ``most``, by time.

    Extreme: the close moves by over 12 times the usual return, or a wick reaches over 12 times the usual range beyond
    the body; or by over 50 times the median return (range) of all bars; and by over 5 %.
    """
    returns, n = _log_steps(bars.close), len(bars)
    body_low, body_high = np.minimum(bars.open, bars.close), np.maximum(bars.open, bars.close)
    down, up, spans = _ratio(body_low, bars.low), _ratio(bars.high, body_high), _ratio(bars.high, bars.low)
    wick = np.maximum(down, up)
    excluded = {after for found in bad for after in (found.row, found.row + 1)}
    found: dict[int, ExtremeBar] = {}
    moved = np.where(continuous, returns, 0.0)
    moves = np.flatnonzero(np.abs(moved) > 0.05)
    wicks = np.flatnonzero(wick > 0.05)
    sizes = [("close", moves, np.abs(moved), np.abs(returns)), ("wick", wicks, wick, spans)]
    for what, rows, size, around in sizes:
        # The median of all bars counts if the neighbours are as extreme.
        usual = np.minimum(usual_size(around, rows), float(np.median(around)) * _MEDIANS / _TIMES) if n else size[:0]
        for row, typical in zip(rows.tolist(), usual.tolist(), strict=True):
            times = size[row] / typical if typical > 0 else np.inf
            if times > _TIMES and row not in excluded:
                shown = returns[row] if what == "close" else (up[row] if up[row] >= down[row] else -down[row])
                found.setdefault(row, ExtremeBar(row, what, float(shown), float(min(times, 1e6))))
    largest = sorted(found.values(), key=lambda bar: -abs(bar.log_return))[:most]
    return len(found), sorted(largest, key=lambda bar: bar.row)


def usual_size(values: Floats, rows: Rows, after: int = 1) -> Floats:
    """Return the usual size around some rows (n,): see the module. after: offset of the first bar after a row.

    Values beyond the ends count as 0, so that the other side decides.
    """
    usual = np.empty(len(rows))
    for start in range(0, len(rows), _SEARCH_ROWS):  # in parts: each row needs its 48 neighbours
        some = rows[start : start + _SEARCH_ROWS, None]
        sides = (some + np.arange(-_NEIGHBOURS, 0), some + np.arange(after, after + _NEIGHBOURS))
        usual[start : start + len(some)] = np.maximum(*(_trimmed_means(values, neighbours) for neighbours in sides))
    return usual


def _trimmed_means(values: Floats, neighbours: Rows) -> Floats:
    inside = (neighbours >= 0) & (neighbours < len(values))
    around = np.where(inside, values[np.clip(neighbours, 0, len(values) - 1)], 0.0)
    around[~np.isfinite(around)] = 0.0
    means: Floats = np.sort(around, 1)[:, :-_DROPPED].mean(1)
    return means


def _ratio(one: Floats, other: Floats) -> Floats:
    """Return the log of a ratio, 0 for missing and impossible prices."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.log(one / other), posinf=0.0, neginf=0.0)


def _log_steps(prices: Floats) -> Floats:
    """Return log returns (T,), 0 for the first bar and for missing and impossible prices."""
    steps = np.zeros(len(prices))
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(prices)
        np.subtract(logs[1:], logs[:-1], out=steps[1:])
        finite = bool(np.isfinite(steps.sum()))
    if not finite:
        steps[~np.isfinite(steps)] = 0.0
    return steps


def _relative_volume(volume: Floats, rows: Rows) -> tuple[Floats, Mask]:
    """Return the volume of bars and of their successors in usual volumes, (2, n), and if it is known, (n,)."""
    usual = usual_size(volume, rows, after=2)
    both = np.stack([volume[rows], volume[rows + 1]])
    with np.errstate(invalid="ignore", divide="ignore"):
        return both / usual, (usual > 0) & np.isfinite(both).all(0)


def _leaps(bars: Bars, continuous: Mask) -> Floats:
    """Return the log distance of each open from the close before; 0 after a gap, or if that bar traded nearby."""
    leaps = np.zeros(len(bars))
    with np.errstate(invalid="ignore", divide="ignore"):
        leaps[1:] = np.log(bars.open[1:] / bars.close[:-1])
        above, below = np.log(bars.open[1:] / bars.high[:-1]), np.log(bars.low[:-1] / bars.open[1:])
        outside = np.append(False, np.fmax(above, below) >= 0.5 * np.abs(leaps[1:]))
    return np.where(continuous & outside & np.isfinite(leaps), leaps, 0.0)


def _leaps_and_back(bars: Bars, continuous: Mask) -> list[tuple[int, int]]:
    leaps, returns = _leaps(bars, continuous), np.abs(_log_steps(bars.close))
    rows = np.flatnonzero(np.abs(leaps) > _OPEN_LEAST)
    rows = rows[np.abs(leaps[rows]) > _TIMES * usual_size(returns, rows, after=_LONGEST + 1)]
    found = []
    for first, end in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
        left = abs(leaps[first] + leaps[end]) / abs(leaps[first])
        if end - first <= _LONGEST and left < 1 - _UNDONE and continuous[first : end + 1].all():
            found.append((first, end))
    return found


def _bad_opens(bars: Bars, continuous: Mask) -> Rows:
    leaps = _leaps(bars, continuous)
    rows = np.flatnonzero(np.abs(leaps) > _OPEN_LEAST)
    if len(rows) == 0:
        return rows
    leap, size = leaps[rows], np.abs(leaps[rows])
    between = np.append(0.0, _ratio(bars.open[1:], bars.close[:-1]))
    before, closed, opened = bars.close[rows - 1], bars.close[rows], bars.open[rows]
    spans = _ratio(bars.high, bars.low)
    with np.errstate(invalid="ignore", divide="ignore"):
        back = np.abs(np.log(closed / before)) <= (1 - _UNDONE) * size
        beyond = np.where(leap < 0, np.log(opened / bars.low[rows]), np.log(bars.high[rows] / opened)) <= 0.1 * size
    large = (size > _OPEN_RANGES * usual_size(spans, rows)) & (size > _TIMES * usual_size(np.abs(between), rows))
    return rows[large & back & beyond]


def _first_open_is_bad(bars: Bars) -> bool:
    if len(bars) <= _NEIGHBOURS:
        return False
    first = bars.take(slice(0, _NEIGHBOURS + 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        spans = np.log(first.high / first.low)
        away = abs(float(np.log(first.open[0] / first.close[0])))
    if not np.isfinite(spans).all() or not np.isfinite(away):
        return False
    usual = float(np.sort(spans[1:])[:-_DROPPED].mean())
    return away > max(_FIRST_LEAST, _FIRST_RANGES * usual) and spans[0] - away < _FIRST_REST * away
