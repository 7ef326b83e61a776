"""The command that says what was understood of a source: inspect."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from bitcorn_ray.cli.options import common_options, reading_options
from bitcorn_ray.report.console import show
from bitcorn_ray.report.inspection import inspection_tables
from bitcorn_ray.sources.options import Reading


@click.command()
@click.argument("source")
@common_options
@reading_options
def inspect(source: str, reading: Reading, as_json: bool, address: str | None) -> None:
    """Say what is understood of a source of bars, and how each thing was decided.

    SOURCE is a SQLite database, a file of bars, or a folder or URI of such files. Shown are its partitions with their
    rows and times, its tables with what each column is taken for, and what is no table of bars, with the reason. Ends
    with status 1 where something is in the way of reading a partition.

    \b
    Example:
      bitcorn inspect market.db
      bitcorn inspect market.db --table candles --map open=o,volume=base_qty
    """
    from bitcorn_ray.sources.inspect import inspect_source

    found = inspect_source(source, reading)
    result: dict[str, Any] = asdict(found)
    show(result, lambda: inspection_tables(result), as_json)
    sys.exit(1 if found.problems or any(each.problem for each in found.partitions) else 0)
