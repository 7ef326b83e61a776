"""Commands on single runs: train, runs, reproduce."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from bitcorn_ray.cli import options
from bitcorn_ray.cli.session import connect_ray, import_from_working_folder, load_system, print_status, settings, show
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.registry import KINDS
from bitcorn_ray.report.console import training_progress
from bitcorn_ray.report.runs import comparison_tables, lineage_tables, reproduction_tables, run_facts, runs_table
from bitcorn_ray.report.sources import cleaning_line
from bitcorn_ray.storage.location import Location, shown_uri

_METADATA_SHOWN = ("symbol", "timeframe", "partitions", "best_epoch", "val_loss", "history", "cleaning")


@options.parsed
def _workers(text: str, option: str) -> int | tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(":"))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2):
        raise BitcornError(f"{option} is {text!r}: give a number of workers, or a range such as 1:4")
    return numbers[0] if len(numbers) == 1 else numbers


# A parameter is named after the field of the configuration that it sets: `model__seq_len` is seq_len of model.
@click.command()
@click.option("--config", "config_file", help="YAML file of a RunConfig; command-line options override it.")
@click.option("--db", help="Database of bars, or a file or folder of them.")
@click.option("--symbol", help="Symbol to train on, such as BTCUSDT.")
@click.option("--symbols", callback=options.names, help="Symbols to train one model on, separated by commas.")
@click.option("--timeframe", help="Timeframe to train on, such as 1h.")
@click.option("--features", help="Feature system.  [default: v2]")
@click.option(
    "--horizons",
    "model__horizons",
    callback=options.integers,
    help="Bars ahead, with commas.  [default: 1,4,12]",
)
@click.option("--seq-len", "model__seq_len", type=int, help="Bars per window.  [default: 64]")
@click.option("--model", "model__kind", help=f"Kind of model: {', '.join(KINDS)}, or module:Class.  [default: lstm]")
@click.option("--hidden-size", "model__hidden_size", type=int, help="Units per layer of an LSTM or GRU.  [default: 64]")
@click.option(
    "--epochs",
    "training__epochs",
    type=int,
    help="Maximum epochs; stops early when the validation loss stops improving.  [default: 5]",
)
@click.option(
    "--test-frac",
    "training__test_frac",
    type=float,
    help="Fraction of the latest windows reserved for `evaluate`.  [default: 0]",
)
@click.option(
    "--deterministic",
    "training__deterministic",
    is_flag=True,
    default=None,
    help="The same seed gives the same run, bit for bit.",
)
@click.option(
    "--workers",
    callback=_workers,
    help="Ray workers; 1:4 for as many of these as there is room for, 0 to train without Ray.  [default: 1]",
)
@click.option("--gpus", type=float, help="GPUs for each worker.  [default: 0]")
@click.option("--out", help="Folder for the run.")
@click.option("--resume", is_flag=True, help="Resume an interrupted training.")
@click.option("--overwrite", is_flag=True, help="Replace the existing contents of the folder.")
@options.table_name
@options.column_map
@options.time_format
@options.timezone
@options.clean
@options.cache_dir
@options.common
def train(config_file: str | None, resume: bool, overwrite: bool, cache_dir: str | None, **fields: Any) -> None:
    """Train a model of several horizons on one or more partitions, on Ray Train.

    \b
    Example:
      bitcorn train --db market.db --symbol BTCUSDT --timeframe 1h --epochs 5 --out models/run_001
      bitcorn train --db market.db --symbols BTCUSDT,ETHUSDT --timeframe 1h --out models/run_002 --resume
      bitcorn train --db market.db --symbol BTCUSDT --timeframe 4h --clean gaps=forward:3 --out models/run_003
      bitcorn train --db market.db --symbol BTCUSDT --timeframe 1h --model strong_har --out models/run_004
    """
    from bitcorn_ray.models.registry import model_class
    from bitcorn_ray.sources.source import open_source
    from bitcorn_ray.training.config import RunConfig
    from bitcorn_ray.training.train import epoch_line, require_free, train_from_config

    config = RunConfig.load(config_file, _nested(fields))
    require_free(config.out, resume=resume, overwrite=overwrite)
    open_source(config.db)  # report a missing source before Ray starts
    epochs = config.training.epochs if model_class(config.model.kind).traits.iterative else 1
    with connect_ray(bool(config.workers)), training_progress(epochs, settings().as_json) as (advance, finish):

        def on_epoch(result: Any) -> None:
            print_status(epoch_line(result, epochs))
            finish(result.epoch, result.val_loss)

        trained = train_from_config(
            config,
            cache_dir=cache_dir,
            resume=resume,
            on_epoch=on_epoch,
            on_progress=lambda step: advance(step.epoch, step.done / step.windows, step.loss, step.samples_per_second),
            log_fn=print_status,
        )

    def render(run: Mapping[str, Any]) -> tuple[str, ...]:
        cleaned = (run["cleaning"] or {"partitions": {}})["partitions"]
        best = f"best epoch {run['best_epoch']}, validation loss {run['val_loss']:.4f}; run in {run['run']}"
        return (*(cleaning_line(*partition) for partition in cleaned.items()), best)

    show({"run": shown_uri(config.out), **{name: trained.metadata[name] for name in _METADATA_SHOWN}}, render)


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with those of a section, such as `model__seq_len`, in a mapping of their own."""
    values: dict[str, Any] = {}
    for name, value in fields.items():
        section, _, field = name.rpartition("__")
        (values.setdefault(section, {}) if section else values)[field] = value
    return values


