"""Commands on single runs: train, runs, reproduce."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from bitcorn_ray.cli.options import (
    OrderedGroup,
    cache_dir_option,
    clean_option,
    common_options,
    integers,
    listed,
    look_in_working_folder,
    map_option,
    ray_if,
    say,
    system_of,
    table_option,
)
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.registry import KINDS
from bitcorn_ray.report.cleaning import cleaning_line
from bitcorn_ray.report.console import show
from bitcorn_ray.report.lineage import lineage_tables, reproduction_tables
from bitcorn_ray.report.runs import comparison_tables, run_table, runs_table
from bitcorn_ray.report.training import training_progress
from bitcorn_ray.storage.location import Location, shown_uri


@click.command()
@click.option("--config", "config_file", help="YAML file of a RunConfig; command-line options override it.")
@click.option("--db", help="Database of bars, or a file or folder of them.")
@click.option("--symbol", help="Symbol to train on, such as BTCUSDT.")
@click.option("--symbols", help="Symbols to train one model on, separated by commas.")
@click.option("--timeframe", help="Timeframe to train on, such as 1h.")
@click.option("--features", "system", help="Feature system.  [default: v2]")
@click.option("--horizons", help="Bars ahead, separated by commas.  [default: 1,4,12]")
@click.option("--seq-len", type=int, help="Bars per window.  [default: 64]")
@click.option("--model", "kind", help=f"Kind of model: {', '.join(KINDS)}, or module:Class.  [default: lstm]")
@click.option("--hidden-size", type=int, help="Units of each layer of an LSTM or GRU.  [default: 64]")
@click.option(
    "--epochs", type=int, help="Maximum epochs; stops early when the validation loss stops improving.  [default: 5]"
)
@click.option("--test-frac", type=float, help="Fraction of the latest windows reserved for `evaluate`.  [default: 0]")
@click.option("--deterministic", is_flag=True, default=None, help="The same seed gives the same run, bit for bit.")
@click.option(
    "--workers",
    help="Ray workers; 1:4 for as many of these as there is room for, 0 to train without Ray.  [default: 1]",
)
@click.option("--gpus", type=float, help="GPUs for each worker.  [default: 0]")
@click.option("--out", help="Folder for the run.")
@click.option("--resume", is_flag=True, help="Resume an interrupted training.")
@click.option("--overwrite", is_flag=True, help="Replace the existing contents of the folder.")
@table_option
@map_option
@clean_option
@cache_dir_option
@common_options
def train(
    config_file: str | None,
    system: str | None,
    symbols: str | None,
    horizons: str | None,
    seq_len: int | None,
    kind: str | None,
    hidden_size: int | None,
    epochs: int | None,
    test_frac: float | None,
    deterministic: bool | None,
    workers: str | None,
    resume: bool,
    overwrite: bool,
    mapping: tuple[str, ...],
    clean: str | None,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
    **fields: Any,
) -> None:
    """Train a model of several horizons on one or more partitions, on Ray Train.

    \b
    Example:
      bitcorn train --db market.db --symbol BTCUSDT --timeframe 1h --epochs 5 --out models/run_001
      bitcorn train --db market.db --symbols BTCUSDT,ETHUSDT --timeframe 1h --out models/run_002 --resume
      bitcorn train --db market.db --symbol BTCUSDT --timeframe 4h --clean gaps=forward:3 --out models/run_003
      bitcorn train --db market.db --symbol BTCUSDT --timeframe 1h --model strong_har --out models/run_004
    """
    from bitcorn_ray.market.policy import parse_policy
    from bitcorn_ray.models.registry import model_class
    from bitcorn_ray.sources.columns import parse_mapping
    from bitcorn_ray.sources.source import open_source
    from bitcorn_ray.training.config import RunConfig
    from bitcorn_ray.training.train import epoch_line, require_free, train_from_config

    config = RunConfig.load(
        config_file,
        {
            **fields,
            "symbols": listed(symbols),
            "features": system,
            "workers": _workers(workers),
            "mapping": parse_mapping(mapping),
            "clean": None if clean is None else parse_policy(clean),
            "model": {
                "kind": kind,
                "horizons": integers(horizons, "--horizons"),
                "seq_len": seq_len,
                "hidden_size": hidden_size,
            },
            "training": {"epochs": epochs, "test_frac": test_frac, "deterministic": deterministic},
        },
    )
    require_free(config.out, resume=resume, overwrite=overwrite)
    open_source(config.db)  # what is not there is said before Ray has started
    epochs_to_run = config.training.epochs if model_class(config.model.kind).traits.iterative else 1
    with ray_if(bool(config.workers), address), training_progress(epochs_to_run, as_json) as (advance, finish):

        def on_epoch(result: Any) -> None:
            say(epoch_line(result, epochs_to_run))
            finish(result.epoch, result.val_loss)

        trained = train_from_config(
            config,
            cache_dir=cache_dir,
            resume=resume,
            on_epoch=on_epoch,
            on_progress=lambda told: advance(told.epoch, told.done / told.windows, told.loss, told.samples_per_second),
            log_fn=say,
        )
    told = ("symbol", "timeframe", "partitions", "best_epoch", "val_loss", "history", "cleaning")
    summary = {"run": shown_uri(config.out), **{name: trained.metadata[name] for name in told}}
    best = f"best epoch {summary['best_epoch']}, validation loss {summary['val_loss']:.4f}; run in {summary['run']}"
    cleaned = (summary["cleaning"] or {"partitions": {}})["partitions"]
    show(summary, lambda: (*(cleaning_line(*each) for each in cleaned.items()), best), as_json)


def _workers(text: str | None) -> int | tuple[int, ...] | None:
    """Read 2 or 1:4. Raises BitcornError for anything else."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(":"))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2):
        raise BitcornError(f"--workers is {text!r}: give a whole number, or the least and the most such as 1:4")
    return numbers[0] if len(numbers) == 1 else numbers


