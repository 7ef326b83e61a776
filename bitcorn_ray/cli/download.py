"""`bitcorn download`: bars of an exchange into a database."""

from __future__ import annotations

import click

from bitcorn_ray.cli.options import common_options, listed
from bitcorn_ray.report.console import show
from bitcorn_ray.report.transfers import counter, download_table, partition_rows


@click.command()
@click.option("--exchange", "name", required=True, help="As ccxt names it, such as binance.")
@click.option("--symbols", required=True, help="Markets separated by commas, such as BTC/USDT,ETH/USDT.")
@click.option("--timeframes", required=True, help="Separated by commas, such as 1h,4h.")
@click.option("--since", required=True, help="Time of the first wished bar, UTC: 2020-01-01, or an epoch.")
@click.option("--db", required=True, help="SQLite database to write to; created where it is missing.")
@click.option("--base-url", help="Where the exchange's API is to be reached, in place of its usual host.")
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
