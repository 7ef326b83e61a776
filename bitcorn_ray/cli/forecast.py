"""Commands that forecast: forecast, watch."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitcorn_ray.cli.options import (
    amount,
    cache_dir_option,
    common_options,
    end_with_failures,
    integers,
    listed,
    ray_if,
    reading_options,
    say,
    system_of,
)
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import forecast_table, plain_rows, progress, show
from bitcorn_ray.report.watch import WatchScreen, skill_table
from bitcorn_ray.storage.location import Location, local_file, shown_uri

if TYPE_CHECKING:
    from bitcorn_ray.forecasting.batch import PartitionForecast
    from bitcorn_ray.forecasting.forecaster import Forecaster
    from bitcorn_ray.sources.options import Reading

_changed_code = click.option(
    "--allow-changed-code", is_flag=True, help="Forecast although the code of the features changed since the training."
)


@click.command()
@click.argument("run")
@click.argument("source", required=False)
@click.option("--db", help="The source, as an option.")
@click.option("--symbols", "--symbol", help="Only these, separated by commas.  [default: those trained on]")
@click.option("--last", type=click.IntRange(1), help="Forecast from each of the last N bars.  [default: 1]")
@click.option("--since", help="Forecast from every bar since a time, such as 2026-01-31.")
@click.option("--horizons", help="Bars ahead, between those trained on.  [default: those]")
@click.option("--out", help="Parquet file for all forecasts.")
@click.option("--plot", help="HTML file for a fan chart, which opens offline.")
@click.option("--gpus", type=float, default=0.0, help="GPUs for each model.  [default: 0]")
@_changed_code
@cache_dir_option
@common_options
@reading_options
def forecast(
    run: str,
    source: str | None,
    db: str | None,
    symbols: str | None,
    last: int | None,
    since: str | None,
    horizons: str | None,
    out: str | None,
    plot: str | None,
    gpus: float,
    allow_changed_code: bool,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
    reading: Reading,
) -> None:
    """Forecast from the last bar of each partition, from many, or from all of its history.

    SOURCE is a SQLite database, a Parquet or CSV file, or a folder of such files. What has no forecast, as bars are
    missing for one, is counted and told. Bars are repaired as those were that the run was trained on. Ends with status
    2 where a partition has none; the others are kept.

    \b
    Example:
      bitcorn forecast models/run_001 market.db
      bitcorn forecast models/run_001 market.db --since 2025-01-01 --out forecasts.parquet
      bitcorn forecast models/run_001 market.db --last 200 --plot fan.html
    """
    from bitcorn_ray.forecasting.batch import plan_forecasts, run_forecasts, write_parquet
    from bitcorn_ray.report.fan import bars_to_draw, fan_panels, write_fan

    if (source is None) == (db is None):
        raise click.UsageError("give the source of bars once: as SOURCE or as --db")
    if out and Location.of(out).address == Location.of(source or db or "").address:
        raise BitcornError(f"--out is {shown_uri(out)}, where the bars are: give another name")
    forecaster = load_forecaster(run, allow_changed_code)
    asked = integers(horizons, "--horizons")
    plan = plan_forecasts(
        forecaster,
        source or db or "",
        symbols=listed(symbols),
        last=last,
        since=since,
        horizons=asked,
        cache_dir=cache_dir,
        keep_bars=bars_to_draw(asked or forecaster.run.config.horizons) if plot else 0,
        reading=reading,
    )
    on_ray = plan.worth_ray or bool(gpus) or bool(address)
    with ray_if(on_ray, address), progress("forecasting", len(plan.jobs), as_json) as advance:
        done = run_forecasts(plan, lambda each: advance(str(each.partition)), on_ray=on_ray, gpus=gpus)
    there = [each for each in done if each.forecasts is not None]
    written = write_parquet(there, out) if out and there else 0
    if plot and there:
        write_fan(fan_panels(there), plot)
    _tell(there)
    files = {"out": shown_uri(out), "rows": written} if out else {"forecast": _rows(there)}
    result = {
        "run": shown_uri(run),
        "source": shown_uri(source or db or ""),
        **files,
        "plot": plot and shown_uri(plot),
        "left_out": {str(each.partition): each.forecasts.left_out for each in there if each.forecasts},
        "failed": {str(each.partition): each.error for each in done if each.error},
        "notes": list(forecaster.notes),
    }
    show(result, lambda: tuple(item for each in there for item in _shown(each)), as_json)
    end_with_failures(f"{each.partition} has no forecast: {each.error}" for each in done if each.error)


@click.command()
@click.argument("run")
@click.argument("source")
@click.option("--symbols", help="Only these, separated by commas.  [default: those trained on]")
@click.option("--interval", default="5s", show_default=True, help="Polling interval, such as 500ms, 5s or 1m.")
@click.option("--once", is_flag=True, help="Poll once, catch up on missed bars, and exit.")
@click.option("--max-bars", type=click.IntRange(1), help="Exit after forecasts from this many bars.")
@click.option("--out", help="The journal, a JSON Lines file.  [default: watch.jsonl in the run's folder]")
@_changed_code
@common_options
@reading_options
def watch(
    run: str,
    source: str,
    symbols: str | None,
    interval: str,
    once: bool,
    max_bars: int | None,
    out: str | None,
    allow_changed_code: bool,
    as_json: bool,
    address: str | None,
    reading: Reading,
) -> None:
    """Forecast at every new bar of a source, and keep how the forecasts turn out.

    Forecasts and outcomes go to a journal, from which a later watch goes on: it catches up on missed bars and forecasts
    from none twice. Bars are forecast from once they have closed. Ctrl-C ends it and leaves all whole. With --json
    each entry of the journal is printed as it is made.

    \b
    Example:
      bitcorn watch models/run_001 market.db --interval 10s
    """
    from bitcorn_ray.forecasting.watch import Watcher

    seconds = amount(interval, {"ms": 1e-3, "s": 1, "m": 60, "h": 3_600}, "--interval") or 0.0
    forecaster = load_forecaster(run, allow_changed_code)
    journal = _journal(run, out)
    made = 0
    with Watcher(forecaster, source, journal, listed(symbols), reading) as watcher:
        view = (
            None
            if as_json
            else WatchScreen(f"{shown_uri(run)} watches {shown_uri(source)}; journal {journal}; Ctrl-C ends")
        )
        try:
            with view or nullcontext():
                while True:
                    entries = watcher.poll()
                    made += sum(entry["kind"] != "outcome" for entry in entries)
                    for entry in entries if as_json else ():
                        click.echo(json.dumps(entry))
                    for partition, error in watcher.errors.items():
                        say(f"{partition}: {error}")
                    if view:
                        view.update(entries, watcher.skill())
                    if once or (max_bars is not None and made >= max_bars):
                        break
                    time.sleep(seconds)
        except KeyboardInterrupt:
            say(f"ended; {journal} is whole, and the same command goes on from it")
        if not as_json:
            show({}, lambda: skill_table(watcher.skill()), as_json)
        failed = dict(watcher.errors)
    end_with_failures(f"{partition} is not watched: {error}" for partition, error in failed.items())


def _journal(run: str, out: str | None) -> Path:
    """File of the journal. Raises BitcornError for a URI: lines can only be added to a file here."""
    place = out or Location.of(run).child("watch.jsonl").address
    return local_file(place, "journal", "name one with --out")


def load_forecaster(run: str, allow_changed_code: bool) -> Forecaster:
    """Load a run, its feature system looked for in the working folder too, and say what there is to note."""
    from bitcorn_ray.forecasting.forecaster import Forecaster
    from bitcorn_ray.training.run import read_metadata

    spec = read_metadata(run)["feature_system"]
    forecaster = Forecaster.load(run, system=system_of(spec) if spec else None, allow_changed_code=allow_changed_code)
    for note in forecaster.notes:
        say(f"note: {note}")
    return forecaster


def _tell(done: Sequence[PartitionForecast]) -> None:
    """Say what was left out, on standard error."""
    for each in done:
        if each.forecasts is not None and each.forecasts.left_out:
            counts = ", ".join(f"{reason} for {count:,}" for reason, count in each.forecasts.left_out.items())
            say(f"{each.partition}: {sum(each.forecasts.left_out.values()):,} bars have no forecast ({counts})")
        if each.note:
            say(f"{each.partition}: {each.note}")


def _rows(done: Sequence[PartitionForecast]) -> list[dict[str, Any]]:
    return [row for each in done if each.forecasts for row in plain_rows(each.forecasts.to_table().to_pylist())]


def _shown(each: PartitionForecast) -> tuple[Any, ...]:
    """The last cutoff's forecast of a partition under its title."""
    done = each.forecasts
    assert done is not None
    rows = plain_rows(done.to_table().slice((len(done) - 1) * len(done.horizons)).to_pylist())
    title = f"{done.partition}, last bar {rows[0]['cutoff']}, close {done.close[-1]:g}, {rows[0]['sample']}"
    if len(done) > 1:
        title += f"; the last of {len(done):,} cutoffs"
    return title, forecast_table(rows)
