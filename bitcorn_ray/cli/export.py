"""`bitcorn export`: any source of bars into a folder or URI of Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from bitcorn_ray.cli.options import common_options, reading_options, source_options
from bitcorn_ray.report.console import show
from bitcorn_ray.report.transfers import counter, export_table, partition_rows
from bitcorn_ray.sources.options import Reading


@click.command()
@source_options
@click.option("--to", "target", required=True, help="Folder, or a URI such as s3://bucket/bars.")
@click.option("--columns", multiple=True, help="Further column to write, such as quote_volume; may be repeated.")
@common_options
@reading_options
def export(
    source: str,
    symbols: list[str] | None,
    timeframes: list[str] | None,
    target: str,
    columns: Sequence[str],
    reading: Reading,
    as_json: bool,
    address: str | None,
) -> None:
    """Write bars as Parquet, one file a partition, where every worker of a cluster can read them.

    The folder or URI is a source itself: `bitcorn features s3://bucket/bars`. Bars are written as they are stored.

    \b
    Example:
      bitcorn export --db market.db --to s3://bucket/bars
      bitcorn export market.db --to bars/ --symbols BTCUSDT --timeframes 1h
    """
    from bitcorn_ray.sources.export import export_bars
    from bitcorn_ray.sources.source import shown_source

    with counter("bars", as_json) as (count, say):
        say(f"writing to {shown_source(target)}")
        further = replace(reading, columns=tuple(columns))
        done = export_bars(source, target, symbols, timeframes, further, lambda item: count(item.rows))
    rows = partition_rows(done)
    show({"target": shown_source(target), "partitions": rows}, lambda: export_table(rows), as_json)
