"""The command that trains."""

from __future__ import annotations

from typing import Any

import click

from bitcorn_ray.cli.options import (
    cache_dir_option,
    clean_option,
    common_options,
    integers,
    listed,
    map_option,
    ray_if,
    say,
    table_option,
)
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.registry import KINDS
from bitcorn_ray.report.cleaning import cleaning_line
from bitcorn_ray.report.console import show
from bitcorn_ray.report.training import training_progress
from bitcorn_ray.storage.location import shown_uri


@click.command()
@click.option("--config", "config_file", help="YAML file of a RunConfig; the options here go before it.")
@click.option("--db", help="Database of bars, or a file or folder of them.")
@click.option("--symbol", help="Symbol to train on, such as BTCUSDT.")
@click.option("--symbols", help="Several that train one model, separated by commas.")
@click.option("--timeframe", help="Timeframe to train on, such as 1h.")
@click.option("--features", "system", help="Feature system.  [default: v2]")
@click.option("--horizons", help="Bars ahead, separated by commas.  [default: 1,4,12]")
@click.option("--seq-len", type=int, help="Bars a window.  [default: 64]")
@click.option("--model", "kind", help=f"Kind of model: {', '.join(KINDS)}, or module:Class.  [default: lstm]")
@click.option("--hidden-size", type=int, help="Units of each layer of an LSTM or GRU.  [default: 64]")
@click.option(
    "--epochs", type=int, help="Most epochs; training stops early where validation no longer improves.  [default: 5]"
)
@click.option("--test-frac", type=float, help="Share of the windows, the latest, kept for `evaluate`.  [default: 0]")
@click.option("--deterministic", is_flag=True, default=None, help="The same seed gives the same run, bit for bit.")
@click.option(
    "--workers",
    help="Ray workers; 1:4 for as many of these as there is room for, 0 to train without Ray.  [default: 1]",
)
@click.option("--gpus", type=float, help="GPUs for each worker.  [default: 0]")
@click.option("--out", help="Folder for the run.")
@click.option("--resume", is_flag=True, help="Go on with a training that was cut short.")
@click.option("--overwrite", is_flag=True, help="Replace what is in the folder already.")
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
    from bitcorn_ray.sources.source import source_files
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
    source_files(config.db)  # what is not there is said before Ray has started
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
