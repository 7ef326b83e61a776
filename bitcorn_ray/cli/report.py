"""The command that writes a page about a run, a sweep, a cache or a source."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from bitcorn_ray.cli import options
from bitcorn_ray.cli.session import import_from_working_folder, print_status, settings, show
from bitcorn_ray.report.table import size


@click.command()
@click.argument("what")
@click.argument("source", required=False)
@click.option("--out", default="report.html", show_default=True, help="File or URI of the page.")
@options.symbols
@click.option("--level", default=0.01, show_default=True, help="Significance level of a sweep's verdict.")
@options.changed_code
@options.cache_dir
@options.common
@options.source_options
def report(what: str, source: str | None, **arguments: Any) -> None:
    """Write one page that opens offline: about a run, a sweep, an evolution, the feature cache, or a source of bars.

    WHAT is a folder or URI of one of these, or a database or file of bars. A run is evaluated on the bars of SOURCE.

    \b
    Example:
      bitcorn report models/run_001 market.db --out run.html
      bitcorn report sweeps/first --out sweep.html
      bitcorn report cache/data_pipeline
    """
    from bitcorn_ray.report.write import write_report

    import_from_working_folder()
    done = write_report(
        what, source, address=settings().address, on_done=lambda name: print_status(f"done: {name}"), **arguments
    )
    show(asdict(done), lambda _: f"report on the {done.kind} {done.what}: {done.page}, {size(done.bytes)}")


COMMANDS = (report,)
