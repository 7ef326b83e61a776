"""Front door for the command line: `bitcorn ...`, thin shells over the Python functions.

Results go to standard output, as tables or with --json as JSON; progress and errors go to standard error. Bad input is
one line and exit status 2; --debug shows the traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import click

from bitcorn_ray import __version__
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import (
    cache_table,
    features_table,
    forecast_table,
    ingest_table,
    plain_rows,
    progress,
    show,
    size,
)

__all__ = ["main"]


_cache_dir = click.option("--cache-dir", help="Cache folder.  [default: BITCORN_CACHE_DIR, else cache/data_pipeline]")


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the work, not of the alphabet


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bitcorn")
def main() -> None:
    """From raw OHLCV bars to a multi-horizon forecaster: ingest, features, train, forecast.

    \b
    Example:
      bitcorn ingest BTCUSDT_1h.parquet --db market.db
      bitcorn features --db market.db
      bitcorn train --db market.db --symbol BTCUSDT --timeframe 1h --out models/run_001
      bitcorn forecast models/run_001 --db market.db
    """


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command, and turn a BitcornError into one line and exit status 2."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option(
        "--address",
        help="Ray cluster to use where work is distributed.  [default: RAY_ADDRESS, else a private local Ray]",
    )
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @wraps(command)
    def wrapped(*args: Any, debug: bool, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except BitcornError as error:
            if debug:
                raise
            click.echo(f"bitcorn: {' '.join(str(error).split())}", err=True)
            sys.exit(2)

    return wrapped


@main.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--db", required=True, help="SQLite database to write to; created where it is missing.")
@click.option("--symbol", help="Symbol of files that do not say it in a column or in their name.")
@click.option("--timeframe", help="Timeframe of files that do not say it, such as 1h.")
@_common
def ingest(
    files: Sequence[str], db: str, symbol: str | None, timeframe: str | None, as_json: bool, address: str | None
) -> None:
    """Upsert Parquet and CSV files of bars into a SQLite database.

    \b
    Example:
      bitcorn ingest bars/BTCUSDT_1h.parquet bars/ETHUSDT_1h.csv --db market.db
    """
    from bitcorn_ray.market.ingest import ingest_files

    with progress("reading", len(files), as_json) as advance:
        done = ingest_files(files, db, symbol, timeframe, on_file=advance)
    rows = [{**asdict(item), **asdict(item.partition)} for item in done]
    for row in rows:
        del row["partition"]
    show({"db": db, "partitions": rows}, lambda: ingest_table(rows), as_json)


@main.command()
@click.option("--db", required=True, help="SQLite database of bars.")
@click.option("--symbols", help="Only these, separated by commas.")
@click.option("--timeframes", help="Only these, separated by commas.")
@click.option("--system", default="v2", show_default=True, help="Feature system.")
@_cache_dir
@_common
def features(
    db: str,
    symbols: str | None,
    timeframes: str | None,
    system: str,
    cache_dir: str | None,
    as_json: bool,
    address: str | None,
) -> None:
    """Compute the features of every partition of a database into the cache, in parallel on Ray.

    Ends with status 2 where a partition failed; the others are kept.

    \b
    Example:
      bitcorn features --db market.db --symbols BTCUSDT,ETHUSDT --timeframes 1h
    """
    from bitcorn_ray.data_loader import compute_features
    from bitcorn_ray.market.database import list_partitions
    from bitcorn_ray.market.partition import select_partitions

    some_symbols, some_timeframes = _listed(symbols), _listed(timeframes)
    # Bad input is known before Ray takes seconds to start.
    total = len(select_partitions(list_partitions(db), some_symbols, some_timeframes))
    with _ray(address), progress("computing features", total, as_json) as advance:
        done = compute_features(
            db,
            symbols=some_symbols,
            timeframes=some_timeframes,
            system=system,
            cache_dir=cache_dir,
            on_done=lambda status: advance(f"{status.symbol} {status.timeframe}"),
        )
    rows = [asdict(status) for status in done]
    show({"db": db, "system": system, "partitions": rows}, lambda: features_table(rows), as_json)
    failed = [status for status in done if status.error]
    for status in failed:
        click.echo(f"bitcorn: {status.symbol} {status.timeframe} failed: {status.error}", err=True)
    if failed:
        sys.exit(2)


@main.group(cls=_Group)
def cache() -> None:
    """Look at the feature cache, and clear it."""


@cache.command("ls")
@_cache_dir
@_common
def cache_ls(cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """List the entries, newest first.

    \b
    Example:
      bitcorn cache ls
    """
    entries = _cache(cache_dir).entries()
    show({"entries": entries}, lambda: cache_table(entries), as_json)


@cache.command("stats")
@_cache_dir
@_common
def cache_stats(cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Say how many entries there are and how much room they take.

    \b
    Example:
      bitcorn cache stats --json
    """
    store = _cache(cache_dir)
    entries = store.entries()
    total = sum(entry["bytes"] for entry in entries)
    stats = {
        "folder": str(store.folder),
        "entries": len(entries),
        "bytes": total,
        "rows": sum(e["rows"] for e in entries),
    }
    show(stats, lambda: f"{len(entries)} entries, {stats['rows']:,} rows, {size(total)} in {store.folder}", as_json)


