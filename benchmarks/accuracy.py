"""How accurate forecasts of the return are, ours and NeuralForecast's, on the same windows of real bars.

1. BTCUSDT 1h without the last fifth of its rows, which docs/skill.md keeps for its own test. The first 75 % of what is
   left trains, the next 12.5 % tell when to stop, the last 12.5 % test: 60, 10 and 10 % of all rows.
2. Both get windows of 64 bars of the same 14 features (v2), two layers, dropout 0.2, batches of 64 windows, and as many
   epochs at most. NeuralForecast forecasts the returns of the next 12 bars one by one, and their sum is its forecast of
   the return over 4 or 12; ours has a head a horizon.
3. A cutoff is judged where ours has a forecast and no bar is missing up to 12 bars ahead. NeuralForecast takes rows as
   they follow, so some of its training windows span missing bars; ours do not.

Volatility, which ours is made for, is not compared: NeuralForecast forecasts the series, or the distribution of each of
its bars, and no realised volatility over several.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.bars import REAL, fold_at_rows
from benchmarks.peers import run_peer
from benchmarks.timing import Figure
from bitcorn_ray.datasets.load import TrainingInputs, inputs_from_source
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.sources.files import read_file
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.training.job import TrainingJob

__all__ = ["Contender", "accuracy", "common_cutoffs", "compared"]

HORIZONS, WINDOW, BATCH = (1, 4, 12), 64, 64
_PARTITION, _HOUR = Partition("BTCUSDT", "1h"), 3_600_000
_KNOWN, _FIT, _VALIDATE = 0.8, 0.75, 0.875

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass
class Contender:
    """Forecasts of one model by seed: rows of the cutoffs (N,), log returns (N, H), and the seconds they took."""

    name: str
    peer: bool = True
    forecasts: list[tuple[Rows, Floats]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def accuracy(
    seeds: Sequence[int] = (0, 1, 2), epochs: int = 5, hidden: int = 64, trials: int = 8, rows: int | None = None
) -> list[Figure]:
    """RMSE and MAE of the return by horizon: ours, NeuralForecast's LSTM by either loss, and its AutoLSTM on Ray.

    trials: settings that AutoLSTM searches, with the first seed alone. rows: use only the last so many rows.
    NEURALFORECAST_PYTHON names the interpreter of an environment with neuralforecast 3.3; without it, or without the
    real bars, nothing is measured.
    """
    python, path = os.environ.get("NEURALFORECAST_PYTHON"), REAL / "bars" / "BTCUSDT_1h.parquet"
    if not python or not path.is_file():
        print("NEURALFORECAST_PYTHON names no interpreter with neuralforecast 3.3, or real bars lack: not measured")
        return []
    ((_, every),) = read_file(path)
    known = every.take(slice(int(_KNOWN * len(every))))
    bars = known.take(slice(-rows if rows else 0, None))
    ours = Contender("ours", peer=False)
    peers = {loss: Contender(f"NeuralForecast 3.3 LSTM, {loss.upper()}") for loss in ("mae", "mse")}
    auto = Contender(f"NeuralForecast 3.3 AutoLSTM, MSE, {trials} trials on Ray")
    with tempfile.TemporaryDirectory() as name:
        for seed in seeds:
            folder = Path(name) / str(seed)
            folder.mkdir()
            _ours(ours, bars, LSTMConfig(horizons=HORIZONS, hidden_size=hidden), _training(epochs, seed), folder)
            options = {"--hidden": hidden, "--seed": seed, "--steps": epochs * int(_FIT * len(bars)) // BATCH}
            for loss, peer in peers.items():
                _peer(peer, python, bars, {**options, "--loss": loss}, folder)
            if trials and seed == seeds[0]:
                _peer(auto, python, bars, {**options, "--loss": "mse", "--auto": trials}, folder)
    return compared(bars, [ours, *peers.values(), *([auto] if trials else [])])


def compared(bars: Bars, contenders: Sequence[Contender]) -> list[Figure]:
    """Errors of ours (the first) beside the best peer's, of the peers beside a forecast of zero; and the seconds."""
    cutoffs = common_cutoffs(bars, contenders)
    figures = list[Figure]()
    for kind in ("RMSE", "MAE"):
        for place, horizon in enumerate(HORIZONS):
            outcome = np.log(bars.close[cutoffs + horizon] / bars.close[cutoffs])
            what = f"{kind} of the return over {horizon} {'bar' if horizon == 1 else 'bars'}"
            zero = Figure(f"{what}, a forecast of zero", (_error(kind, outcome),), unit="bp")
            mine, *theirs = (
                Figure(f"{what}, {each.name}", _errors(kind, outcome, each, cutoffs, place), unit="bp", peer=each.peer)
                for each in contenders
            )
            best = min(theirs, key=lambda figure: figure.median)
            others = [each.beside(zero) for each in theirs if each is not best]
            figures += [mine.beside(best), best.beside(zero), *others, zero]
    mine, *theirs = (
        Figure(f"training and {len(cutoffs):,} forecasts, {each.name}", tuple(each.seconds), peer=each.peer)
        for each in contenders
    )
    return [*figures, mine.beside(theirs[0]), *theirs]