@click.group(cls=OrderedGroup)
def runs() -> None:
    """Look at trained models, compare them, and import those of the older system."""


@runs.command("ls")
@click.argument("folder", default="models")
@common_options
def runs_ls(folder: str, as_json: bool, address: str | None) -> None:
    """List the runs in a folder and in the folders inside it, newest first.

    \b
    Example:
      bitcorn runs ls models
    """
    from bitcorn_ray.training.run import find_runs

    rows = []
    root = Location.of(folder)
    for name in find_runs(folder):
        place = root.child(name) if name else root
        try:
            rows.append({"name": name or ".", **_summary(place.address)})
        except BitcornError as error:
            rows.append({"name": name or ".", "run": place.shown, "created": None, "error": str(error)})
            say(str(error))
    rows.sort(key=lambda row: row["created"] or "", reverse=True)
    shown = shown_uri(folder)
    show({"folder": shown, "runs": rows}, lambda: runs_table(rows) if rows else f"no runs in {shown}", as_json)


@runs.command("show")
@click.argument("run")
@click.option("--lineage", is_flag=True, help="Say what it was made of: data, code, configuration, versions, machines.")
@common_options
def runs_show(run: str, lineage: bool, as_json: bool, address: str | None) -> None:
    """Say everything about one run: data, features, network, training, losses, calibration.

    With --json: all of its metadata, or all of its lineage. `bitcorn reproduce` makes it again from that.

    \b
    Example:
      bitcorn runs show models/run_001
      bitcorn runs show models/run_001 --lineage --json
    """
    from bitcorn_ray.training.lineage import run_lineage
    from bitcorn_ray.training.run import read_metadata

    if lineage:
        recorded = run_lineage(run)
        return show(recorded, lambda: lineage_tables(recorded), as_json)
    row = _summary(run)
    show(read_metadata(run) if as_json else row, lambda: run_table(row), as_json)


@runs.command("compare")
@click.argument("several", nargs=-1, required=True, metavar="RUN RUN...")
@common_options
def runs_compare(several: Sequence[str], as_json: bool, address: str | None) -> None:
    """Say in what two or more runs differ, with their validation losses side by side.

    \b
    Example:
      bitcorn runs compare models/run_001 models/run_002
    """
    from bitcorn_ray.training.summary import comparison

    if len(several) < 2:
        raise click.UsageError("give two runs or more")
    result = comparison([_summary(run) for run in several])
    show(result, lambda: comparison_tables(result), as_json)


@runs.command("import")
@click.argument("folder")
@click.option("--out", required=True, help="Folder for the run.")
@click.option("--trust-pickle", is_flag=True, help="Unpickle the scaler, which can run any code its writer put there.")
@click.option("--system", default="v2", show_default=True, help="Feature system that computes its features.")
@click.option("--timeframe", help="Timeframe of its bars, such as 1h, where its JSON file does not say it.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is there already.")
@common_options
def runs_import(
    folder: str,
    out: str,
    trust_pickle: bool,
    system: str,
    timeframe: str | None,
    overwrite: bool,
    as_json: bool,
    address: str | None,
) -> None:
    """Make a run of a trained model of the older system: model.pt, a pickled scaler and a JSON file.

    It forecasts what it did. As the older system kept no scores, its bands start on the bars that are forecast from,
    and are infinite until there are enough of these.

    \b
    Example:
      bitcorn runs import old/BTCUSDT_1h --trust-pickle --out models/old
    """
    from bitcorn_ray.training.legacy import import_older
    from bitcorn_ray.training.run import is_run, run_storage, save_run

    target = run_storage(out)
    target.require_writable()
    if not overwrite and target.names():
        what = "a run" if is_run(out) else "something"
        raise BitcornError(f"{target.shown} holds {what} already: give another --out, or --overwrite")
    found = system_of(system)
    run = import_older(folder, feature_system=found.spec, timeframe=timeframe, trust_pickle=trust_pickle)
    if absent := sorted(set(run.metadata["feature_cols"]) - set(found.features)):
        raise BitcornError(
            f"the model was trained on {', '.join(absent)}, which {found.spec} does not have: name its system with "
            "--system"
        )
    save_run(run, out)
    say(f"imported {shown_uri(folder)} to {shown_uri(out)}")
    row = _summary(out)
    show(row, lambda: run_table(row), as_json)


def _summary(run: str) -> dict[str, Any]:
    from bitcorn_ray.training.run import read_metadata
    from bitcorn_ray.training.summary import summary

    return summary(shown_uri(run), read_metadata(run))


@click.command()
@click.argument("run")
@click.option("--source", help="Source of the bars, if they have moved.  [default: the recorded one]")
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
