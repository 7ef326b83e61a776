"""How well volatility is forecast on real one-hour bars: one model for six symbols, against the strong HAR regression.

    python -m benchmarks.skill [--fold 0.7 0.8] [--seed N] [--leave-out SYMBOL] [--json]
    python -m benchmarks.skill --test

Each symbol is split by rows: fitted up to the fold's first share, judged up to its second one, less the longest
horizon. Rows beyond are not even loaded. ``--test`` fits on the first 70 %, starts the bands on the next 10 %, and
judges the last 20 %: a range that was opened as often as docs/skill.md says, and that no choice was made on.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.bars import REAL, fold_at_rows
from bitcorn_ray.datasets.load import inputs_from_source
from bitcorn_ray.evaluation.evaluate import evaluated_windows
from bitcorn_ray.forecasting.forecaster import Forecaster
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.metrics.losses import forecast_metrics
from bitcorn_ray.metrics.skill import EvaluatedWindows, evaluate_skill
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig
from bitcorn_ray.sources.files import read_file
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.training.job import TrainingJob

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "XRPUSDT", "DOGEUSDT", "SOLUSDT")
HORIZONS = (1, 4, 12, 24)
FEATURES = "vol"
MODEL = LSTMConfig(horizons=HORIZONS, seq_len=2, hidden_size=64, num_layers=1, dropout=0.5, skip=True)
TRAINING = TrainingConfig(
    epochs=2,
    patience=2,
    batch_size=512,
    learning_rate=2e-3,
    weight_decay=0.1,
    loss="robust_nll",
    schedule="cosine",
    warmup=0.6,
    ema=0.999,
    deterministic=True,
)
_STRONG = "strong HAR"


@click.command()
@click.option("--fold", nargs=2, type=float, default=(0.7, 0.8), show_default=True, help="Shares of the rows.")
@click.option("--test", is_flag=True, help="Open the last fifth of the rows.")
@click.option("--seed", default=0, show_default=True)
@click.option("--leave-out", help="A symbol that is not trained on.")
@click.option("--json", "as_json", is_flag=True)
def main(fold: tuple[float, float], test: bool, seed: int, leave_out: str | None, as_json: bool) -> None:
    """Train one model, and evaluate it on every symbol."""
    started = time.perf_counter()
    if not test and fold[1] > 0.8:
        raise click.BadParameter("the last fifth of the rows is opened by --test alone", param_hint="--fold")
    fit_end, known = (0.7, 1.0) if test else fold
    every = {symbol: _loaded(symbol, known) for symbol in SYMBOLS}
    with tempfile.TemporaryDirectory() as folder:
        forecaster = _trained(
            {s: b for s, b in every.items() if s != leave_out},
            fit_end,
            0.8 if test else known,
            known,
            seed,
            Path(folder),
        )
    seconds = time.perf_counter() - started
    judged, rows = [], []
    for symbol, bars in every.items():
        length = round(len(bars) / known)
        first = int((0.8 if test else fit_end) * length)
        one, metrics = _judged(forecaster, symbol, bars, int(fit_end * length), first)
        judged.append(one)
        rows.append({"symbol": symbol, "metrics": metrics, "skill": evaluate_skill(HORIZONS, [one])})
    told = _told(rows, evaluate_skill(HORIZONS, judged), seconds)
    print(json.dumps(told, indent=1) if as_json else _text(told))


def _loaded(symbol: str, share: float) -> Bars:
    ((_, bars),) = read_file(REAL / "bars" / f"{symbol}_1h.parquet")
    return bars.take(slice(int(share * len(bars))))


def _trained(
    bars: dict[str, Bars], fit_end: float, valid_end: float, known: float, seed: int, folder: Path
) -> Forecaster:
    write_bars([("bars", Partition(symbol, "1h"), each) for symbol, each in bars.items()], folder / "market.db")
    lengths = [round(len(each) / known) for each in bars.values()]
    longest = max(MODEL.horizons)
    fold = [fold_at_rows(int(fit_end * n), int(valid_end * n), int(known * n), longest) for n in lengths]
    training = replace(TRAINING, seed=seed)

    def inputs() -> Any:
        return inputs_from_source(
            folder / "market.db", list(bars), "1h", FEATURES, MODEL, fold, cache_dir=folder / "cache"
        )

    TrainingJob(model=MODEL, training=training, out=folder / "run").run(inputs)
    return Forecaster.load(folder / "run")


def _judged(
    forecaster: Forecaster, symbol: str, bars: Bars, fit_end: int, first: int
) -> tuple[EvaluatedWindows, list[Any]]:
    """Forecasts of a symbol's rows from `first` on, less the last 24; rows are taken as they follow, gaps or not."""
    partition = Partition(symbol, "1h")
    forecasts = forecaster.forecast(bars, partition, first)
    kept = np.searchsorted(bars.timestamp, forecasts.cutoffs) < len(bars) - max(HORIZONS)
    rows = ("cutoffs", "close", "returns", "volatilities", "widths", "sample")
    forecasts = replace(forecasts, **{name: getattr(forecasts, name)[kept] for name in rows})
    one, _, _ = evaluated_windows(
        bars, partition, forecasts, int(bars.timestamp[fit_end]), int(forecasts.cutoffs[0]), None, over_gaps=True
    )
    metrics = forecast_metrics(
        HORIZONS,
        one.returns,
        one.volatilities,
        one.outcome,
        one.realised,
        forecasts.close,
        forecasts.coverages,
        forecasts.widths,
    )
    return one, metrics