def common_cutoffs(bars: Bars, contenders: Sequence[Contender]) -> Rows:
    """Rows that every contender forecasts from with every seed, and after which no bar of the horizons is missing."""
    every = np.arange(len(bars) - max(HORIZONS))
    whole = every[bars.timestamp[every + max(HORIZONS)] - bars.timestamp[every] == max(HORIZONS) * _HOUR]
    return reduce(np.intersect1d, (rows for each in contenders for rows, _ in each.forecasts), whole)


def _errors(kind: str, outcome: Floats, contender: Contender, cutoffs: Rows, place: int) -> tuple[float, ...]:
    """Error of each seed's forecasts."""
    return tuple(
        _error(kind, outcome - returns[np.searchsorted(rows, cutoffs), place]) for rows, returns in contender.forecasts
    )


def _error(kind: str, residuals: Floats) -> float:
    """RMSE or MAE in basis points."""
    return 1e4 * float(np.sqrt(np.mean(residuals**2)) if kind == "RMSE" else np.mean(np.abs(residuals)))


def _training(epochs: int, seed: int) -> TrainingConfig:
    return TrainingConfig(epochs=epochs, patience=2, batch_size=BATCH, seed=seed)


def _ours(contender: Contender, bars: Bars, model: LSTMConfig, training: TrainingConfig, folder: Path) -> None:
    """Train with one seed and forecast the test rows."""
    write_bars([("bars", _PARTITION, bars)], folder / "market.db")
    first_tested = int(_VALIDATE * len(bars))
    fold = [fold_at_rows(int(_FIT * len(bars)), first_tested, len(bars), max(model.horizons))]

    def inputs() -> TrainingInputs:
        symbols, cache = [_PARTITION.symbol], folder / "cache"
        return inputs_from_source(
            folder / "market.db", symbols, _PARTITION.timeframe, "v2", model, fold, cache_dir=cache
        )

    started = time.perf_counter()
    TrainingJob(model=model, training=training, out=folder / "run").run(inputs)
    forecasts = Forecaster.load(folder / "run").forecast(bars, _PARTITION, first_tested)
    contender.seconds.append(time.perf_counter() - started)
    contender.forecasts.append((np.searchsorted(bars.timestamp, forecasts.cutoffs), forecasts.returns.astype(float)))


def _peer(contender: Contender, python: str, bars: Bars, options: Mapping[str, str | int], folder: Path) -> None:
    """Let NeuralForecast train with one seed and forecast the test rows, in a process of its own."""
    system = find_system("v2").on_grid(_HOUR)
    columns = dict(zip(system.features, system.matrix(bars)[:, system.warmup_bars :], strict=True))
    table = pd.DataFrame({"ret": columns.pop("log_ret_1"), **columns})
    table.to_parquet(folder / "table.parquet", index=False)
    count = len(bars)
    sizes = {"--validate": int(_VALIDATE * count) - int(_FIT * count), "--test": count - int(_VALIDATE * count)}
    told = {"--horizon": max(HORIZONS), "--window": WINDOW, **sizes, **options}
    arguments = ["table.parquet", "forecasts.parquet", *(part for option in told.items() for part in option)]
    report = run_peer(python, "neuralforecast_accuracy.py", arguments, folder)
    contender.seconds.append(float(report["seconds"]))
    contender.forecasts.append(_summed(pd.read_parquet(folder / "forecasts.parquet"), system.warmup_bars))


def _summed(forecasts: pd.DataFrame, first_row: int) -> tuple[Rows, Floats]:
    """Forecasts of single bars' returns as those over each horizon; the table's first row is this row of the bars."""
    steps = forecasts.pivot(index="cutoff", columns="ahead", values="forecast").sort_index().sort_index(axis=1)
    places = np.array(HORIZONS) - 1
    return steps.index.to_numpy(np.int64) + first_row, steps.to_numpy(float).cumsum(axis=1)[:, places]
