"""Audit of a feature system on real bars: a value may depend on the declared past and on nothing else.

1. Stability. The same bars are computed again, at once and at the end: a difference means randomness or state. A copy
   of the system that has computed nothing computes half of the bars: a difference means that it remembers other bars.
2. Warm-up. Bars before the declared look-back (warm-up or halo) are left out, as where the cache computes a chunk. A
   difference means an undeclared warm-up. A recursion never forgets entirely, so 0.1 % of a feature's range may differ.
3. Scenarios. Around rows at which leaks show (`scenarios`) a stretch of bars is taken, as it is or with a gap, a flat
   market, no volume, a crash, a jump or missing values injected. Then its future is cut off or changed at several rows:
   earlier values must stay, except for rounding. The same is done to the whole series, for leaks through its statistics
   or its length. Values of the warm-up are dropped, but must not be filled from later bars either.
4. Screening, with thousands of further cuts. Short blocks all over the series are changed at once, further apart than
   the features look back. Values out of reach of the blocks must stay. If they do not, the block after them is changed
   alone: only a difference that remains is a look-ahead.
5. Values. NaN after the warm-up and infinities are counted in the unchanged bars.

Shapes: F features, T bars.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.scenarios import FUTURES, INJECTED, Matrix, Rows, Scenario, UncheckedBars, suspicious_rows
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars

Array = NDArray[np.float64]

_KINDS = ("error", "unstable", "look-ahead", "inf", "warm-up", "nan")  # worst first
_MIN_BARS, _HISTORY, _COMPARED = 50, 300, 64  # bars: after the warm-up; before a scenario's row; after a start
_ROUNDING, _FORGOTTEN = 1e-10, 1e-3  # tolerances, in spreads of a feature; in its range
# Most bars to compute at once in screening, per row in scenarios, and in cuts of the whole series.
_WINDOW, _SCENARIO_BARS, _WHOLE_BARS = 100_000, 100_000, 10_000_000
_SAME_WINDOW = 16  # rounds of screening in one window of bars


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A defect of a feature, at its worst row.

    kind: "look-ahead", "warm-up", "nan", "inf", "unstable" or "error"; the feature of an error is "all".
    size: largest difference in spreads of the feature, 1 for a value against NaN; number of bars for "nan" and "inf".
    cuts: how many comparisons showed it.
    """

    feature: str
    kind: str
    at: str
    row: int
    size: float
    detail: str
    cuts: int


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """Result of an audit: one finding for each feature and kind, worst first.

    cuts: number of comparisons with values of another future or past.
    profile: of each feature after the warm-up "min", "max" and "largest" magnitude (None if no value is finite), and
        the shares "missing" (NaN) and "saturated" (at its own min or max).
    """

    system: str
    rows: int
    features: tuple[str, ...]
    cuts: int
    findings: tuple[Finding, ...]
    profile: dict[str, dict[str, float | None]]

    @property
    def passed(self) -> bool:
        """Return True if nothing was found."""
        return not self.findings


def audit(
    bars: Bars, system: FeatureSystem, *, cuts: int = 64, seed: int = 0, fresh: FeatureSystem | None = None
) -> AuditReport:
    """Audit a feature system on the bars of one partition; a system with a context needs `on_grid` first.

    cuts: how many rows are examined; each stands for tens of comparisons. fresh: a copy of the system with globals of
    its own that has computed nothing; None skips the comparison with it.
    Raises BitcornError for unusable or too few bars.
    """
    bars.require_usable()
    least = system.warmup_bars + _MIN_BARS
    if len(bars) < least or cuts < 1:
        raise BitcornError(f"an audit of {system.name} needs {least} bars and 1 cut: got {len(bars)} bars, {cuts} cuts")
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # perturbed bars give warnings
        warnings.simplefilter("ignore")
        return _Audit(bars, system, np.random.default_rng(seed)).report(cuts, fresh)


