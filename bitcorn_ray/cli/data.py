"""Commands on bars: inspect, ingest, download, export, quality."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from bitcorn_ray.cli.options import common_options, listed, reading_options, source_options
from bitcorn_ray.report.console import progress, show
from bitcorn_ray.report.inspection import inspection_tables
from bitcorn_ray.report.transfers import counter, download_table, export_table, ingest_table, partition_rows
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.storage.location import shown_uri


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
@click.option("--map", "mapping", multiple=True, help="Map columns to stored names, such as open=o,volume=base_qty.")
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


@click.command()
@click.option("--exchange", "name", required=True, help="Exchange, by its ccxt name, such as binance.")
@click.option("--symbols", required=True, help="Markets separated by commas, such as BTC/USDT,ETH/USDT.")
@click.option("--timeframes", required=True, help="Separated by commas, such as 1h,4h.")
@click.option("--since", required=True, help="Time of the first bar to download, UTC: 2020-01-01, or an epoch.")
@click.option("--db", required=True, help="SQLite database to write to; created where it is missing.")
@click.option("--base-url", help="Base URL of the exchange's API, instead of its usual host.")
@common_options
def download(
    name: str,
    symbols: str,
    timeframes: str,
    since: str,
    db: str,
    base_url: str | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Download bars of an exchange, from where the database ends up to the last one that has ended.

    It keeps to the exchange's rate limit. Each page is stored at once: an interrupted download goes on from there.
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
    with counter("bars", as_json) as (count, say):

        def stored(partition: object, bars: int) -> None:
            say(str(partition))
            count(bars)

        done = download_bars(exchange, db, listed(symbols) or [], listed(timeframes) or [], first, stored)
    rows = partition_rows(done)
    show({"db": db, "exchange": name, "partitions": rows}, lambda: download_table(rows), as_json)


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


if TYPE_CHECKING:
    from bitcorn_ray.report.quality import QualityPanel
    from bitcorn_ray.sources.options import Reading


@click.command()
@click.argument("source")
@click.option("--symbol", "--symbols", "symbols", help="Only these, separated by commas.")
@click.option("--timeframe", "--timeframes", "timeframes", help="Only these, separated by commas.")
@reading_options
@click.option("--out", help="Write a page with calendar, prices and places to this file.")
@common_options
def quality(
    source: str,
    symbols: str | None,
    timeframes: str | None,
    reading: Reading,
    out: str | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Find what is wrong with bars: gaps, duplicates, bad prints and more, with a score and its reasons.

    SOURCE is a SQLite database, a file of bars as it came, or a folder or URI of such files. Nothing is changed.

    \b
    Example:
      bitcorn quality market.db --symbol BTC/USDT --timeframe 1h --out quality.html
      bitcorn quality Binance_BTCUSDT_1h.csv.gz --json
    """
    from bitcorn_ray.report.quality import lightened, write_quality
    from bitcorn_ray.report.quality_table import quality_tables
    from bitcorn_ray.report.write import diagnose_source

    rows, panels = list[dict[str, Any]](), list["QualityPanel"]()
    with progress("diagnosing", 0, as_json) as advance:
        for each in diagnose_source(source, listed(symbols), listed(timeframes), reading):
            rows.append(each.row)
            if out is not None:
                panels = lightened([*panels, each.panel])
            advance(str(each.stored.partition))
    if out is not None:
        write_quality(panels, out)
    shown: dict[str, Any] = {
        "source": shown_uri(source),
        "partitions": rows,
        **({"page": shown_uri(out)} if out else {}),
    }
    show(shown, lambda: (*quality_tables(rows), f"page: {shown_uri(out)}" if out else None), as_json)
