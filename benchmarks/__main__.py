"""`python -m benchmarks [NAME ...] [--json]`."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import import_module

import click
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Figure

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
    "training": "training:training",
    "training-gpu": "training_gpu:training_gpu",
    "train-on-ray": "training:train_on_ray",
    "memory": "training:memory",
    "forecasts": "forecasts:forecasts",
    "ingest": "market:ingest",
    "read": "market:read",
    "inspect": "market:inspect",
    "resample": "market:resample",
    "sweep": "sweeps:sweep",
    "asha": "sweeps:asha",
    "sharing": "sweeps:sharing",
    "driver": "sweeps:driver",
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(names: tuple[str, ...], as_json: bool) -> None:
    """Measure the named benchmarks, by default all."""
    figures = []
    for name in names or BENCHMARKS:
        click.echo(f"measuring {name}", err=True)
        figures += _benchmark(BENCHMARKS[name])()
    if as_json:
        print(json.dumps([{**vars(figure), "median": figure.median} for figure in figures], indent=1))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")
    Console(width=None if sys.stdout.isatty() else 120).print(_table(figures))


def _benchmark(place: str) -> Callable[[], list[Figure]]:
    """Function of a module that is loaded only now: others may need what is not installed here."""
    module, _, function = place.partition(":")
    found: Callable[[], list[Figure]] = getattr(import_module(f"benchmarks.{module}"), function)
    return found


def _table(figures: list[Figure]) -> Table:
    table = Table("what", *("target", "median", "fastest", "slowest"))
    for figure in figures:
        target = "" if figure.target is None else f"{figure.target * 1e3:.0f} ms"
        times = (f"{seconds * 1e3:.1f} ms" for seconds in (figure.median, min(figure.seconds), max(figure.seconds)))
        table.add_row(figure.what, target, *times)
    return table


if __name__ == "__main__":
    main()
