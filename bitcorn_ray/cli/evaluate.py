"""The command that evaluates a run out of sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bitcorn_ray.cli import options
from bitcorn_ray.cli.session import connect_ray, exit_with_failures, print_status, settings, show
from bitcorn_ray.report.evaluation import evaluation_tables
from bitcorn_ray.sources.options import SourceOptions
from bitcorn_ray.storage.location import Location, shown_uri
from bitcorn_ray.storage.storage import publish_file
from bitcorn_ray.training.artifacts import strict_json

if TYPE_CHECKING:
    from bitcorn_ray.training.config import RunConfig


@click.command()
@click.argument("run")
@options.source(required=False)
@options.symbols
@click.option("--out", help="JSON file for the whole evaluation.")
@options.changed_code
@options.cache_dir
@options.common
@options.source_options
def evaluate(
    run: str,
    source: str | None,
    symbols: list[str] | None,
    out: str | None,
    allow_changed_code: bool,
    cache_dir: str | None,
    source_options: SourceOptions,
) -> None:
    """Evaluate a run on bars that its training has not seen, and compare it with standard baselines.

    RUN is the folder of a run, or the YAML file of a configuration. Its run is trained first if it does not exist, with
    the last tenth of the windows reserved unless `test_frac` is set. By default the symbols are those of the training.

    \b
    Example:
      bitcorn evaluate models/run_001 market.db
      bitcorn evaluate run.yaml --out evaluation.json
    """
    from bitcorn_ray.evaluation.evaluate import evaluate as evaluate_run

    if Location.of(run).info() is not None:
        config = _trained(run, cache_dir)
        if source is None and source_options == SourceOptions():
            source_options = config.source_options
        run, source = config.out, source or config.db
    elif source is None:
        raise click.UsageError("give the source of bars: as SOURCE or as --db")
    done = evaluate_run(
        run,
        source,
        symbols=symbols,
        cache_dir=cache_dir,
        on_done=lambda name: print_status(f"evaluated {name}"),
        address=settings().address,
        allow_changed_code=allow_changed_code,
        source_options=source_options,
    )
    result = done.to_json()
    if out is not None:
        publish_file(out, "evaluation", strict_json(result))
    for note in done.notes:
        print_status(note)
    show(result, lambda _: evaluation_tables(done), f"{shown_uri(run)}, out of sample")
    exit_with_failures(f"{name}: {error}" for name, error in done.errors.items())


def _trained(file: str, cache_dir: str | None) -> RunConfig:
    """Return the configuration of a file, and train its run if it does not exist."""
    from bitcorn_ray.training.config import RunConfig
    from bitcorn_ray.training.run import is_run
    from bitcorn_ray.training.train import epoch_line, train_from_config

    config = RunConfig.load(file, {})
    if is_run(config.out):
        print_status(f"{shown_uri(config.out)} is already trained: evaluating that run")
        return config
    if not config.training.test_frac:
        config = RunConfig.load(file, {"training": {"test_frac": 0.1}})
        print_status("the configuration has no test_frac: the last tenth of the windows is reserved for the test")
    with connect_ray(bool(config.workers)):
        train_from_config(
            config,
            cache_dir=cache_dir,
            on_epoch=lambda result: print_status(epoch_line(result, config.training.epochs)),
            log_fn=print_status,
        )
    return config


COMMANDS = (evaluate,)
