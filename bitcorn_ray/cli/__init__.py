"""The command line, `bitcorn ...`: thin commands over the public functions.

Results go to standard output, as tables or with --json as JSON; progress and errors go to standard error. Bad input is
one line and exit status 2; --debug shows the traceback.
"""

from __future__ import annotations

import sys

import click

from bitcorn_ray import __version__
from bitcorn_ray.cli import cluster, data, demo, evaluate, features, forecast, report, train, tune
from bitcorn_ray.cli.cluster import MainGroup
from bitcorn_ray.cli.session import store_setting
from bitcorn_ray.logging import FORMATS, LEVELS, LogOutput, log_output
from bitcorn_ray.report.console import make_printable

__all__ = ["main"]


@click.group(cls=MainGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bitcorn")
@click.option(
    "--address",
    expose_value=False,
    callback=store_setting,
    help="Ray cluster, for all commands; with --submit its dashboard, such as http://head:8265.",
)
@click.option("--submit", is_flag=True, help="Run the command on the cluster, with the files of this folder.")
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    envvar="BITCORN_LOG",
    help="Write logs, including those of Ray's workers, to standard error.  [default: BITCORN_LOG, else no logs]",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    help="Lowest level to log; turns logs on.  [default: info]",
)
@click.pass_context
def main(context: click.Context, submit: bool, log_format: str | None, log_level: str | None) -> None:
    """From raw OHLCV bars to a multi-horizon forecaster: ingest, features, train, forecast.

    \b
    Example:
      bitcorn ingest BTCUSDT_1h.parquet --db market.db
      bitcorn features --db market.db
      bitcorn train --db market.db --symbol BTCUSDT --timeframe 1h --out models/run_001
      bitcorn forecast models/run_001 market.db
      bitcorn --address http://head:8265 --submit tune sweep.yaml
    """
    make_printable(sys.stdout, sys.stderr)
    if log_format or log_level:
        context.with_resource(log_output(LogOutput(format=log_format or "text", level=log_level or "info")))


for _module in (data, features, train, tune, evaluate, forecast, report, cluster, demo):
    for _command in _module.COMMANDS:
        main.add_command(_command)
