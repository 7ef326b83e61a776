"""The demo command: files of simulated bars, a database, features, a training, a forecast.

Everything is written into one folder with a note that it is simulated. A folder with any other content is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bitcorn_ray.cli import options
from bitcorn_ray.cli.session import connect_ray, print_status, show
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.report.console import plain_rows
from bitcorn_ray.report.features import features_table
from bitcorn_ray.report.forecasts import forecast_table
from bitcorn_ray.storage.location import local_file
from bitcorn_ray.storage.storage import Storage

if TYPE_CHECKING:
    from bitcorn_ray.features.receipts import PartitionStatus

_PRICES = {"SIMONE": 100.0, "SIMTWO": 2_500.0, "SIMTHREE": 0.25}
_BARS = 2 * 365 * 24
_NOTE = "SIMULATED.txt"


@click.command()
@click.option("--out", default="demo", show_default=True, help="Folder for the simulated market and all results.")
@options.common
def demo(out: str) -> None:
    """Run every step on a simulated market, from files of bars to a forecast, in about a minute.

    \b
    Example:
      bitcorn demo --out demo
    """
    with connect_ray():
        result, statuses = run_demo(out, print_status)
    show(
        result,
        lambda _: (features_table(statuses), forecast_table(result["forecast"])),
        f"SIMULATED market in {out}: not real prices",
    )


def run_demo(out: str | Path, log_fn: Callable[[str], None]) -> tuple[dict[str, Any], list[PartitionStatus]]:
    """Run all steps in a folder on the running Ray; may be repeated. Returns plain values, and the partitions.

    Raises BitcornError if the folder has files that no demo wrote.
    """
    from bitcorn_ray.data_loader import compute_features, load_market_data
    from bitcorn_ray.forecasting.forecaster import Forecaster
    from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
    from bitcorn_ray.sources.ingest import ingest_files
    from bitcorn_ray.training.config import RunConfig
    from bitcorn_ray.training.train import epoch_line, train_from_config

    folder = local_file(out, "demo", "give a folder on this machine").absolute()
    Storage(folder, "demo", "give another --out").require_writable()
    if folder.exists() and not (folder / _NOTE).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BitcornError(f"{folder} has files that no demo wrote: give an empty or new folder with --out")
    (folder / "bars").mkdir(parents=True, exist_ok=True)
    (folder / _NOTE).write_text("Everything in this folder is simulated. No price here was ever traded.\n")
    log_fn(f"simulating {_BARS:,} one-hour bars of {', '.join(_PRICES)}")
    files = [_write_bars(folder / "bars", symbol, seed) for seed, symbol in enumerate(_PRICES)]
    database, cache_dir = folder / "market.db", folder / "cache"
    ingested = ingest_files(files, database)
    log_fn(f"ingested {sum(item.rows for item in ingested):,} bars into {database}")
    partitions = compute_features(database, cache_dir=cache_dir)
    if failed := [status for status in partitions if status.error]:
        raise BitcornError("; ".join(f"{status.symbol} {status.timeframe}: {status.error}" for status in failed))
    log_fn(f"features of {len(partitions)} partitions in {cache_dir}")
    config = RunConfig(
        db=str(database),
        symbol="SIMONE",
        timeframe="1h",
        out=str(folder / "run"),
        model=LSTMConfig(hidden_size=32),
        training=TrainingConfig(epochs=4),
    )
    run = train_from_config(
        config,
        cache_dir=cache_dir,
        on_epoch=lambda epoch: log_fn(epoch_line(epoch, config.training.epochs)),
        log_fn=log_fn,
    )
    bars = load_market_data(config.db, "SIMONE", config.timeframe).dataframe
    result = {
        "folder": str(folder),
        "partitions": [asdict(status) for status in partitions],
        "val_loss": run.metadata["val_loss"],
        "forecast": plain_rows(Forecaster.load(config.out).predict(bars).to_dict("records")),
    }
    return result, partitions


def _write_bars(folder: Path, symbol: str, seed: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bitcorn_ray.market.simulate import simulate_bars

    columns = simulate_bars(_BARS, seed=seed, price=_PRICES[symbol]).columns()
    path = folder / f"{symbol}_1h.parquet"
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), path)
    return path


COMMANDS = (demo,)
