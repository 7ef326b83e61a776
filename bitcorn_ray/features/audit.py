"""Audit of a feature system on real bars: each value is made of the past that is declared, and of nothing else.

1. Stability. The same bars are computed again, at once and after all else: what differs is random or has a state. So
   are the first half of them by a copy that has computed nothing: what differs is remembered from other bars.
2. Starts. The bars before the declared look-back (warm-up, or halo) are left out, as where the cache computes a chunk:
   what differs has an undeclared warm-up. A recursion never forgets entirely, so 0.1 % of a feature's range may differ.
3. Scenes. At places where leaks show (`scenes`) a stretch of bars is taken, as it is or with a gap, a flat market, no
   volume, a crash, a jump or missing values put in. Then its future is cut off or changed at several rows: values up to
   there must stay but for rounding. So it is done to the whole series, for leaks in statistics of it and by its length.
   The values of the warm-up are dropped, yet must not be filled from later bars of the warm-up.
4. Screening, thousands of further cuts. Short blocks all over the series are changed at once, further apart than the
   features look back. Values before a block and out of reach of the last one must stay. Where they do not, that block
   is changed alone: only a difference that remains is a look-ahead.
5. Values. NaN after the warm-up and infinities are counted in the bars as they are.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.scenarios import FUTURES, SCENES, Rows, Scene, UncheckedBars, places_of
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.market.bars import Bars

__all__ = ["AuditReport", "Finding", "audit"]

Matrix = NDArray[np.float32]
Array = NDArray[np.float64]

_KINDS = ("error", "unstable", "look-ahead", "inf", "warm-up", "nan")
_LEAST_BARS, _HISTORY, _COMPARED = 50, 300, 64  # bars: beyond the warm-up; before a scene's place; after a start
_ROUNDING, _FORGOTTEN = 1e-10, 1e-3  # of a feature's spread; of its range
# Bars to compute at once in screening, at most in scenes for each place, and in cuts of the whole series.
_WINDOW, _SCENE_ROWS, _WHOLE_ROWS = 100_000, 100_000, 10_000_000


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with a feature, at its worst place.

    kind: "look-ahead", "warm-up", "nan", "inf", "unstable" or "error"; an error is told of the feature "all".
    size: largest difference in spreads of the feature, 1 for a value against NaN; for "nan" and "inf" how many bars.
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
    """What an audit found: one finding for each feature and kind, worst first.

    cuts: how often values were compared with those of another future or past.
    profile: of each feature after the warm-up "min", "max" and "largest" magnitude (None where none is finite), and the
        shares "missing" (NaN) and "saturated" (at its own min or max).
    """

    system: str
    rows: int
    features: tuple[str, ...]
    cuts: int
    findings: tuple[Finding, ...]
    profile: dict[str, dict[str, float | None]]

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def audit(
    bars: Bars, system: FeatureSystem, *, cuts: int = 64, seed: int = 0, fresh: FeatureSystem | None = None
) -> AuditReport:
    """Audit a feature system on the bars of one partition; a system with a context needs `on_grid` first.

    cuts: how many places are looked at; each stands for tens of comparisons. fresh: a copy of the system with
    globals of its own, which has computed nothing; None leaves out the comparison with it.
    Raises BitcornError for bars that are unusable or too few.
    """
    bars.require_usable()
    least = system.warmup_bars + _LEAST_BARS
    if len(bars) < least or cuts < 1:
        raise BitcornError(f"an audit of {system.name} needs {least} bars and 1 cut: got {len(bars)} bars, {cuts} cuts")
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # what the audit does to bars gives warnings
        warnings.simplefilter("ignore")
        return _Audit(bars, system, np.random.default_rng(seed), fresh).report(cuts)


class _Audit:
    def __init__(
        self, bars: Bars, system: FeatureSystem, rng: np.random.Generator, fresh: FeatureSystem | None
    ) -> None:
        self.bars, self.system, self.rng, self.fresh, self.cuts = bars, system, rng, fresh, 0
        self.memory, self.whole = system.warmup_bars, Scene(bars, np.arange(len(bars)))
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
            self.spread = np.array([_spread(row[self.memory :]) for row in full])
            self.check(full, places_of(self.bars, self.memory, self.rng), cuts)
            profile = {name: _profile(row[self.memory :]) for name, row in zip(names, full, strict=True)}
        found = tuple(sorted(self.found.values(), key=lambda f: (_KINDS.index(f.kind), -f.size)))
        spec, rows = self.system.spec, len(self.bars)
        return AuditReport(system=spec, rows=rows, features=names, cuts=self.cuts, findings=found, profile=profile)

    def without_warmup(self, system: FeatureSystem) -> FeatureSystem:
        """The system declared without a warm-up, for its values are looked at, too."""
        own = self.features[: len(self.features) // (1 + len(system.context))]
        return replace(system, warmup=0, halo=None, declared=own)

    def check(self, full: Matrix, places: list[Rows], cuts: int) -> None:
        # From which difference on screening looks closer: what an earlier start changes, earlier blocks change, too.
        self.suspicious = np.full(len(full), _ROUNDING)
        best = [int(rows[k]) for k in range(cuts) for rows in places if k < len(rows)]  # of each kind in turn
        text = "from the same bars at another time: a random number or a state is in it; make it a function of its bars"
        again = ("unstable", self.whole, full, self.whole, slice(0, None), text, _ROUNDING * self.spread)
        self.compare(*again)
        for row in self.rng.integers(max(self.memory, len(self.bars) - _WINDOW // 4), len(self.bars), 4):
            self.try_start(self.whole, full, int(row))
        computations = _SCENE_ROWS * cuts // (2 * self.memory + 2 * _HISTORY)
        scenes = min(cuts, max(computations // 8, 8))
        for number, place in enumerate(best[:scenes]):
            self.check_scene(place, SCENES[number % len(SCENES)], int(np.clip(computations // scenes // 2 - 1, 2, 8)))
        rows = [len(self.bars) - 2, self.memory // 2, *(place - 1 for place in best[:14])]
        for row in rows[: max(_WHOLE_ROWS // len(self.bars) // 2, 5)]:
            self.try_cut(self.whole, full, row)
        self.screen(full, places, cuts * int(np.clip(_WINDOW // (4 * len(self.bars)), 1, 4)))
        self.compare(*again)
        self.check_values(full[:, self.memory :])
        if self.fresh is not None:
            self.check_memory(self.fresh)

    def check_scene(self, place: int, what: str, cuts: int) -> None:
        start = max(place - self.memory - int(self.rng.integers(_HISTORY // 2, _HISTORY)), 0)
        at, length = place - start, int(self.rng.choice((1, 3, 20, 60)))
        scene = self.whole.take(slice(start, place + self.memory + _HISTORY))
        if what and 0 < at < len(scene.rows) - length:
            scene = replace(scene.edited(what, slice(at, at + length)), put_in=f" (with {what} put in)")
        if (values := self.compute(scene)) is None:
            return
        if not scene.put_in:  # the place as the last bar that is left out, and any other one
            self.try_start(scene, values, at + self.memory + 1)
            self.try_start(scene, values, int(self.rng.integers(0, len(scene.rows))))
        beside = self.rng.permutation([at - 2, at + length // 2, at + length - 1, at + length])
        anywhere, early = int(self.rng.integers(0, at + _HISTORY)), int(self.rng.integers(0, self.memory + 1))
        for cut in [at - 1, at, anywhere, *beside[:2], early, *beside[2:]][:cuts]:
            self.try_cut(scene, values, int(cut))

    def screen(self, full: Matrix, places: list[Rows], rounds: int) -> None:
        for number in range(rounds):
            if number % 16 == 0:
                start = int(self.rng.integers(0, max(len(self.bars) - _WINDOW, 0) + 1))
                scene = self.whole.take(slice(start, start + _WINDOW))
                values = full if len(scene.rows) == len(full[0]) else self.compute(scene)
                inside = [*(rows - start for rows in places), np.arange(500, len(scene.rows), 500)]
                # Round numbers count from where the computed bars start; half of the rows are any.
                inside = [rows[(rows > 2) & (rows < len(scene.rows) - 40)] for rows in (*inside, *inside[-2:-1] * 9)]
                pool = np.concatenate([self.rng.choice(rows, 10_000) for rows in inside if len(rows)])
            length, what = int(self.rng.choice((1, 2, 8, 32))), str(self.rng.choice(FUTURES[:-1]))
            apart, cuts = self.memory + length + self.memory // 8 + 8, [-2 * len(self.bars)]
            for row in np.sort(self.rng.choice(pool, 3 * len(scene.rows) // apart + 1)) - self.rng.integers(0, 3):
                cuts += [int(row)] if row >= cuts[-1] + apart else []
            blocks = [slice(cut + 1, cut + 1 + length) for cut in cuts[1:]]
            changed = scene.edited(what, *blocks)
            if values is None or (now := self.compute(changed)) is None:
                continue
            self.cuts += len(blocks)
            # Rows that by what is declared do not look back to a block.
            clean = np.arange(cuts[-1] + 1) >= self.memory
            for block, after in pairwise(blocks):
                first, low = block.stop + self.memory, max(block.start - self.memory, 0)
                around = [some.bars.take(slice(low, first + 1)) for some in (scene, changed)]
                far = min(self.system.first_needed(bars, first - low) for bars in around) < block.stop - low
                clean[block.start : after.start if far else first] = False
            suspects: list[tuple[float, int, int]] = []
            for i in np.flatnonzero(np.isfinite(self.suspicious)):
                old, new = values[i, : len(clean)], now[i, : len(clean)]
                rows = np.flatnonzero(clean & (old.view(np.int32) != new.view(np.int32)))
                away = _distance(old[rows], new[rows]) / self.spread[i]
                if len(rows) and away.max() > self.suspicious[i]:
                    suspects.append((float(away.max()), int(np.searchsorted(cuts[1:], rows[away.argmax()])), int(i)))
            for worst in {place for _, place, _ in sorted(suspects)[-2:]}:
                self.try_future(scene, values, scene.edited(what, blocks[worst]), blocks[worst].start - 1, what)
                for size, _, feature in (suspect for suspect in suspects if suspect[1] == worst):
                    self.suspicious[feature] = 2.0 * size

    def check_memory(self, fresh: FeatureSystem) -> None:
        half = self.whole.take(slice(max(len(self.bars) // 2, self.memory) + 1))
        if (values := self.compute(half)) is None:
            return
        self.bare = self.without_warmup(fresh)
        text = "from these bars alone: its module remembers others; make it a function of its bars"
        self.compare("unstable", half, values, half, slice(0, None), text, _ROUNDING * self.spread)

    def check_values(self, values: Matrix) -> None:
        for name, row in zip(self.features, values, strict=True):
            missing = np.flatnonzero(np.isnan(row))
            if (name, "warm-up") in self.found:  # it begins with NaN for want of bars
                missing = missing[missing != np.arange(len(missing))]
            for kind, rows in (("inf", np.flatnonzero(np.isinf(row))), ("nan", missing)):
                if len(rows):
                    text = f"{kind} in {len(rows)} of {len(row)} bars, first here: give a neutral value, no later one"
                    self.note(name, kind, self.memory + int(rows[0]), float(len(rows)), text)

    def try_cut(self, scene: Scene, values: Matrix, cut: int) -> None:
        cut = min(max(cut, 0), len(scene.rows) - 2)
        what = FUTURES[self.cuts % len(FUTURES)]
        if cut >= self.memory:  # fewer bars than the warm-up are never computed
            self.try_future(scene, values, scene.take(slice(cut + 1)), cut, "nothing")
            self.try_future(scene, values, scene.edited(what, slice(cut + 1, None)), cut, what)
        elif what != "later times":
            self.try_future(scene, values, scene.edited(what, slice(cut + 1, self.memory)), cut, what)

    def try_future(self, scene: Scene, values: Matrix, other: Scene, cut: int, came: str) -> None:
        text = f"if after {scene.bars.describe(cut)} came {came}{scene.put_in}: it uses later bars; use none of them"
        rows = slice(self.memory if cut >= self.memory else 0, cut + 1)
        self.compare("look-ahead", scene, values, other, rows, text, _ROUNDING * self.spread)

    def try_start(self, scene: Scene, values: Matrix, row: int) -> None:
        if row >= len(scene.rows) or (first := self.system.first_needed(scene.bars, row)) == 0:
            return
        rows = slice(row, min(row + _COMPARED, len(scene.rows)))
        seen = values[:, max(0, first - self.memory - _HISTORY) : rows.stop]
        reach = np.nan_to_num(np.nanmax(seen, axis=1) - np.nanmin(seen, axis=1), posinf=0.0)
        text = f"computed from {row - first} bars before, as declared and as in the cache: declare a longer warm-up"
        least = _FORGOTTEN * np.maximum(0.1 * self.spread, 0.25 * reach)
        away = self.compare("warm-up", scene, values, scene.take(slice(first, None)), rows, text, least)
        self.suspicious = np.maximum(self.suspicious, 2.0 * away / self.spread)

    def compare(self, kind: str, a: Scene, values: Matrix, b: Scene, rows: slice, text: str, least: Array) -> Array:
        """Note where values at rows of scene a are other in b by more than `least`; return the differences, (F,)."""
        largest = np.zeros(len(values))
        if (computed := self.compute(b)) is None:
            return largest
        self.cuts += 1
        before, start = values[:, rows], rows.start - int(b.rows[0] - a.rows[0])
        now = computed[:, start : start + before.shape[1]]
        for i in np.flatnonzero((before.view(np.int32) != now.view(np.int32)).any(axis=1)):
            away = _distance(before[i], now[i])
            worst = int(away.argmax())
            largest[i] = away[worst]
            # Of an unstable feature no difference can be told from its own.
            if largest[i] > least[i] and (self.features[i], "unstable") not in self.found:
                size = float(largest[i] / self.spread[i]) if np.isfinite(largest[i]) else 1.0
                detail = f"it is {before[i, worst]:.6g}, and {now[i, worst]:.6g} {text}"
                self.note(self.features[i], kind, int(a.rows[rows][worst]), size, detail)
        return largest

    def compute(self, scene: Scene) -> Matrix | None:
        usable = "nan" not in scene.put_in
        columns: dict[str, Any] = {"timestamp": None, **scene.bars.columns(), "extra": scene.bars.extra}
        try:
            return self.bare.matrix(Bars(**columns) if usable else UncheckedBars(**columns))
        except BitcornError as error:
            if usable:  # a system need not cope with missing values
                self.note("all", "error", int(scene.rows[0]), 1.0, f"bars from here on{scene.put_in}: {error}")
            return None

    def note(self, feature: str, kind: str, row: int, size: float, detail: str) -> None:
        at, old = self.bars.describe(row), self.found.get((feature, kind))
        new = Finding(feature=feature, kind=kind, at=at, row=row, size=size, detail=detail, cuts=1)
        self.found[feature, kind] = replace(old if old and old.size >= size else new, cuts=old.cuts + 1 if old else 1)


def _distance(before: Matrix, now: Matrix) -> Array:
    """How far values are apart: 0 for rounding and for NaN against NaN, infinite where one of two is not finite."""
    away = np.nan_to_num(np.abs(before.astype(np.float64) - now), nan=np.inf, posinf=np.inf)
    rounding = away <= 2.0**-22 * np.minimum(np.abs(before), np.abs(now))
    return np.where(rounding | (before == now) | (np.isnan(before) & np.isnan(now)), 0.0, away)


def _spread(values: Matrix) -> float:
    """Standard deviation as the middle nine tenths show it, else of all; 1 for a constant."""
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