def _told(rows: list[dict[str, Any]], together: Any, seconds: float) -> dict[str, Any]:
    """Margins in nats, the strong HAR's QLIKE less the model's: above zero the model is better."""
    symbols = {}
    for row in rows:
        margins = [_against_strong(each).test.mean * -1 for each in row["skill"]]
        covered = [
            {f"{band.level:g}": band.covered.share if band.covered else None for band in each.bands}
            for each in row["metrics"]
        ]
        symbols[row["symbol"]] = {"windows": row["metrics"][0].count, "margins": margins, "covered": covered}
    every = np.array([each["margins"] for each in symbols.values()])
    coverage = {
        level: np.mean(
            [[each["covered"][j][level] for j in range(len(HORIZONS))] for each in symbols.values()], 0
        ).tolist()
        for level in ("0.5", "0.8", "0.95")
    }
    return {
        "horizons": list(HORIZONS),
        "symbols": symbols,
        "mean": every.mean(0).tolist(),
        "least": every.min(0).tolist(),
        "p": [_against_strong(each).test.p_value for each in together],
        "coverage": coverage,
        "verdicts": [each.verdict for each in together],
        "training_seconds": seconds,
    }


def _against_strong(skill: Any) -> Any:
    return next(each for each in skill.volatility if each.baseline == _STRONG)


def _text(told: dict[str, Any]) -> str:
    def line(name: str, numbers: list[float], form: str = "+.4f") -> str:
        return f"{name:<22s}" + "".join(f"{format(number, form):>12s}" for number in numbers)

    lines = [f"{'margin in nats':<22s}" + "".join(f"{f'{h} bars':>12s}" for h in told["horizons"])]
    lines += [line(symbol, each["margins"]) for symbol, each in told["symbols"].items()]
    lines += [line("mean", told["mean"]), line("least", told["least"]), line("p, all together", told["p"], ".1e")]
    for level in ("0.5", "0.8", "0.95"):
        for symbol, each in told["symbols"].items():
            lines.append(line(f"in {level} of {symbol}", [one[level] for one in each["covered"]], ".3f"))
        lines.append(line(f"in {level}, mean", told["coverage"][level], ".3f"))
    lines += [f"{h} bars: {verdict}" for h, verdict in zip(told["horizons"], told["verdicts"], strict=True)]
    return "\n".join([*lines, f"trained in {told['training_seconds']:.0f} s"])


if __name__ == "__main__":
    main()