@cache.command("clear")
@click.option("--db", help="Only what this database uses and no other.")
@_cache_dir
@_common
def cache_clear(db: str | None, cache_dir: str | None, as_json: bool, address: str | None) -> None:
    """Remove entries: those of one database, or all.

    \b
    Example:
      bitcorn cache clear --db market.db
    """
    count = _cache(cache_dir).invalidate(db)
    show({"cleared": count}, lambda: f"cleared {count} entries", as_json)


@main.command()
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
@_cache_dir
@_common
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
    from bitcorn_ray.learning.runs import is_run
    from bitcorn_ray.training_service import epoch_line, request_from_config, train_on_ray

    config = RunConfig.load(
        config_file,
        {
            **fields,
            "features": system,
            "model": {"horizons": _integers(horizons, "--horizons"), "seq_len": seq_len, "hidden_size": hidden_size},
            "training": {"epochs": epochs},
        },
    )
    if is_run(config.out) and not overwrite:
        raise BitcornError(f"{config.out} holds a run already: give another --out, or --overwrite")
    request = request_from_config(config, cache_dir=cache_dir, log_fn=_say)
    epochs_to_run = config.training.epochs
    with _ray(address), progress("training", epochs_to_run, as_json) as advance:

        def on_epoch(result: Any) -> None:
            _say(epoch_line(result, epochs_to_run))
            advance(f"validation loss {result.val_loss:.4f}")

        result = train_on_ray(
            request,
            artifacts_dir=Path(config.out),
            workers=config.workers,
            gpus=config.gpus,
            on_epoch=on_epoch,
            log_fn=_say,
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


@main.command()
@click.argument("run")
@click.option("--db", required=True, help="SQLite database of bars.")
@click.option("--symbol", help="Symbol to forecast.  [default: the one trained on]")
@_common
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


@main.command()
@click.option("--out", default="demo", show_default=True, help="Folder for the simulated market and what comes of it.")
@_common
def demo(out: str, as_json: bool, address: str | None) -> None:
    """Run everything on a simulated market, from files of bars to a forecast, in about a minute.

    \b
    Example:
      bitcorn demo --out demo
    """
    from bitcorn_ray.demo import run_demo

    with _ray(address):
        result = run_demo(Path(out), log_fn=_say)
    rows = plain_rows(result["forecast"])
    show(
        {**result, "forecast": rows},
        lambda: (features_table(result["partitions"]), forecast_table(rows)),
        as_json,
        f"SIMULATED market in {out}: not real prices",
    )


def _say(line: str) -> None:
    click.echo(line, err=True)


def _ray(address: str | None) -> Any:
    from bitcorn_ray.on_ray.session import ray_session

    _say("starting Ray" if not address else f"connecting to Ray at {address}")
    return ray_session(address)


def _cache(cache_dir: str | None) -> Any:
    from bitcorn_ray.cache.store import FeatureCache
    from bitcorn_ray.data_loader import cache_folder

    return FeatureCache(cache_folder(cache_dir))


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [item.strip() for item in text.split(",") if item.strip()]


def _integers(text: str | None, option: str) -> list[int] | None:
    try:
        return None if text is None else [int(item) for item in text.split(",")]
    except ValueError:
        raise BitcornError(f"{option} is {text!r}: give whole numbers separated by commas, such as 1,4,12") from None


if __name__ == "__main__":
    main()
