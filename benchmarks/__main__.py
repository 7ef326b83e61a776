"""`python -m benchmarks [NAME ...] [--json] [--write]`."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.names import BENCHMARKS, find_benchmark
from benchmarks.page import PAGE, put_sections, render_section
from benchmarks.results import RESULTS, Result


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--write", is_flag=True, help="Keep each result in benchmarks/results and on docs/benchmarks.md.")
def main(names: tuple[str, ...], as_json: bool, write: bool) -> None:
    """Measure the named benchmarks, by default all, each beside its reference."""
    results = []
    for name in names or BENCHMARKS:
        click.echo(f"measuring {name}", err=True)
        figures = find_benchmark(name)()
        if figures:  # else it has said what it lacks here
            results.append(Result.of(name, figures))
            if write:  # at once: what was measured is not lost where a later benchmark fails
                _write(results[-1])
    if as_json:
        print(json.dumps([result.to_json() for result in results], indent=1, ensure_ascii=False))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    for result in results:
        console.print(Markdown(render_section(result)))


def _write(result: Result) -> None:
    """Keep the result, and put it in its place on the page; the sections of others stay."""
    result.save(RESULTS)
    page = put_sections(PAGE.read_text(encoding="utf-8"), {result.name: render_section(result)})
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
