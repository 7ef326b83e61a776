"""Commands that forecast: forecast, watch."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitcorn_ray.cli import options
from bitcorn_ray.cli.session import connect_ray, exit_with_failures, load_system, print_status, settings, show
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import plain_rows, progress
from bitcorn_ray.report.forecasts import WatchScreen, forecast_table, skill_table
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.storage.location import Location, local_file, shown_uri

if TYPE_CHECKING:
    from bitcorn_ray.forecasting.batch import PartitionForecast
    from bitcorn_ray.forecasting.forecaster import Forecaster
    from bitcorn_ray.forecasting.forecasts import Forecasts

_interval = options.amount({"ms": 1e-3, "s": 1, "m": 60, "h": 3_600})


@click.command()
@click.argument("run")
@options.source()
@options.symbols
@click.option("--last", type=click.IntRange(1), help="Forecast from each of the last N bars.  [default: 1]")
@click.option("--since", help="Forecast from every bar since a time, such as 2026-01-31.")
@click.option(
    "--horizons",
    callback=options.integers,
    help="Bars ahead, between those trained on.  [default: all of these]",
)
@click.option("--unfinished", is_flag=True, help="Forecast from a last bar that is still open, too.")
@click.option("--out", help="Parquet file for all forecasts.")
@click.option("--plot", help="HTML file for a fan chart, which opens offline.")
@click.option("--gpus", type=float, default=0.0, help="GPUs for each model.  [default: 0]")
@options.changed_code
@options.cache_dir
@options.common
@options.source_options
def forecast(
    run: str,
    source: str,
    symbols: list[str] | None,
    last: int | None,
    since: str | None,
    horizons: list[int] | None,
    unfinished: bool,
    out: str | None,
    plot: str | None,
    gpus: float,
    allow_changed_code: bool,
    cache_dir: str | None,
    source_options: SourceOptions,
) -> None:
    """Forecast from the last bar of each partition, from its last bars, or from all of its history.

    SOURCE is a SQLite database, a Parquet or CSV file, or a folder of such files. By default the symbols are those of
    the training. Bars are repaired as in the training. A last bar that is still open is left out. Bars without a
    forecast are counted by reason. Exits with status 2 if a partition has none; the others are written.

    \b
    Example:
      bitcorn forecast models/run_001 market.db
      bitcorn forecast models/run_001 market.db --since 2025-01-01 --out forecasts.parquet
      bitcorn forecast models/run_001 market.db --last 200 --plot fan.html
    """
    from bitcorn_ray.forecasting.batch import plan_forecasts, run_forecasts, write_parquet
    from bitcorn_ray.report.forecasts import bars_to_draw, fan_panels, write_fan

    if out and Location.of(out).address == Location.of(source).address:
        raise BitcornError(f"--out is {shown_uri(out)}, which is the source of bars: give another name")
    forecaster = _load_forecaster(run, allow_changed_code)
    plan = plan_forecasts(
        forecaster,
        source,
        symbols=symbols,
        last=last,
        since=since,
        horizons=horizons,
        cache_dir=cache_dir,
        keep_bars=bars_to_draw(horizons or forecaster.run.config.horizons) if plot else 0,
        source_options=source_options,
        unfinished=unfinished,
    )
    on_ray = plan.worth_ray or bool(gpus) or bool(settings().address)
    with connect_ray(on_ray), progress("forecasting", len(plan.jobs), settings().as_json) as advance:
        results = run_forecasts(plan, lambda result: advance(str(result.partition)), on_ray=on_ray, gpus=gpus)
    done = [(result, result.forecasts) for result in results if result.forecasts is not None]
    successful = [result for result, _ in done]
    written = write_parquet(successful, out) if out and done else 0
    if plot and done:
        write_fan(fan_panels(successful), plot)
    for result, forecasts in done:
        _print_left_out(result, forecasts)
    rows = [] if out else [row for _, forecasts in done for row in plain_rows(forecasts.to_table().to_pylist())]
    show(
        {
            "run": shown_uri(run),
            "source": shown_uri(source),
            **({"out": shown_uri(out), "rows": written} if out else {"forecast": rows}),
            "plot": plot and shown_uri(plot),
            "left_out": {str(result.partition): forecasts.left_out for result, forecasts in done},
            "failed": {str(result.partition): result.error for result in results if result.error},
            "notes": list(forecaster.notes),
        },
        lambda _: tuple(item for _, forecasts in done for item in _last_forecast(forecasts)),
    )
    exit_with_failures(f"{result.partition} has no forecast: {result.error}" for result in results if result.error)


def _print_left_out(result: PartitionForecast, forecasts: Forecasts) -> None:
    if forecasts.left_out:
        counts = ", ".join(f"{reason} for {count:,}" for reason, count in forecasts.left_out.items())
        print_status(f"{result.partition}: {sum(forecasts.left_out.values()):,} bars have no forecast ({counts})")
    if result.note:
        print_status(f"{result.partition}: {result.note}")


def _last_forecast(forecasts: Forecasts) -> tuple[Any, ...]:
    """Return a title and the table of the last forecast of a partition."""
    rows = plain_rows(forecasts.to_table().slice((len(forecasts) - 1) * len(forecasts.horizons)).to_pylist())
    last = rows[0]
    title = f"{forecasts.partition}, last bar {last['cutoff']}, close {forecasts.close[-1]:g}, {last['sample']}"
    if len(forecasts) > 1:
        title += f"; the last of {len(forecasts):,} cutoffs"
    return title, forecast_table(rows)


@click.command()
@click.argument("run")
@click.argument("source")
@options.symbols
@click.option(
    "--interval", callback=_interval, default="5s", show_default=True, help="Polling interval, such as 500ms or 1m."
)
@click.option("--once", is_flag=True, help="Poll once, catch up on missed bars, and exit.")
@click.option("--max-bars", type=click.IntRange(1), help="Exit after forecasts from this many bars.")
@click.option("--out", help="The journal, a JSON Lines file.  [default: watch.jsonl in the run's folder]")
@options.changed_code
@options.common
@options.source_options
def watch(
    run: str,
    source: str,
    symbols: Sequence[str] | None,
    interval: float,
    once: bool,
    max_bars: int | None,
    out: str | None,
    allow_changed_code: bool,
    source_options: SourceOptions,
) -> None:
    """Forecast at every new bar of a source, and record the outcomes of the forecasts.

    Forecasts and outcomes are appended to a journal. A later watch continues it: it catches up on missed bars and
    forecasts from no bar twice. Only closed bars are forecast from. Ctrl-C ends it without damage. With --json each
    entry of the journal is printed at once.

    \b
    Example:
      bitcorn watch models/run_001 market.db --interval 10s
    """
    from bitcorn_ray.forecasting.watch import Watcher

    forecaster = _load_forecaster(run, allow_changed_code)
    journal = _journal(run, out)
    forecast_bars = 0
    as_json = settings().as_json
    title = f"{shown_uri(run)} watches {shown_uri(source)}; journal {journal}; Ctrl-C ends"
    with Watcher(forecaster, source, journal, symbols, source_options) as watcher:
        screen = None if as_json else WatchScreen(title)
        try:
            with screen or nullcontext():
                while True:
                    entries = watcher.poll()
                    forecast_bars += sum(entry["kind"] != "outcome" for entry in entries)
                    for entry in entries if as_json else ():
                        click.echo(json.dumps(entry))
                    for partition, error in watcher.errors.items():
                        print_status(f"{partition}: {error}")
                    if screen:
                        screen.update(entries, watcher.skill())
                    if once or (max_bars is not None and forecast_bars >= max_bars):
                        break
                    time.sleep(interval)
        except KeyboardInterrupt:
            print_status(f"stopped; {journal} is complete, and the same command continues it")
        if not as_json:
            show({}, lambda _: skill_table(watcher.skill()))
        failed = dict(watcher.errors)
    exit_with_failures(f"{partition} is not watched: {error}" for partition, error in failed.items())


def _journal(run: str, out: str | None) -> Path:
    """Return the file of the journal. Raises BitcornError for a URI, because an object cannot be appended to."""
    return local_file(out or Location.of(run).child("watch.jsonl").address, "journal", "name one with --out")


def _load_forecaster(run: str, allow_changed_code: bool) -> Forecaster:
    """Load a run with its feature system, which may be in the working folder, and print its notes."""
    from bitcorn_ray.forecasting.forecaster import Forecaster
    from bitcorn_ray.training.run import read_metadata

    spec = read_metadata(run)["feature_system"]
    system = load_system(spec) if spec else None
    forecaster = Forecaster.load(run, system=system, allow_changed_code=allow_changed_code)
    for note in forecaster.notes:
        print_status(f"note: {note}")
    return forecaster


COMMANDS = (forecast, watch)
