"""The command that writes a page about a run, a sweep, a cache or a source."""

from __future__ import annotations

from dataclasses import asdict

import click

from bitcorn_ray.cli.options import (
    cache_dir_option,
    common_options,
    listed,
    look_in_working_folder,
    reading_options,
    say,
)
from bitcorn_ray.report.console import show, size
from bitcorn_ray.sources.options import Reading


@click.command()
@click.argument("what")
@click.argument("source", required=False)
@click.option("--out", default="report.html", show_default=True, help="File or URI of the page.")
@click.option("--symbols", help="Of the source only these, separated by commas.")
@click.option("--level", default=0.01, show_default=True, help="Significance level of a sweep's verdict.")
@click.option("--allow-changed-code", is_flag=True, help="Judge a run although the code of its features has changed.")
@cache_dir_option
@common_options
@reading_options
def report(
    what: str,
    source: str | None,
    out: str,
    symbols: str | None,
    level: float,
    allow_changed_code: bool,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
    reading: Reading,
) -> None:
    """Write one page that opens offline: about a run, a sweep, an evolution, the feature cache, or a source of bars.

    WHAT is a folder or URI of one of these, or a database or file of bars. A run is judged on the bars of SOURCE.

    \b
    Example:
      bitcorn report models/run_001 market.db --out run.html
      bitcorn report sweeps/first --out sweep.html
      bitcorn report cache/data_pipeline
    """
    from bitcorn_ray.report.write import write_report

    look_in_working_folder()
    done = write_report(
        what,
        source,
        out=out,
        symbols=listed(symbols),
        cache_dir=cache_dir,
        reading=reading,
        level=level,
        address=address,
        allow_changed_code=allow_changed_code,
        on_done=lambda name: say(f"done: {name}"),
    )
    show(asdict(done), lambda: f"report on the {done.kind} {done.what}: {done.page}, {size(done.bytes)}", as_json)
