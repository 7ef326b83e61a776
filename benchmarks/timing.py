"""Measuring: a figure is the median of several runs of the same work, beside a reference where it has one."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

RUNS = 5


@dataclass(frozen=True)
class Figure:
    """What several runs of one piece of work gave, or one measure of it.

    values: one a run, in the unit: "s", "MiB", "%", "" for a pure number, or a rate such as "windows/s". Less is
    better, of a rate more. target: the value to reach, or None. reference: the figure that this one is set beside.
    limit: how many times the reference's value is to be reached. peer: whether this is another project's work. size:
    what the work grows by, where figures of the same name are the points of a growth curve.
    """

    what: str
    values: tuple[float, ...]
    target: float | None = None
    unit: str = "s"
    reference: Figure | None = None
    limit: float | None = None
    peer: bool = False
    size: int | None = None

    def beside(self, reference: Figure, limit: float | None = None) -> Figure:
        """The same, to be judged by its ratio to a figure of the same unit."""
        if reference.unit != self.unit:
            raise ValueError(f"{self.what} is in {self.unit!r} and {reference.what} in {reference.unit!r}: no ratio")
        return replace(self, reference=reference, limit=limit)

    @property
    def more_is_better(self) -> bool:
        """Whether the unit is a rate."""
        return self.unit.endswith("/s")

    @property
    def median(self) -> float:
        """Median of the runs."""
        return statistics.median(self.values)

    @property
    def best(self) -> float:
        """Value of the best run: the fastest."""
        return max(self.values) if self.more_is_better else min(self.values)

    @property
    def worst(self) -> float:
        """Value of the worst run: the slowest."""
        return min(self.values) if self.more_is_better else max(self.values)

    @property
    def ratio(self) -> float | None:
        """How many times the reference's median the median is, or None without a reference."""
        return None if self.reference is None else self.median / self.reference.median

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches target and limit; None where there is neither."""
        asked = [(self.median, self.target), (self.ratio, self.limit)]
        known = [(value, bound) for value, bound in asked if value is not None and bound is not None]
        if not known:
            return None
        return all(value >= bound if self.more_is_better else value <= bound for value, bound in known)


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(what: str, work: Callable[[], object], target: float | None = None, runs: int = RUNS) -> Figure:
    """Time ``work`` after one run that warms up."""
    work()
    return Figure(what, tuple(seconds_of(work) for _ in range(runs)), target)


def measure_fresh(what: str, code: str, target: float | None = None, runs: int = RUNS) -> Figure:
    """Time code in fresh processes: it prints its own seconds as JSON. One process warms the disk."""
    seconds = []
    for _ in range(runs + 1):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(float(json.loads(done.stdout.splitlines()[-1])))
    return Figure(what, tuple(seconds[1:]), target)
