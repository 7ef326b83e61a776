"""Commands on bars: inspect, ingest, download, export, quality."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from bitcorn_ray.cli import options
from bitcorn_ray.cli.session import settings, show
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import counter, progress
from bitcorn_ray.report.sources import (
    download_table,
    export_table,
    ingest_table,
    inspection_tables,
    partition_rows,
    undo_table,
)
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.storage.location import shown_uri

if TYPE_CHECKING:
    from bitcorn_ray.report.quality import PartitionQuality

_database_option = click.option(
    "--db", required=True, help="SQLite database to write to; it is created if it does not exist."
)


@click.command()
@click.argument("source")
@click.option("--symbol", help="Symbol of bars that have none in a column or in a name.")
@options.common
@options.source_options
def inspect(source: str, symbol: str | None, source_options: SourceOptions) -> None:
    """Show how a source of bars is read, and the reason for each decision.

    SOURCE is a SQLite database, a file of bars, or a folder or URI of such files. Shown are its partitions with their
    rows and times, its tables with the meaning of each column, and tables without bars with the reason. Exits with
    status 1 if a partition cannot be read.

    \b
    Example:
      bitcorn inspect market.db
      bitcorn inspect market.db --table candles --map open=o,volume=base_qty
    """
    from bitcorn_ray.sources.inspect import inspect_source

    found = inspect_source(source, source_options.with_symbols([symbol] if symbol else None))
    show(asdict(found), lambda _: inspection_tables(found))
    sys.exit(1 if found.problems or any(partition.problem for partition in found.partitions) else 0)


@click.command()
@click.argument("files", nargs=-1)
@_database_option
@click.option("--symbol", help="Symbol of files that have none in a column or in their name.")
@click.option("--timeframe", help="Timeframe, such as 1h, of files that have none in a column or in their name.")
@click.option(
    "--on-conflict",
    type=click.Choice(["revise", "keep", "replace", "error"]),
    default="revise",
    show_default=True,
    help="Of two rows of one time with different values, stored or in a file, keep the new one unless most bars differ "
    "(revise), the old one (keep), or the new one in any case (replace); or refuse the file (error).",
)
@click.option("--undo", is_flag=True, help="Undo the last ingest into the database, without FILES.")
@options.source_options
@options.common
def ingest(
    files: Sequence[str],
    db: str,
    symbol: str | None,
    timeframe: str | None,
    on_conflict: Any,
    undo: bool,
    source_options: SourceOptions,
) -> None:
    """Upsert files of bars into a SQLite database: CSV, JSON (also gz, zip), Feather, Parquet, of any layout.

    The same file twice changes nothing. If one file cannot be used, or the command is interrupted, the database does
    not change. A file is refused if it seems to be of another market than what is stored under its symbol.

    \b
    Example:
      bitcorn ingest bars/BTCUSDT_1h.parquet Binance_ETHUSDT_1h.csv --db market.db
      bitcorn ingest BTCUSDT-1h-*.zip --db market.db --on-conflict keep
      bitcorn ingest --undo --db market.db
    """
    from bitcorn_ray.sources.ingest import ingest_files
    from bitcorn_ray.sources.journal import undo_ingest

    if undo == bool(files):
        raise BitcornError("give FILES to ingest, or --undo without FILES")
    if undo:
        undone = undo_ingest(db)
        show({"db": db, "undone": [asdict(record) for record in undone]}, lambda _: undo_table(undone))
        return
    with counter("rows", settings().as_json) as (count, label):
        done = ingest_files(
            files,
            db,
            symbol,
            timeframe,
            on_file=lambda name: label(f"reading {name.rpartition('/')[2]}"),
            on_conflict=on_conflict,
            source_options=source_options,
            on_rows=count,
        )
    show({"db": db, "partitions": partition_rows(done)}, lambda _: ingest_table(done))


@click.command()
@click.option("--exchange", "name", required=True, help="Exchange, by its ccxt name, such as binance.")
@click.option("--symbols", required=True, callback=options.names, help="Markets, such as BTC/USDT,ETH/USDT.")
@click.option("--timeframes", required=True, callback=options.names, help="Separated by commas, such as 1h,4h.")
@click.option("--since", required=True, help="Time of the first bar to download, UTC: 2020-01-01, or an epoch.")
@_database_option
@click.option("--base-url", help="Base URL of the exchange's API, instead of its usual host.")
@options.common
def download(
    name: str, symbols: Sequence[str], timeframes: Sequence[str], since: str, db: str, base_url: str | None
) -> None:
    """Download the bars of an exchange that follow those in the database, up to the last closed bar.

    The exchange's rate limit is respected. Each page is stored at once, so that an interrupted download resumes there.
    It needs ccxt: pip install 'bitcorn_ray[exchange]'.

    \b
    Example:
      bitcorn download --exchange binance --symbols BTC/USDT --timeframes 1h --since 2020-01-01 --db market.db
    """
    import pyarrow as pa

    from bitcorn_ray.sources.exchange import download_bars, opened_exchange
    from bitcorn_ray.sources.times import parse_times

    first = int(parse_times(pa.array([since]), "--since").ms[0])
    exchange = opened_exchange(name, base_url)
    with counter("bars", settings().as_json) as (count, label):

        def on_page(partition: object, bars: int) -> None:
            label(str(partition))
            count(bars)

        done = download_bars(exchange, db, symbols, timeframes, first, on_page)
    show({"db": db, "exchange": name, "partitions": partition_rows(done)}, lambda _: download_table(done))


@click.command()
@options.source()
@options.symbols
@options.timeframes
@click.option("--to", "target", required=True, help="Folder, or a URI such as s3://bucket/bars.")
@click.option("--columns", multiple=True, help="Further column to write, such as quote_volume; may be repeated.")
@options.common
@options.source_options
def export(
    source: str,
    symbols: list[str] | None,
    timeframes: list[str] | None,
    target: str,
    columns: Sequence[str],
    source_options: SourceOptions,
) -> None:
    """Write bars as Parquet, one file per partition, to a place that every worker of a cluster can read.

    The folder or URI is itself a source: `bitcorn features s3://bucket/bars`. Bars are not repaired.

    \b
    Example:
      bitcorn export --db market.db --to s3://bucket/bars
      bitcorn export market.db --to bars/ --symbols BTCUSDT --timeframes 1h
    """
    from bitcorn_ray.sources.export import export_bars
    from bitcorn_ray.sources.source import shown_source

    with counter("bars", settings().as_json) as (count, label):
        label(f"writing to {shown_source(target)}")
        source_options = replace(source_options, columns=tuple(columns))
        done = export_bars(source, target, symbols, timeframes, source_options, lambda written: count(written.rows))
    show({"target": shown_source(target), "partitions": partition_rows(done)}, lambda _: export_table(done))


@click.command()
@click.argument("source")
@options.symbols
@options.timeframes
@click.option("--out", help="HTML file for a page with calendar, prices and the places of all defects.")
@options.common
@options.source_options
def quality(
    source: str, symbols: list[str] | None, timeframes: list[str] | None, out: str | None, source_options: SourceOptions
) -> None:
    """Find defects of bars: gaps, duplicates, bad prints and more, with a score and its reasons.

    SOURCE is a SQLite database, a raw file of bars, or a folder or URI of such files. Nothing is changed.

    \b
    Example:
      bitcorn quality market.db --symbol BTC/USDT --timeframe 1h --out quality.html
      bitcorn quality Binance_BTCUSDT_1h.csv.gz --json
    """
    from bitcorn_ray.report.quality import diagnose_source, lightened, quality_tables, write_quality

    results: list[PartitionQuality] = []
    with progress("diagnosing", 0, settings().as_json) as advance:
        for diagnosis in diagnose_source(source, symbols, timeframes, source_options):
            results = lightened([*results, diagnosis])
            advance(str(diagnosis.partition))
    written = {}
    if out is not None:
        write_quality(results, out)
        written = {"page": shown_uri(out)}
    page = f"page: {written['page']}" if written else None
    reports = [result.to_json() for result in results]
    show({"source": shown_uri(source), "partitions": reports, **written}, lambda _: (*quality_tables(results), page))


COMMANDS = (inspect, ingest, download, export, quality)