@click.group(cls=options.CommandGroup)
def runs() -> None:
    """List, show and compare trained models, and import those of the older system."""


@runs.command("ls")
@click.argument("folder", default="models")
@options.common
def runs_ls(folder: str) -> None:
    """List the runs in a folder and its subfolders, newest first.

    \b
    Example:
      bitcorn runs ls models
    """
    from bitcorn_ray.training.run import find_runs

    rows = []
    root = Location.of(folder)
    for name in find_runs(folder):
        location = root.child(name) if name else root
        try:
            rows.append({"name": name or ".", **_summary(location.address)})
        except BitcornError as error:
            rows.append({"name": name or ".", "run": location.shown, "created": None, "error": str(error)})
            print_status(str(error))
    rows.sort(key=lambda row: row["created"] or "", reverse=True)
    result = {"folder": root.shown, "runs": rows}
    show(result, lambda result: runs_table(result["runs"]) if rows else f"no runs in {root.shown}")


@runs.command("show")
@click.argument("run")
@click.option("--lineage", is_flag=True, help="Show the origin: data, code, configuration, versions, machines.")
@options.common
def runs_show(run: str, lineage: bool) -> None:
    """Show one run: data, features, network, training, losses, calibration.

    With --json: all of its metadata, or all of its lineage. `bitcorn reproduce` trains it again from its lineage.

    \b
    Example:
      bitcorn runs show models/run_001
      bitcorn runs show models/run_001 --lineage --json
    """
    from bitcorn_ray.training.lineage import run_lineage
    from bitcorn_ray.training.run import read_metadata

    if lineage:
        return show(run_lineage(run), lineage_tables)
    show(read_metadata(run) if settings().as_json else _summary(run), run_facts)


@runs.command("compare")
@click.argument("several", nargs=-1, required=True, metavar="RUN RUN...")
@options.common
def runs_compare(several: Sequence[str]) -> None:
    """Show the differences between two or more runs, with their validation losses side by side.

    \b
    Example:
      bitcorn runs compare models/run_001 models/run_002
    """
    from bitcorn_ray.training.summary import comparison

    if len(several) < 2:
        raise click.UsageError("give two runs or more")
    show(comparison([_summary(run) for run in several]), comparison_tables)


@runs.command("import")
@click.argument("folder")
@click.option("--out", required=True, help="Folder for the run.")
@click.option("--trust-pickle", is_flag=True, help="Unpickle the scaler, which can run any code its writer put there.")
@options.system
@click.option("--timeframe", help="Timeframe of its bars, such as 1h, if its JSON file lacks it.")
@click.option("--overwrite", is_flag=True, help="Replace an existing run.")
@options.common
def runs_import(folder: str, out: str, trust_pickle: bool, system: str, timeframe: str | None, overwrite: bool) -> None:
    """Import a trained model of the older system: model.pt, a pickled scaler and a JSON file.

    The run gives the same forecasts. The older system stored no scores. The bands therefore start on the bars that are
    forecast from, and are infinite until there are enough scores.

    \b
    Example:
      bitcorn runs import old/BTCUSDT_1h --trust-pickle --out models/old
    """
    from bitcorn_ray.training.legacy import import_older
    from bitcorn_ray.training.run import run_storage, save_run

    target = run_storage(out)
    target.require_writable()
    if not overwrite and target.names():
        raise BitcornError(f"{target.shown} is not empty: give another --out, or --overwrite")
    found = load_system(system)
    run = import_older(folder, feature_system=found.spec, timeframe=timeframe, trust_pickle=trust_pickle)
    if absent := sorted(set(run.metadata["feature_cols"]) - set(found.features)):
        raise BitcornError(
            f"the model was trained on {', '.join(absent)}, which {found.spec} does not have: name its system with "
            "--system"
        )
    save_run(run, out)
    print_status(f"imported {shown_uri(folder)} to {shown_uri(out)}")
    show(_summary(out), run_facts)


def _summary(run: str) -> dict[str, Any]:
    from bitcorn_ray.training.run import read_metadata
    from bitcorn_ray.training.summary import summary

    return summary(shown_uri(run), read_metadata(run))


@click.command()
@click.argument("run")
@click.option("--source", help="Source of the bars, if they have moved.  [default: the recorded one]")
@click.option("--out", help="Folder or URI to keep the new run in.")
@options.cache_dir
@options.common
def reproduce(run: str, source: str | None, out: str | None, cache_dir: str | None) -> None:
    """Train a run again from its lineage, and compare the two.

    Bars that were appended since are left out. Changed bars, code, versions and machines are reported. If none has
    changed, a deterministic run has the same losses and weights to the bit; otherwise losses agree to 1e-6. Exits with
    status 1 if they do not.

    \b
    Example:
      bitcorn reproduce models/run_001
      bitcorn reproduce s3://bucket/run --source s3://bucket/bars --json
    """
    from bitcorn_ray.training.lineage import run_lineage
    from bitcorn_ray.tuning.reproduce import reproduce as train_again

    import_from_working_folder()
    with connect_ray(run_lineage(run)["cluster"]["ray"]):
        done = train_again(run, source=source, out=out, cache_dir=cache_dir, log_fn=print_status)
    show(done.to_json(), lambda _: reproduction_tables(done))
    sys.exit(0 if done.equal else 1)


COMMANDS = (train, runs, reproduce)
