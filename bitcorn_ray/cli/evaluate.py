"""The command that judges a run out of sample."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bitcorn_ray.cli.options import (
    cache_dir_option,
    common_options,
    end_with_failures,
    listed,
    ray_if,
    reading_options,
    say,
)
from bitcorn_ray.report.console import show
from bitcorn_ray.report.evaluation import evaluation_tables
from bitcorn_ray.sources.options import Reading
from bitcorn_ray.storage.location import Location, shown_uri
from bitcorn_ray.storage.storage import publish_file

if TYPE_CHECKING:
    from bitcorn_ray.training.config import RunConfig


@click.command()
@click.argument("run")
@click.argument("source", required=False)
@click.option("--db", help="The source, as an option.")
@click.option("--symbols", help="Only these, separated by commas.  [default: those trained on]")
@click.option("--out", help="JSON file to write the whole evaluation to.")
@click.option("--allow-changed-code", is_flag=True, help="Evaluate although the code of the features has changed.")
@cache_dir_option
@common_options
@reading_options
def evaluate(
    run: str,
    source: str | None,
    db: str | None,
    symbols: str | None,
    out: str | None,
    allow_changed_code: bool,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
    reading: Reading,
) -> None:
    """Judge a run on bars that its training has not seen, beside what a professional would forecast.

    RUN is the folder of a run, or the YAML file of a configuration: its run is trained first where it is not there,
    with the last tenth of the windows held out where `test_frac` says nothing else.

    \b
    Example:
      bitcorn evaluate models/run_001 market.db
      bitcorn evaluate run.yaml --out evaluation.json
    """
    from bitcorn_ray.evaluation.evaluate import evaluate as judge_run
    from bitcorn_ray.training.artifacts import strict_json

    if source is not None and db is not None:
        raise click.UsageError("give the source of bars once: as SOURCE or as --db")
    if Location.of(run).info() is not None:
        config = _trained(run, cache_dir, address)
        if source is None and db is None:
            source, reading = config.db, config.reading if reading == Reading() else reading
        run, source = config.out, source or db or config.db
    elif (source := source or db) is None:
        raise click.UsageError("give the source of bars: as SOURCE or as --db")
    done = judge_run(
        run,
        source,
        symbols=listed(symbols),
        cache_dir=cache_dir,
        on_done=lambda name: say(f"judged {name}"),
        address=address,
        allow_changed_code=allow_changed_code,
        reading=reading,
    )
    result = done.to_json()
    if out is not None:
        publish_file(out, "evaluation", strict_json(result))
    for note in done.notes:
        say(note)
    show(
        json.loads(strict_json(result)), lambda: evaluation_tables(result), as_json, f"{shown_uri(run)}, out of sample"
    )
    end_with_failures(f"{name}: {why}" for name, why in done.errors.items())


def _trained(file: str, cache_dir: str | None, address: str | None) -> RunConfig:
    """Read a configuration, and train its run where it is not there."""
    from bitcorn_ray.training.config import RunConfig
    from bitcorn_ray.training.run import is_run
    from bitcorn_ray.training.train import epoch_line, train_from_config

    config = RunConfig.load(file, {})
    if is_run(config.out):
        say(f"{shown_uri(config.out)} holds a run: it is judged as it is")
        return config
    if not config.training.test_frac:
        config = RunConfig.load(file, {"training": {"test_frac": 0.1}})
        say("the configuration holds no windows out: the last tenth of them will test")
    with ray_if(bool(config.workers), address):
        train_from_config(
            config,
            cache_dir=cache_dir,
            on_epoch=lambda result: say(epoch_line(result, config.training.epochs)),
            log_fn=say,
        )
    return config
