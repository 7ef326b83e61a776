"""The command on walk-forward folds."""

from __future__ import annotations

import click

from bitcorn_ray.cli.options import common_options
from bitcorn_ray.report.console import show
from bitcorn_ray.storage.location import shown_uri


@click.command()
@click.argument("config")
@click.option("--plot", help="Write a picture of the folds over time to this page.")
@common_options
def folds(config: str, plot: str | None, as_json: bool, address: str | None) -> None:
    """Show how walk-forward folds cut the bars that a configuration names; nothing is trained.

    CONFIG is a YAML file with the bars (db, symbol or symbols, timeframe), the model's horizons and the section
    `folds`: train, validation, test, step, window, purge, embargo, ...

    \b
    Example:
      bitcorn folds sweep.yaml
      bitcorn folds sweep.yaml --plot folds.html --json
    """
    from bitcorn_ray.report.folds import folds_table, write_folds
    from bitcorn_ray.tuning.plan_folds import plan_folds

    plan = plan_folds(config).to_json()
    if plot is not None:
        write_folds(plan, plot)
    shown = {**plan, **({"plot": shown_uri(plot)} if plot else {})}
    show(shown, lambda: (folds_table(plan), f"picture: {shown_uri(plot)}" if plot else None), as_json)
