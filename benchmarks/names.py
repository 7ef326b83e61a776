"""The names of all benchmarks, and where the function of each is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from benchmarks.timing import Figure

__all__ = ["BENCHMARKS", "find_benchmark"]

BENCHMARKS = {
    "import": "pipeline:import_package",
    "features": "features:features",
    "minutes": "features:minutes",
    "hit": "cache:hit",
    "append": "cache:append",
    "unchanged": "cache:unchanged",
    "load": "pipeline:load",
    "sequences": "pipeline:sequences",
    "whole": "pipeline:whole",
    "partitions": "scale:partitions",
    "qlib": "scale:qlib",
    "cluster": "cluster:cluster",
    "tasks": "cluster:tasks",
    "long-partition": "cluster:long_partition",
    "training": "training:training",
    "training-gpu": "training_gpu:training_gpu",
    "train-on-ray": "training:train_on_ray",
    "memory": "training:memory",
    "forecasts": "forecasts:forecasts",
    "accuracy": "accuracy:accuracy",
    "ingest": "market:ingest",
    "read": "market:read",
    "inspect": "market:inspect",
    "resample": "market:resample",
    "sweep": "sweeps:sweep",
    "asha": "sweeps:asha",
    "sharing": "sweeps:sharing",
    "driver": "sweeps:driver",
    "growth-bars": "growth:growth_bars",
    "growth-partitions": "growth:growth_partitions",
    "growth-hidden": "growth:growth_hidden",
}


def find_benchmark(name: str) -> Callable[[], list[Figure]]:
    """Function of a benchmark, whose module is loaded only now: others may need what is not installed here."""
    module, _, function = BENCHMARKS[name].partition(":")
    found: Callable[[], list[Figure]] = getattr(import_module(f"benchmarks.{module}"), function)
    return found
