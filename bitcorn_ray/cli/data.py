"""Commands on data: ingest, features, cache."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from bitcorn_ray.cli.options import OrderedGroup, cache_dir_option, common_options, listed, open_cache, ray_for
from bitcorn_ray.report.console import cache_table, features_table, ingest_table, progress, show, size

__all__ = ["cache", "features", "ingest"]


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--db", required=True, help="SQLite database to write to; created where it is missing.")
@click.option("--symbol", help="Symbol of files that do not say it in a column or in their name.")
@click.option("--timeframe", help="Timeframe of files that do not say it, such as 1h.")
@common_options
def ingest(
    files: Sequence[str], db: str, symbol: str | None, timeframe: str | None, as_json: bool, address: str | None
) -> None:
    """Upsert Parquet and CSV files of bars into a SQLite database.

    \b
    Example:
      bitcorn ingest bars/BTCUSDT_1h.parquet bars/ETHUSDT_1h.csv --db market.db
    """
    from bitcorn_ray.market.ingest import ingest_files

    with progress("reading", len(files), as_json) as advance:
        done = ingest_files(files, db, symbol, timeframe, on_file=advance)
    rows = [{**asdict(item), **asdict(item.partition)} for item in done]
    for row in rows:
        del row["partition"]
    show({"db": db, "partitions": rows}, lambda: ingest_table(rows), as_json)


@click.command()
@click.option("--db", required=True, help="SQLite database of bars.")
@click.option("--symbols", help="Only these, separated by commas.")
@click.option("--timeframes", help="Only these, separated by commas.")
@click.option("--system", default="v2", show_default=True, help="Feature system.")
@cache_dir_option
@common_options
def features(
    db: str,
    symbols: str | None,
    timeframes: str | None,
    system: str,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Compute the features of every partition of a database into the cache, in parallel on Ray.

    Ends with status 2 where a partition failed; the others are kept.

    \b
    Example:
      bitcorn features --db market.db --symbols BTCUSDT,ETHUSDT --timeframes 1h
    """
    from bitcorn_ray.data_loader import compute_features
    from bitcorn_ray.market.database import list_partitions
    from bitcorn_ray.market.partition import select_partitions

    some_symbols, some_timeframes = listed(symbols), listed(timeframes)
    # Bad input is known before Ray takes seconds to start.
    total = len(select_partitions(list_partitions(db), some_symbols, some_timeframes))
    with ray_for(address), progress("computing features", total, as_json) as advance:
        done = compute_features(
            db,
            symbols=some_symbols,
            timeframes=some_timeframes,
            system=system,
            cache_dir=cache_dir,
            on_done=lambda status: advance(f"{status.symbol} {status.timeframe}"),
        )
    rows = [asdict(status) for status in done]
    show({"db": db, "system": system, "partitions": rows}, lambda: features_table(rows), as_json)
    failed = [status for status in done if status.error]
    for status in failed:
        click.echo(f"bitcorn: {status.symbol} {status.timeframe} failed: {status.error}", err=True)
    if failed:
        sys.exit(2)


@click.group(cls=OrderedGroup)
def cache() -> None:
    """Look at the feature cache, and clear it."""


@cache.command("ls")
@cache_dir_option
@common_options
def cache_ls(cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """List the entries, newest first.

    \b
    Example:
      bitcorn cache ls
    """
    entries = open_cache(cache_dir).entries()
    show({"entries": entries}, lambda: cache_table(entries), as_json)


@cache.command("stats")
@cache_dir_option
@common_options
def cache_stats(cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Say how many entries there are and how much room they take.

    \b
    Example:
      bitcorn cache stats --json
    """
    store = open_cache(cache_dir)
    entries = store.entries()
    total = sum(entry["bytes"] for entry in entries)
    stats = {
        "folder": str(store.folder),
        "entries": len(entries),
        "bytes": total,
        "rows": sum(e["rows"] for e in entries),
    }
    show(stats, lambda: f"{len(entries)} entries, {stats['rows']:,} rows, {size(total)} in {store.folder}", as_json)


@cache.command("clear")
@click.option("--db", help="Only what this database uses and no other.")
@cache_dir_option
@common_options
def cache_clear(db: str | None, cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Remove entries: those of one database, or all.

    \b
    Example:
      bitcorn cache clear --db market.db
    """
    count = open_cache(cache_dir).invalidate(db)
    show({"cleared": count}, lambda: f"cleared {count} entries", as_json)
