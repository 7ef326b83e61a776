"""The command that says what the trials of a sweep are worth."""

from __future__ import annotations

import json

import click

from bitcorn_ray.cli.options import cache_dir_option, common_options, look_in_working_folder
from bitcorn_ray.report.console import show
from bitcorn_ray.report.sweeps import leaderboard_tables
from bitcorn_ray.storage.location import shown_uri


@click.command()
@click.argument("sweep")
@click.option("--level", default=0.01, show_default=True, help="Of significance, of the whole verdict.")
@cache_dir_option
@common_options
def leaderboard(sweep: str, level: float, cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Compare the trials of a sweep on test windows with each other and with baselines, all trials counted.

    SWEEP is the folder that `bitcorn tune` wrote. The verdict says whether any trial knows something about volatility
    or direction beyond the luck of so many tries, and which baselines the best one beats.

    \b
    Example:
      bitcorn leaderboard sweeps/first
      bitcorn leaderboard sweeps/first --json
    """
    from bitcorn_ray.training.artifacts import strict_json
    from bitcorn_ray.tuning.leaderboard import leaderboard as judge_sweep

    look_in_working_folder()
    result = json.loads(strict_json(judge_sweep(sweep, level=level, cache_dir=cache_dir).to_json()))
    show(result, lambda: leaderboard_tables(result), as_json, f"{shown_uri(sweep)}, on test windows")
