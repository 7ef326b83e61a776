"""Commands on models: train, forecast, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bitcorn_ray.cli.options import cache_dir_option, common_options, integers, ray_for, say
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import features_table, forecast_table, plain_rows, progress, show

__all__ = ["demo", "forecast", "train"]


@click.command()
@click.option("--config", "config_file", help="YAML file of a RunConfig; the options here go before it.")
@click.option("--db", help="SQLite database of bars.")
@click.option("--symbol", help="Symbol to train on, such as BTCUSDT.")
@click.option("--timeframe", help="Timeframe to train on, such as 1h.")
@click.option("--features", "system", help="Feature system.  [default: v2]")
@click.option("--horizons", help="Bars ahead, separated by commas.  [default: 1,4,12]")
@click.option("--seq-len", type=int, help="Bars a window.  [default: 64]")
@click.option("--hidden-size", type=int, help="Units of the LSTM.  [default: 64]")
@click.option(
    "--epochs", type=int, help="Most epochs; training stops early where validation no longer improves.  [default: 5]"
)
@click.option("--workers", type=int, help="Ray workers.  [default: 1]")
@click.option("--gpus", type=float, help="GPUs for each worker.  [default: 0]")
@click.option("--out", help="Folder for the run.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is there already.")
@cache_dir_option
@common_options
def train(
    config_file: str | None,
    system: str | None,
    horizons: str | None,
    seq_len: int | None,
    hidden_size: int | None,
    epochs: int | None,
    overwrite: bool,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
    **fields: Any,
) -> None:
    """Train a multi-horizon LSTM on the features of one partition, on Ray Train.

    \b
    Example:
      bitcorn train --db market.db --symbol BTCUSDT --timeframe 1h --epochs 5 --out models/run_001
    """
    from bitcorn_ray.config import RunConfig
    from bitcorn_ray.learning.runs import is_run, require_writable
    from bitcorn_ray.training_service import epoch_line, request_from_config, train_on_ray

    config = RunConfig.load(
        config_file,
        {
            **fields,
            "features": system,
            "model": {"horizons": integers(horizons, "--horizons"), "seq_len": seq_len, "hidden_size": hidden_size},
            "training": {"epochs": epochs},
        },
    )
    require_writable(config.out)
    if not overwrite and Path(config.out).is_dir() and any(Path(config.out).iterdir()):
        what = "a run" if is_run(config.out) else "something"
        raise BitcornError(f"{config.out} holds {what} already: give another --out, or --overwrite")
    request = request_from_config(config, cache_dir=cache_dir, log_fn=say)
    epochs_to_run = config.training.epochs
    with ray_for(address), progress("training", epochs_to_run, as_json) as advance:

        def on_epoch(result: Any) -> None:
            say(epoch_line(result, epochs_to_run))
            advance(f"validation loss {result.val_loss:.4f}")

        result = train_on_ray(
            request,
            artifacts_dir=Path(config.out),
            workers=config.workers,
            gpus=config.gpus,
            on_epoch=on_epoch,
            log_fn=say,
        )
    summary = {
        "run": config.out,
        **{k: result.metadata[k] for k in ("symbol", "timeframe", "best_epoch", "val_loss", "history")},
    }
    show(
        summary,
        lambda: f"best epoch {summary['best_epoch']}, validation loss {summary['val_loss']:.4f}; run in {config.out}",
        as_json,
    )


@click.command()
@click.argument("run")
@click.option("--db", required=True, help="SQLite database of bars.")
@click.option("--symbol", help="Symbol to forecast.  [default: the one trained on]")
@common_options
def forecast(run: str, db: str, symbol: str | None, as_json: bool, address: str | None) -> None:
    """Forecast from the last bar of a database: one row a horizon, with 80 % and 95 % bands.

    \b
    Example:
      bitcorn forecast models/run_001 --db market.db --json
    """
    from bitcorn_ray.data_loader import load_market_data
    from bitcorn_ray.forecaster import Forecaster

    forecaster = Forecaster.load(run)
    metadata = forecaster.run.metadata
    market = load_market_data(db, symbol or metadata["symbol"], metadata["timeframe"])
    rows = plain_rows(forecaster.predict(market.dataframe).to_dict("records"))
    first = rows[0]
    close = market.dataframe["close"].iloc[-1]
    title = f"{first['symbol']} {first['timeframe']}, last bar {first['cutoff']}, close {close:g}"
    show({"run": run, "forecast": rows}, lambda: forecast_table(rows), as_json, title)


@click.command()
@click.option("--out", default="demo", show_default=True, help="Folder for the simulated market and what comes of it.")
@common_options
def demo(out: str, as_json: bool, address: str | None) -> None:
    """Run everything on a simulated market, from files of bars to a forecast, in about a minute.

    \b
    Example:
      bitcorn demo --out demo
    """
    from bitcorn_ray.demo import run_demo

    with ray_for(address):
        result = run_demo(Path(out), log_fn=say)
    rows = plain_rows(result["forecast"])
    show(
        {**result, "forecast": rows},
        lambda: (features_table(result["partitions"]), forecast_table(rows)),
        as_json,
        f"SIMULATED market in {out}: not real prices",
    )
