"""Measuring: a figure is the median of several runs of the same work."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

RUNS = 5


@dataclass(frozen=True)
class Figure:
    """Seconds of one piece of work. target: what it should reach, or None for a reference."""

    what: str
    seconds: tuple[float, ...]
    target: float | None = None

    @property
    def median(self) -> float:
        """Median of the runs."""
        return statistics.median(self.seconds)


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
