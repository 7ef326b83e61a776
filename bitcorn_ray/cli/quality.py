"""The command on the quality of bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bitcorn_ray.cli.options import common_options, listed, reading_options
from bitcorn_ray.report.console import progress, show
from bitcorn_ray.storage.location import shown_uri

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
