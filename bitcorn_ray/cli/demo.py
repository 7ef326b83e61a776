"""The command that shows everything on a simulated market."""

from __future__ import annotations

import click

from bitcorn_ray.cli.options import common_options, ray_for, say
from bitcorn_ray.report.console import features_table, forecast_table, plain_rows, show


@click.command()
@click.option("--out", default="demo", show_default=True, help="Folder for the simulated market and what comes of it.")
@common_options
def demo(out: str, as_json: bool, address: str | None) -> None:
    """Run everything on a simulated market, from files of bars to a forecast, in about a minute.

    \b
    Example:
      bitcorn demo --out demo
    """
    from bitcorn_ray.cli.demo_run import run_demo

    with ray_for(address):
        result = run_demo(out, log_fn=say)
    rows = plain_rows(result["forecast"])
    show(
        {**result, "forecast": rows},
        lambda: (features_table(result["partitions"]), forecast_table(rows)),
        as_json,
        f"SIMULATED market in {out}: not real prices",
    )
