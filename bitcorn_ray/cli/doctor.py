"""The command that checks an installation."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from bitcorn_ray.cli.options import cache_dir_option, common_options
from bitcorn_ray.report.console import show
from bitcorn_ray.report.doctor import checks_table


@click.command()
@cache_dir_option
@common_options
def doctor(cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Check an installation: Python, packages, Ray and all its nodes, GPUs, shared memory, storage, clocks.

    What is not as it should be is told with its remedy. Ends with status 1 where anything fails.

    \b
    Example:
      bitcorn doctor
      bitcorn doctor --address head:6379 --cache-dir s3://bucket/cache
      bitcorn --address http://head:8265 --submit doctor --cache-dir s3://bucket/cache
    """
    from bitcorn_ray.on_ray.doctor import doctor as examine

    rows = [asdict(check) for check in examine(address, cache_dir)]
    show({"checks": rows}, lambda: checks_table(rows), as_json)
    sys.exit(1 if any(row["state"] == "fail" for row in rows) else 0)
