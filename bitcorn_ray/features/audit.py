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
from bitcorn_ray.features.scenarios import FUTURES, INJECTED, Rows, Scenario, UncheckedBars, suspicious_rows
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars

Matrix = NDArray[np.float32]
Array = NDArray[np.float64]

_KINDS = ("error", "unstable", "look-ahead", "inf", "warm-up", "nan")  # worst first
_MIN_BARS, _HISTORY, _COMPARED = 50, 300, 64  # bars: after the warm-up; before a scenario's row; after a start
_ROUNDING, _FORGOTTEN = 1e-10, 1e-3  # tolerances, in spreads of a feature; in its range
# Most bars to compute at once in screening, per row in scenarios, and in cuts of the whole series.
_WINDOW, _SCENARIO_BARS, _WHOLE_BARS = 100_000, 100_000, 10_000_000


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
        return _Audit(bars, system, np.random.default_rng(seed), fresh).report(cuts)


class _Audit:
    def __init__(
        self, bars: Bars, system: FeatureSystem, rng: np.random.Generator, fresh: FeatureSystem | None
    ) -> None:
        self.bars, self.system, self.rng, self.fresh, self.cuts = bars, system, rng, fresh, 0
        self.lookback, self.whole = system.warmup_bars, Scenario(bars, np.arange(len(bars)))
        self.found: dict[tuple[str, str], Finding] = {}

    def report(self, cuts: int) -> AuditReport:
        names: tuple[str, ...] = ()
        profile: dict[str, dict[str, float | None]] = {}
        try:
            names = self.features = self.system.features
            self.bare = self.without_warmup(self.system)
            full = self.bare.matrix(self.bars)
        except BitcornError as error:
            self.note("all", "error", 0, 1.0, str(error))
        else:
            self.spread = np.array([_spread(row[self.lookback :]) for row in full])
            self.check(full, suspicious_rows(self.bars, self.lookback, self.rng), cuts)
            profile = {name: _profile(row[self.lookback :]) for name, row in zip(names, full, strict=True)}
        findings = tuple(sorted(self.found.values(), key=lambda f: (_KINDS.index(f.kind), -f.size)))
        spec, rows = self.system.spec, len(self.bars)
        return AuditReport(system=spec, rows=rows, features=names, cuts=self.cuts, findings=findings, profile=profile)

    def without_warmup(self, system: FeatureSystem) -> FeatureSystem:
        """Return the system declared without a warm-up, because the values of the warm-up are checked, too."""
        own = self.features[: len(self.features) // (1 + len(system.context))]
        return replace(system, warmup=0, halo=None, declared=own)

    def check(self, full: Matrix, kinds: list[Rows], cuts: int) -> None:
        # Screening ignores smaller differences: what an earlier start changes, an earlier block changes too.
        self.tolerance = np.full(len(full), _ROUNDING)
        rows = [int(of_kind[k]) for k in range(cuts) for of_kind in kinds if k < len(of_kind)]  # each kind in turn
        self.check_stability(full)
        for row in self.rng.integers(max(self.lookback, len(self.bars) - _WINDOW // 4), len(self.bars), 4):
            self.try_start(self.whole, full, int(row))
        computations = _SCENARIO_BARS * cuts // (2 * self.lookback + 2 * _HISTORY)
        scenarios = min(cuts, max(computations // 8, 8))
        cuts_each = int(np.clip(computations // scenarios // 2 - 1, 2, 8))
        for number, row in enumerate(rows[:scenarios]):
            self.check_scenario(row, INJECTED[number % len(INJECTED)], cuts_each)
        whole_cuts = [len(self.bars) - 2, self.lookback // 2, *(row - 1 for row in rows[:14])]
        for cut in whole_cuts[: max(_WHOLE_BARS // len(self.bars) // 2, 5)]:
            self.try_cut(self.whole, full, cut)
        self.screen(full, kinds, cuts * int(np.clip(_WINDOW // (4 * len(self.bars)), 1, 4)))
        self.check_stability(full)
        self.check_values(full[:, self.lookback :])
        if self.fresh is not None:
            self.check_memory(self.fresh)

    # Stability and values

    def check_stability(self, full: Matrix) -> None:
        text = "from the same bars at another time: it uses a random number or state; make it a function of its bars"
        self.compare("unstable", self.whole, full, self.whole, slice(0, None), text, _ROUNDING * self.spread)

    def check_memory(self, fresh: FeatureSystem) -> None:
        half = self.whole.take(slice(max(len(self.bars) // 2, self.lookback) + 1))
        if (values := self.compute(half)) is None:
            return
        self.bare = self.without_warmup(fresh)
        text = "from these bars alone: its module remembers other bars; make it a function of its bars"
        self.compare("unstable", half, values, half, slice(0, None), text, _ROUNDING * self.spread)

    def check_values(self, values: Matrix) -> None:
        for name, row in zip(self.features, values, strict=True):
            missing = np.flatnonzero(np.isnan(row))
            if (name, "warm-up") in self.found:  # its first values are NaN for lack of bars
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
        scenario = self.whole.take(slice(start, row + self.lookback + _HISTORY))
        if injected and 0 < at < len(scenario.rows) - length:
            perturbed = scenario.perturbed(injected, slice(at, at + length))
            scenario = replace(perturbed, injected=f" (with {injected} injected)")
        if (values := self.compute(scenario)) is None:
            return
        if not scenario.injected:  # the row as the last bar that is left out, and a random one
            self.try_start(scenario, values, at + self.lookback + 1)
            self.try_start(scenario, values, int(self.rng.integers(0, len(scenario.rows))))
        near = self.rng.permutation([at - 2, at + length // 2, at + length - 1, at + length])
        anywhere, early = int(self.rng.integers(0, at + _HISTORY)), int(self.rng.integers(0, self.lookback + 1))
        for cut in [at - 1, at, anywhere, *near[:2], early, *near[2:]][:cuts]:
            self.try_cut(scenario, values, int(cut))

    def try_start(self, scenario: Scenario, values: Matrix, row: int) -> None:
        """Compare the values from a row on with those computed from its declared look-back only."""
        if row >= len(scenario.rows) or (first := self.system.first_needed(scenario.bars, row)) == 0:
            return
        rows = slice(row, min(row + _COMPARED, len(scenario.rows)))
        recent = values[:, max(0, first - self.lookback - _HISTORY) : rows.stop]
        span = np.nan_to_num(np.nanmax(recent, axis=1) - np.nanmin(recent, axis=1), posinf=0.0)
        text = f"computed from {row - first} bars before, as declared and as in the cache: declare a longer warm-up"
        least = _FORGOTTEN * np.maximum(0.1 * self.spread, 0.25 * span)
        difference = self.compare("warm-up", scenario, values, scenario.take(slice(first, None)), rows, text, least)
        self.tolerance = np.maximum(self.tolerance, 2.0 * difference / self.spread)

    def try_cut(self, scenario: Scenario, values: Matrix, cut: int) -> None:
        """Compare the values up to a row with those for no future, and for another future, after it."""
        cut = min(max(cut, 0), len(scenario.rows) - 2)
        future = FUTURES[self.cuts % len(FUTURES)]
        if cut >= self.lookback:  # fewer bars than the warm-up are never computed
            self.try_future(scenario, values, scenario.take(slice(cut + 1)), cut, "nothing")
            self.try_future(scenario, values, scenario.perturbed(future, slice(cut + 1, None)), cut, future)
        elif future != "later times":
            other = scenario.perturbed(future, slice(cut + 1, self.lookback))
            self.try_future(scenario, values, other, cut, future)

    def try_future(self, scenario: Scenario, values: Matrix, other: Scenario, cut: int, future: str) -> None:
        text = f"if {scenario.bars.describe(cut)} is followed by {future}{scenario.injected}: it uses later bars"
        rows = slice(self.lookback if cut >= self.lookback else 0, cut + 1)
        self.compare("look-ahead", scenario, values, other, rows, text, _ROUNDING * self.spread)

    # Screening

    def screen(self, full: Matrix, kinds: list[Rows], rounds: int) -> None:
        for number in range(rounds):
            if number % 16 == 0:
                start = int(self.rng.integers(0, max(len(self.bars) - _WINDOW, 0) + 1))
                scenario = self.whole.take(slice(start, start + _WINDOW))
                values = full if len(scenario.rows) == len(full[0]) else self.compute(scenario)
                candidates = self.candidate_rows(kinds, start, len(scenario.rows))
            length, future = int(self.rng.choice((1, 2, 8, 32))), str(self.rng.choice(FUTURES[:-1]))
            blocks = self.draw_blocks(candidates, length, len(scenario.rows))
            changed = scenario.perturbed(future, *blocks)
            if values is None or (now := self.compute(changed)) is None:
                continue
            self.cuts += len(blocks)
            suspects = self.suspects(values, now, blocks, self.unreachable_rows(scenario, changed, blocks))
            for worst in {block for _, block, _ in sorted(suspects)[-2:]}:
                alone = scenario.perturbed(future, blocks[worst])
                self.try_future(scenario, values, alone, blocks[worst].start - 1, future)
                for size, block, feature in suspects:
                    if block == worst:
                        self.tolerance[feature] = 2.0 * size

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

    def unreachable_rows(self, scenario: Scenario, changed: Scenario, blocks: list[slice]) -> NDArray[np.bool_]:
        """Return True for each row before the last block that by declaration does not look back to any block."""
        unreachable = np.arange(blocks[-1].start) >= self.lookback
        for block, following in pairwise(blocks):
            first, low = block.stop + self.lookback, max(block.start - self.lookback, 0)
            windows = [some.bars.take(slice(low, first + 1)) for some in (scenario, changed)]
            reached = min(self.system.first_needed(bars, first - low) for bars in windows) < block.stop - low
            unreachable[block.start : following.start if reached else first] = False
        return unreachable

    def suspects(
        self, values: Matrix, now: Matrix, blocks: list[slice], unreachable: NDArray[np.bool_]
    ) -> list[tuple[float, int, int]]:
        """Return the features that changed where they must not: largest difference, block after it, feature."""
        last_rows, found = [block.start - 1 for block in blocks], list[tuple[float, int, int]]()
        for i in np.flatnonzero(np.isfinite(self.tolerance)):
            old, new = values[i, : len(unreachable)], now[i, : len(unreachable)]
            rows = np.flatnonzero(unreachable & (old.view(np.int32) != new.view(np.int32)))
            difference = _distance(old[rows], new[rows]) / self.spread[i]
            if len(rows) and difference.max() > self.tolerance[i]:
                block = int(np.searchsorted(last_rows, rows[difference.argmax()]))
                found.append((float(difference.max()), block, int(i)))
        return found

    # Comparing

    def compare(
        self, kind: str, a: Scenario, values: Matrix, b: Scenario, rows: slice, text: str, least: Array
    ) -> Array:
        """Note where values at rows of scenario a differ in b by more than ``least``; return the differences, (F,)."""
        largest = np.zeros(len(values))
        if (computed := self.compute(b)) is None:
            return largest
        self.cuts += 1
        before, start = values[:, rows], rows.start - int(b.rows[0] - a.rows[0])
        now = computed[:, start : start + before.shape[1]]
        for i in np.flatnonzero((before.view(np.int32) != now.view(np.int32)).any(axis=1)):
            difference = _distance(before[i], now[i])
            worst = int(difference.argmax())
            largest[i] = difference[worst]
            # An unstable feature differs anyway.
            if largest[i] > least[i] and (self.features[i], "unstable") not in self.found:
                size = float(largest[i] / self.spread[i]) if np.isfinite(largest[i]) else 1.0
                detail = f"it is {before[i, worst]:.6g}, and {now[i, worst]:.6g} {text}"
                self.note(self.features[i], kind, int(a.rows[rows][worst]), size, detail)
        return largest

    def compute(self, scenario: Scenario) -> Matrix | None:
        usable = "nan" not in scenario.injected
        columns = {field.name: getattr(scenario.bars, field.name) for field in fields(Bars)}
        try:
            return self.bare.matrix(Bars(**columns) if usable else UncheckedBars(**columns))
        except BitcornError as error:
            if usable:  # a system need not accept missing values
                detail = f"bars from here on{scenario.injected}: {error}"
                self.note("all", "error", int(scenario.rows[0]), 1.0, detail)
            return None

    def note(self, feature: str, kind: str, row: int, size: float, detail: str) -> None:
        at, old = self.bars.describe(row), self.found.get((feature, kind))
        new = Finding(feature=feature, kind=kind, at=at, row=row, size=size, detail=detail, cuts=1)
        self.found[feature, kind] = replace(old if old and old.size >= size else new, cuts=old.cuts + 1 if old else 1)


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
