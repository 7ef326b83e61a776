"""`bitcorn ingest`: files of bars into a database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from bitcorn_ray.cli.options import common_options
from bitcorn_ray.report.console import show
from bitcorn_ray.report.transfers import counter, ingest_table, partition_rows


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--db", required=True, help="SQLite database to write to; created where it is missing.")
@click.option("--symbol", help="Symbol of files that do not say it in a column or in their name.")
@click.option("--timeframe", help="Timeframe of files that do not say it, such as 1h.")
@click.option(
    "--on-conflict",
    type=click.Choice(["keep", "replace", "error"]),
    default="replace",
    show_default=True,
    help="What becomes of a row whose time is stored, or stands in the file, with other values.",
)
@click.option("--map", "mapping", multiple=True, help="Which column is which, such as open=o,volume=base_qty.")
@common_options
def ingest(
    files: Sequence[str],
    db: str,
    symbol: str | None,
    timeframe: str | None,
    on_conflict: Any,
    mapping: Sequence[str],
    as_json: bool,
    address: str | None,
) -> None:
    """Upsert files of bars into a SQLite database: CSV, JSON (also gz, zip), Feather, Parquet, of any layout.

    The same file twice changes nothing. Where one file cannot be used, or the command is cut short, the database is as
    it was.

    \b
    Example:
      bitcorn ingest bars/BTCUSDT_1h.parquet Binance_ETHUSDT_1h.csv --db market.db
      bitcorn ingest BTCUSDT-1h-*.zip --db market.db --on-conflict keep
    """
    from bitcorn_ray.sources.columns import parse_mapping
    from bitcorn_ray.sources.ingest import ingest_files

    with counter("rows", as_json) as (count, say):
        done = ingest_files(
            files,
            db,
            symbol,
            timeframe,
            on_file=lambda name: say(f"reading {name.rpartition('/')[2]}"),
            on_conflict=on_conflict,
            mapping=parse_mapping(mapping),
            on_rows=count,
        )
    rows = partition_rows(done)
    show({"db": db, "partitions": rows}, lambda: ingest_table(rows), as_json)
