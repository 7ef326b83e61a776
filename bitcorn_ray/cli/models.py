"""The command that forecasts."""

from __future__ import annotations

import click

from bitcorn_ray.cli.options import common_options
from bitcorn_ray.report.console import forecast_table, plain_rows, show

__all__ = ["forecast"]


@click.command()
@click.argument("run")
@click.option("--db", required=True, help="SQLite database of bars.")
@click.option("--symbol", help="Symbol to forecast.  [default: the one trained on]")
@common_options
def forecast(run: str, db: str, symbol: str | None, as_json: bool, address: str | None) -> None:
    """Forecast from the last bar of a database: one row a horizon, with 80 % and 95 % bands.

    \b
    Example:
      bitcorn forecast models/run_001 --db market.db --json
    """
    from bitcorn_ray.data_loader import load_market_data
    from bitcorn_ray.forecaster import Forecaster

    forecaster = Forecaster.load(run)
    metadata = forecaster.run.metadata
    market = load_market_data(db, symbol or metadata["symbol"], metadata["timeframe"])
    rows = plain_rows(forecaster.predict(market.dataframe).to_dict("records"))
    first = rows[0]
    close = market.dataframe["close"].iloc[-1]
    title = f"{first['symbol']} {first['timeframe']}, last bar {first['cutoff']}, close {close:g}"
    show({"run": run, "forecast": rows}, lambda: forecast_table(rows), as_json, title)