class _Audit:
    """The state of an audit.

    series: all bars, with their values. system: declared without a warm-up, because the values of the warm-up are
    checked, too. spread: (F,) robust standard deviations. forgotten: (F,) differences, in spreads, that screening
    ignores: what an earlier start changes, an earlier block changes too.
    """

    series: Scenario
    system: FeatureSystem
    spread: Array
    forgotten: Array

    def __init__(self, bars: Bars, declared: FeatureSystem, rng: np.random.Generator) -> None:
        self.bars, self.declared, self.lookback, self.rng = bars, declared, declared.warmup_bars, rng
        self.names: tuple[str, ...] = ()
        self.findings: dict[tuple[str, str], Finding] = {}
        self.comparisons = 0

    def report(self, cuts: int, fresh: FeatureSystem | None) -> AuditReport:
        profile: dict[str, dict[str, float | None]] = {}
        try:
            self.names = self.declared.features
            self.system = self.without_warmup(self.declared)
            values = self.system.matrix(self.bars)
        except BitcornError as error:
            self.note("all", "error", 0, 1.0, str(error))
        else:
            self.series = Scenario(self.bars, np.arange(len(self.bars)), values=values)
            self.spread = np.array([_spread(row[self.lookback :]) for row in values])
            self.forgotten = np.full(len(values), _ROUNDING)
            self.check(cuts, fresh)
            profile = {name: _profile(row[self.lookback :]) for name, row in zip(self.names, values, strict=True)}
        return AuditReport(
            system=self.declared.spec,
            rows=len(self.bars),
            features=self.names,
            cuts=self.comparisons,
            findings=tuple(sorted(self.findings.values(), key=lambda f: (_KINDS.index(f.kind), -f.size))),
            profile=profile,
        )

    def without_warmup(self, system: FeatureSystem) -> FeatureSystem:
        own = self.names[: len(self.names) // (1 + len(system.context))]
        return replace(system, warmup=0, halo=None, declared=own)

    def check(self, cuts: int, fresh: FeatureSystem | None) -> None:
        """Run all checks, in the order of the module's docstring."""
        count = len(self.bars)
        kinds = suspicious_rows(self.bars, self.lookback, self.rng)
        rows = [int(of_kind[k]) for k in range(cuts) for of_kind in kinds if k < len(of_kind)]  # each kind in turn
        self.check_stability()
        for row in self.rng.integers(max(self.lookback, count - _WINDOW // 4), count, 4):
            self.try_start(self.series, int(row))
        computations = _SCENARIO_BARS * cuts // (2 * self.lookback + 2 * _HISTORY)
        scenarios = min(cuts, max(computations // 8, 8))
        cuts_each = int(np.clip(computations // scenarios // 2 - 1, 2, 8))
        for number, row in enumerate(rows[:scenarios]):
            self.check_scenario(row, INJECTED[number % len(INJECTED)], cuts_each)
        whole_cuts = [count - 2, self.lookback // 2, *(row - 1 for row in rows[:14])]
        for cut in whole_cuts[: max(_WHOLE_BARS // count // 2, 5)]:
            self.try_cut(self.series, cut)
        self.screen(kinds, rounds=cuts * int(np.clip(_WINDOW // (4 * count), 1, 4)))
        self.check_stability()
        self.check_values()
        if fresh is not None:
            self.check_memory(fresh)

    # Stability and values

    def check_stability(self) -> None:
        text = "from the same bars at another time: it uses a random number or state; make it a function of its bars"
        self.compare("unstable", self.series, self.series, slice(0, None), text)

    def check_memory(self, fresh: FeatureSystem) -> None:
        half = self.computed(self.series.take(slice(max(len(self.bars) // 2, self.lookback) + 1)))
        if half is not None:
            self.system = self.without_warmup(fresh)
            text = "from these bars alone: its module remembers other bars; make it a function of its bars"
            self.compare("unstable", half, half, slice(0, None), text)

    def check_values(self) -> None:
        for name, row in zip(self.names, self.series.values[:, self.lookback :], strict=True):
            missing = np.flatnonzero(np.isnan(row))
            if (name, "warm-up") in self.findings:  # its first values are NaN for lack of bars
                missing = missing[missing != np.arange(len(missing))]
            for kind, rows in (("inf", np.flatnonzero(np.isinf(row))), ("nan", missing)):
                if len(rows):
                    text = f"{kind} in {len(rows)} of {len(row)} bars, first here: give a neutral value, no later one"
                    self.note(name, kind, self.lookback + int(rows[0]), float(len(rows)), text)

    # Starts and cuts

    def check_scenario(self, row: int, injected: str, cuts: int) -> None:
        """Take a stretch of bars around a row, inject a perturbation, and try starts and cuts near it."""
        start = max(row - self.lookback - int(self.rng.integers(_HISTORY // 2, _HISTORY)), 0)
        at, length = row - start, int(self.rng.choice((1, 3, 20, 60)))
        stretch = self.series.take(slice(start, row + self.lookback + _HISTORY))
        if injected and 0 < at < len(stretch) - length:
            perturbed = stretch.perturbed(injected, slice(at, at + length))
            stretch = replace(perturbed, injected=f" (with {injected} injected)")
        if (scenario := self.computed(stretch)) is None:
            return
        if not scenario.injected:  # the row as the last bar that is left out, and a random one
            self.try_start(scenario, at + self.lookback + 1)
            self.try_start(scenario, int(self.rng.integers(0, len(scenario))))
        near = self.rng.permutation([at - 2, at + length // 2, at + length - 1, at + length])
        anywhere, early = int(self.rng.integers(0, at + _HISTORY)), int(self.rng.integers(0, self.lookback + 1))
        for cut in [at - 1, at, anywhere, *near[:2], early, *near[2:]][:cuts]:
            self.try_cut(scenario, int(cut))

    def try_start(self, scenario: Scenario, row: int) -> None:
        """Compare the values from a row on with those computed from its declared look-back only."""
        if row >= len(scenario) or (first := self.declared.first_needed(scenario.bars, row)) == 0:
            return
        rows = slice(row, min(row + _COMPARED, len(scenario)))
        recent = scenario.values[:, max(0, first - self.lookback - _HISTORY) : rows.stop]
        span = np.nan_to_num(np.nanmax(recent, axis=1) - np.nanmin(recent, axis=1), posinf=0.0)
        text = f"computed from {row - first} bars before, as declared and as in the cache: declare a longer warm-up"
        tolerance = _FORGOTTEN * np.maximum(0.1 * self.spread, 0.25 * span)
        difference = self.compare("warm-up", scenario, scenario.take(slice(first, None)), rows, text, tolerance)
        self.forgotten = np.maximum(self.forgotten, 2.0 * difference / self.spread)

    def try_cut(self, scenario: Scenario, cut: int) -> None:
        """Compare the values up to a row with those for no future, and for another future, after it."""
        cut = min(max(cut, 0), len(scenario) - 2)
        future = FUTURES[self.comparisons % len(FUTURES)]
        if cut >= self.lookback:  # fewer bars than the warm-up are never computed
            self.try_future(scenario, scenario.take(slice(cut + 1)), cut, "nothing")
            self.try_future(scenario, scenario.perturbed(future, slice(cut + 1, None)), cut, future)
        elif future != "later times":
            self.try_future(scenario, scenario.perturbed(future, slice(cut + 1, self.lookback)), cut, future)

    def try_future(self, scenario: Scenario, other: Scenario, cut: int, future: str) -> None:
        text = f"if {scenario.bars.describe(cut)} is followed by {future}{scenario.injected}: it uses later bars"
        self.compare("look-ahead", scenario, other, slice(self.lookback if cut >= self.lookback else 0, cut + 1), text)

    # Screening

    def screen(self, kinds: list[Rows], rounds: int) -> None:
        """Change many blocks of bars at once, and try those alone that seem to change values before them."""
        for number in range(rounds):
            if number % _SAME_WINDOW == 0:
                start = int(self.rng.integers(0, max(len(self.bars) - _WINDOW, 0) + 1))
                whole = len(self.bars) <= _WINDOW
                window = self.series if whole else self.computed(self.series.take(slice(start, start + _WINDOW)))
                candidates = self.candidate_rows(kinds, start, min(len(self.bars), _WINDOW))
            length, future = int(self.rng.choice((1, 2, 8, 32))), str(self.rng.choice(FUTURES[:-1]))
            if window is None:
                continue
            blocks = self.draw_blocks(candidates, length, len(window))
            if (changed := self.computed(window.perturbed(future, *blocks))) is None:
                continue
            self.comparisons += len(blocks)
            suspects = self.suspects(window, changed, blocks)
            for worst in {block for _, block, _ in suspects[-2:]}:
                self.try_future(window, window.perturbed(future, blocks[worst]), blocks[worst].start - 1, future)
                for difference, block, feature in suspects:
                    if block == worst:
                        self.forgotten[feature] = 2.0 * difference

    def candidate_rows(self, kinds: list[Rows], start: int, count: int) -> Rows:
        """Return rows of a window of ``count`` bars from row ``start`` on, at which blocks may begin."""
        round_numbers = np.arange(500, count, 500)  # counted from where the computed bars start
        groups = [*(rows - start for rows in kinds), round_numbers]
        groups += [groups[-2]] * 9  # so half of the rows are random ones
        inside = [rows[(rows > 2) & (rows < count - 40)] for rows in groups]
        return np.concatenate([self.rng.choice(rows, 10_000) for rows in inside if len(rows)])

    def draw_blocks(self, candidates: Rows, length: int, count: int) -> list[slice]:
        """Return blocks of ``length`` bars that are further apart than the features look back."""
        distance = self.lookback + length + self.lookback // 8 + 8
        drawn = self.rng.choice(candidates, 3 * count // distance + 1)
        cuts: list[int] = []
        for row in np.sort(drawn) - self.rng.integers(0, 3):
            if not cuts or row >= cuts[-1] + distance:
                cuts.append(int(row))
        return [slice(cut + 1, cut + 1 + length) for cut in cuts]

    def suspects(self, window: Scenario, changed: Scenario, blocks: list[slice]) -> list[tuple[float, int, int]]:
        """Return the features that changed where they must not: (difference, next block, feature), worst last."""
        unreachable, found = self.unreachable_rows(window, changed, blocks), list[tuple[float, int, int]]()
        for feature in np.flatnonzero(np.isfinite(self.forgotten)):
            before, now = (some.values[feature, : len(unreachable)] for some in (window, changed))
            rows = np.flatnonzero(unreachable & (before.view(np.int32) != now.view(np.int32)))
            difference = _distance(before[rows], now[rows]) / self.spread[feature]
            if len(rows) and difference.max() > self.forgotten[feature]:
                block = int(np.searchsorted([block.start - 1 for block in blocks], rows[difference.argmax()]))
                found.append((float(difference.max()), block, int(feature)))
        return sorted(found)

    def unreachable_rows(self, window: Scenario, changed: Scenario, blocks: list[slice]) -> NDArray[np.bool_]:
        """Return True for each row before the last block that by declaration does not look back to any block."""
        unreachable = np.arange(blocks[-1].start) >= self.lookback
        rows = [min(block.stop + self.lookback, len(window) - 1) for block in blocks]
        needed = np.min([self.declared.first_rows(some.bars, rows) for some in (window, changed)], axis=0)
        for number, (block, following) in enumerate(pairwise(blocks)):
            reached = needed[number] < block.stop
            unreachable[block.start : following.start if reached else rows[number]] = False
        return unreachable

    # Comparing

    def compare(
        self, kind: str, scenario: Scenario, other: Scenario, rows: slice, text: str, tolerance: Array | None = None
    ) -> Array:
        """Note where values at rows of a scenario differ in another one; return the largest differences, (F,).

        tolerance: (F,) differences that are not noted, by default rounding errors.
        """
        largest = np.zeros(len(self.names))
        if (computed := self.computed(other)) is None:
            return largest
        self.comparisons += 1
        tolerance = _ROUNDING * self.spread if tolerance is None else tolerance
        before, start = scenario.values[:, rows], rows.start - int(other.rows[0] - scenario.rows[0])
        now = computed.values[:, start : start + before.shape[1]]
        for i in np.flatnonzero((before.view(np.int32) != now.view(np.int32)).any(axis=1)):
            difference = _distance(before[i], now[i])
            worst = int(difference.argmax())
            largest[i] = difference[worst]
            # An unstable feature differs anyway.
            if largest[i] > tolerance[i] and (self.names[i], "unstable") not in self.findings:
                size = float(largest[i] / self.spread[i]) if np.isfinite(largest[i]) else 1.0
                detail = f"it is {before[i, worst]:.6g}, and {now[i, worst]:.6g} {text}"
                self.note(self.names[i], kind, int(scenario.rows[rows][worst]), size, detail)
        return largest

    def computed(self, scenario: Scenario) -> Scenario | None:
        """Return a scenario with its values, or None if the system refuses its bars, which is noted."""
        usable = "nan" not in scenario.injected
        columns = {field.name: getattr(scenario.bars, field.name) for field in fields(Bars)}
        try:
            values = self.system.matrix(Bars(**columns) if usable else UncheckedBars(**columns))
        except BitcornError as error:
            if usable:  # a system need not accept missing values
                detail = f"bars from here on{scenario.injected}: {error}"
                self.note("all", "error", int(scenario.rows[0]), 1.0, detail)
            return None
        return replace(scenario, values=values)

    def note(self, feature: str, kind: str, row: int, size: float, detail: str) -> None:
        """Add a finding; of those of a feature and kind only the worst is kept."""
        at, old = self.bars.describe(row), self.findings.get((feature, kind))
        new = Finding(feature=feature, kind=kind, at=at, row=row, size=size, detail=detail, cuts=1)
        kept = replace(old if old and old.size >= size else new, cuts=old.cuts + 1 if old else 1)
        self.findings[feature, kind] = kept


def _distance(before: Matrix, now: Matrix) -> Array:
    """Return absolute differences: 0 within rounding and for two NaN, infinite if only one is finite."""
    away = np.nan_to_num(np.abs(before.astype(np.float64) - now), nan=np.inf, posinf=np.inf)
    rounding = away <= 2.0**-22 * np.minimum(np.abs(before), np.abs(now))
    return np.where(rounding | (before == now) | (np.isnan(before) & np.isnan(now)), 0.0, away)


def _spread(values: Matrix) -> float:
    """Return a robust standard deviation, from the middle nine tenths; of all if these are equal; 1 for a constant."""
    some = values[:: max(1, len(values) // _WINDOW)].astype(np.float64)
    some = some[np.isfinite(some)] if np.isfinite(some).any() else np.zeros(1)
    low, high = np.quantile(some, (0.05, 0.95))
    return float((high - low) / 3.3 or some.std() or 1.0)


def _profile(values: Matrix) -> dict[str, float | None]:
    finite, missing = values[np.isfinite(values)], float(np.isnan(values).mean())
    if len(finite) == 0:
        return {"min": None, "max": None, "largest": None, "missing": missing, "saturated": 0.0}
    low, high, extreme = float(finite.min()), float(finite.max()), np.isin(finite, (finite.min(), finite.max())).mean()
    return {"min": low, "max": high, "largest": max(-low, high), "missing": missing, "saturated": float(extreme)}
