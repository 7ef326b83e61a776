"""The command that makes a run again."""

from __future__ import annotations

import json
import sys

import click

from bitcorn_ray.cli.options import cache_dir_option, common_options, look_in_working_folder, ray_if, say
from bitcorn_ray.report.console import show
from bitcorn_ray.report.lineage import reproduction_tables


@click.command()
@click.argument("run")
@click.option("--source", help="Of the bars, where these have moved.  [default: the recorded one]")
@click.option("--out", help="Folder or URI to keep the new run in.")
@cache_dir_option
@common_options
def reproduce(
    run: str, source: str | None, out: str | None, cache_dir: str | None, as_json: bool, address: str | None
) -> None:
    """Train a run again from what it recorded, and say in what the two differ.

    Bars that were appended since are left out; those that have changed are told, and so are code, versions and
    machines. In deterministic mode, with all of these the same, losses and weights are equal to the bit, else losses
    to 1e-6. Ends with status 1 where they are not.

    \b
    Example:
      bitcorn reproduce models/run_001
      bitcorn reproduce s3://bucket/run --source s3://bucket/bars --json
    """
    from bitcorn_ray.training.artifacts import strict_json
    from bitcorn_ray.training.lineage import run_lineage
    from bitcorn_ray.tuning.reproduce import reproduce as make_again

    look_in_working_folder()
    with ray_if(run_lineage(run)["cluster"]["ray"], address):
        done = make_again(run, source=source, out=out, cache_dir=cache_dir, log_fn=say)
    result = json.loads(strict_json(done.to_json()))
    show(result, lambda: reproduction_tables(result), as_json)
    sys.exit(0 if done.equal else 1)
