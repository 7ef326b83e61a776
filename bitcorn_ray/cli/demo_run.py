"""The whole way on a simulated market: files of bars, database, features, training, forecast.

Everything is written into one folder with a note that it is simulated; a folder that holds anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bitcorn_ray.data_loader import compute_features, load_market_data
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.sources.ingest import ingest_files
from bitcorn_ray.storage.location import local_file
from bitcorn_ray.storage.storage import Storage
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.train import epoch_line, train_from_config

_SYMBOLS = {"SIMONE": 100.0, "SIMTWO": 2_500.0, "SIMTHREE": 0.25}
_TRAINED = "SIMONE"
_BARS = 2 * 365 * 24
_NOTE = "SIMULATED.txt"


def run_demo(folder: str | Path, log_fn: Callable[[str], None]) -> dict[str, Any]:
    """Run it in ``folder`` on the running Ray; may be repeated. Returns plain values, the forecast's times excepted.

    Raises BitcornError where the folder holds files that no demonstration wrote.
    """
    folder = local_file(folder, "demonstration", "give a folder here").absolute()
    Storage(folder, "demonstration", "give another --out").require_writable()
    if folder.exists() and not (folder / _NOTE).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BitcornError(f"{folder} holds something else: give an empty or new folder with --out")
    (folder / "bars").mkdir(parents=True, exist_ok=True)
    (folder / _NOTE).write_text("Everything in this folder is simulated. No price here was ever traded.\n")
    log_fn(f"simulating {_BARS:,} one-hour bars of {', '.join(_SYMBOLS)}")
    files = [_write_bars(folder / "bars", symbol, seed) for seed, symbol in enumerate(_SYMBOLS)]
    database, cache_dir = folder / "market.db", folder / "cache"
    ingested = ingest_files(files, database)
    log_fn(f"ingested {sum(item.rows for item in ingested):,} bars into {database}")
    partitions = compute_features(database, cache_dir=cache_dir)
    if failed := [status for status in partitions if status.error]:
        raise BitcornError("; ".join(f"{status.symbol} {status.timeframe}: {status.error}" for status in failed))
    log_fn(f"features of {len(partitions)} partitions in {cache_dir}")
    config = RunConfig(
        db=str(database),
        symbol=_TRAINED,
        timeframe="1h",
        out=str(folder / "run"),
        model=LSTMConfig(hidden_size=32),
        training=TrainingConfig(epochs=4),
    )
    result = train_from_config(
        config,
        cache_dir=cache_dir,
        on_epoch=lambda epoch: log_fn(epoch_line(epoch, config.training.epochs)),
        log_fn=log_fn,
    )
    market = load_market_data(config.db, _TRAINED, config.timeframe)
    forecast = Forecaster.load(config.out).predict(market.dataframe)
    return {
        "folder": str(folder),
        "partitions": [asdict(status) for status in partitions],
        "val_loss": result.metadata["val_loss"],
        "forecast": forecast.to_dict("records"),
    }


def _write_bars(folder: Path, symbol: str, seed: int) -> Path:
    bars = simulate_bars(_BARS, seed=seed, price=_SYMBOLS[symbol])
    columns = bars.columns()
    path = folder / f"{symbol}_1h.parquet"
    pq.write_table(pa.table({"ts": columns.pop("timestamp"), **columns}), path)
    return path
