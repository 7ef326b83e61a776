"""Forecasts: all of a history, one more bar, and where the features come through the cache.

The model is not trained, which takes no time away: 70,000 one-hour bars, the 14 features of v2, 2 layers of 64 units,
windows of 64 bars, horizons 1, 4, 12 and 24.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch

from benchmarks.bars import BARS, settled
from benchmarks.timing import Figure, measure
from bitcorn_ray.datasets.dataset import PartitionBars, build_dataset
from bitcorn_ray.datasets.folds import Shares
from bitcorn_ray.datasets.load import feature_identity
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.forecasting.batch import plan_forecasts, run_forecasts
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.market.simulate import simulate_bars
from bitcorn_ray.models.base import EpochResult, FitResult
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.models.neural.model import NetworkModel
from bitcorn_ray.models.neural.network import Network
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.training.run import assemble_run, save_run

__all__ = ["forecasts", "make_run", "model_alone"]

_HOUR = 3_600_000
_MODEL = LSTMConfig(horizons=(1, 4, 12, 24))


def forecasts() -> list[Figure]:
    """Forecast 70,000 windows on one thread and on all, one bar more, and a source's last bar."""
    bars = simulate_bars(BARS + 100, seed=0, gaps=0)
    threads = torch.get_num_threads()
    with _folder() as folder:
        run = make_run(folder / "run", bars.take(slice(BARS)))
        frame, last = bars.to_frame(), iter(range(BARS + 1, BARS + 101))
        live = Forecaster.load(run)
        live.predict(frame.iloc[:BARS])
        windows = f"{BARS:,} windows x {len(_MODEL.horizons)} horizons"

        def history() -> object:
            return Forecaster.load(run).history(frame.iloc[:BARS])

        try:
            torch.set_num_threads(1)
            bare = measure("the model alone on one batch again and again", lambda: model_alone(live, BARS), runs=2)
            figures = [
                measure(f"history, {windows}, one thread", history, 15.0, runs=2).beside(bare),
                bare,
                measure("Forecaster.predict, one bar more", lambda: live.predict(frame.iloc[: next(last)]), 0.010, 50),
            ]
        finally:
            torch.set_num_threads(threads)
        figures.append(measure(f"history, {windows}, {threads} threads", history, 15.0, runs=2))
        figures.append(_last_bar_of_a_source(run, bars, folder))
        return figures


@torch.inference_mode()
def model_alone(forecaster: Forecaster, windows: int) -> None:
    """Let the model forecast about as many windows, all of them the same batch of 256, which is there already."""
    model, batch = cast(NetworkModel, forecaster.run.model).network, 256
    window_BLF = torch.zeros(batch, forecaster.run.config.seq_len, len(forecaster.system.features))
    reference_B = torch.ones(batch)
    for _ in range(windows // batch):
        model(window_BLF, reference_B)


def _last_bar_of_a_source(run: Path, bars: Bars, folder: Path) -> Figure:
    """The last bar of a database to which a bar was added, as `bitcorn forecast` does it, without starting Python."""
    db, forecaster, seconds = folder / "market.db", Forecaster.load(run), []
    write_bars([("x", Partition("SIM", "1h"), bars.take(slice(BARS)))], db)
    for more in range(6):
        write_bars([("x", Partition("SIM", "1h"), bars.take(slice(BARS + more, BARS + more + 1)))], db)
        settled(db)
        started = time.perf_counter()
        run_forecasts(plan_forecasts(forecaster, db, cache_dir=folder / "cache"))
        seconds.append(time.perf_counter() - started)
    return Figure("a source's last bar, one chunk of features computed", tuple(seconds[1:]))


def make_run(folder: Path, bars: Bars) -> Path:
    """Save a run of an untrained model, calibrated on the last fifth of the bars."""
    system = find_system("v2")
    used = bars.take(slice(system.warmup_bars, None))
    matrix = np.ascontiguousarray(system.matrix(bars)[:, system.warmup_bars :].T)
    rows = PartitionBars(
        symbol="SIM",
        timeframe="1h",
        close=used.close,
        timestamp=used.timestamp,
        step=_HOUR,
    ).with_reference(_MODEL.reference_span)
    data, scaler, facts = build_dataset(matrix, [rows], _MODEL, Shares())
    torch.manual_seed(0)
    network = Network(matrix.shape[1], _MODEL)
    network.output_scale.copy_(torch.from_numpy(data.output_scale))
    losses = [0.0] * len(_MODEL.horizons)
    result = FitResult([EpochResult(1, 0.0, 0.0, losses, losses, True, 0.0, 0.0, 0.0)])
    about = {
        "symbol": "SIM",
        "timeframe": "1h",
        "feature_system": system.spec,
        "feature_version": system.version,
        "features": feature_identity(system.on_grid(_HOUR)),
        "data": facts,
    }
    model = NetworkModel(_MODEL, network.eval())
    run = assemble_run(model, result, data, scaler, TrainingConfig(), list(system.features), about)
    return save_run(run, folder)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
