"""Front door to training: from a frame of features to a run, in this process or on Ray.

`MultiHorizonTrainingRequest` and `train_multihorizon_model` have the names, parameters and results of the older
`data_pipeline.training_service`; `train_on_ray` does the same on any number of Ray workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional

import numpy as np

from bitcorn_ray.data_loader import FEATURE_CACHE_DIR, load_market_data, prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig
from bitcorn_ray.learning.dataset import TrainingData, training_data
from bitcorn_ray.learning.model import LSTMMultiHead
from bitcorn_ray.learning.runs import assemble_run, require_writable, save_run
from bitcorn_ray.learning.training import EpochResult, FitResult, fit
from bitcorn_ray.market.bars import frame_times, show_time
from bitcorn_ray.market.partition import timeframe_ms

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.preprocessing import StandardScaler

    from bitcorn_ray.config import RunConfig

__all__ = [
    "MultiHorizonTrainingRequest",
    "TrainingResult",
    "epoch_line",
    "request_from_config",
    "train_multihorizon_model",
    "train_on_ray",
]

LogFn = Optional[Callable[[str], None]]


@dataclass
class MultiHorizonTrainingRequest:
    """What to train on and how.

    df: features beside `close` and `timestamp` (`FeaturePrepResult.dataframe`); without times, rows count as
    neighbouring bars. horizons, seq_len: in bars. val_frac: share of the windows, the last, that validate; between
    them and the training windows lies a purge of the longest horizon. symbol, timeframe: recorded in the run; the
    timeframe is the grid on which missing bars are found. The fields after these: see `ModelConfig` and
    `TrainingConfig`. device: "cpu" or "cuda". feature_system: recorded in the run, so that a forecaster can compute
    the features; by default as `prepare_features` noted it in the frame.
    """

    df: pd.DataFrame
    feature_cols: List[str]
    horizons: List[int] = field(default_factory=lambda: [1, 4, 12])
    seq_len: int = 64
    hidden_size: int = 256
    num_layers: int = 2
    dropout: float = 0.2
    batch_size: int = 64
    epochs: int = 50
    learning_rate: float = 1e-3
    val_frac: float = 0.2
    symbol: str = "BTCUSDT"
    timeframe: str = "1h"
    loss: str = "gaussian_nll"
    weight_decay: float = 1e-4
    patience: int = 5
    grad_clip: float = 1.0
    seed: int = 0
    threads: Optional[int] = None
    device: str = "cpu"
    feature_system: Optional[str] = None

    def model_config(self) -> ModelConfig:
        """Return the model's part. Raises BitcornError for impossible values."""
        return ModelConfig(
            horizons=tuple(self.horizons),
            seq_len=self.seq_len,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            dropout=self.dropout,
        )

    def training_config(self) -> TrainingConfig:
        """Return the training's part. Raises BitcornError for impossible values."""
        return TrainingConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            val_frac=self.val_frac,
            loss=self.loss,
            patience=self.patience,
            grad_clip=self.grad_clip,
            seed=self.seed,
            threads=self.threads,
        )


@dataclass
class TrainingResult:
    """A trained model, its scaler, and everything else about the run in plain values (as in metadata.json)."""

    model: LSTMMultiHead
    scaler: StandardScaler
    metadata: dict[str, Any]


def train_multihorizon_model(
    request: MultiHorizonTrainingRequest,
    *,
    artifacts_dir: Optional[Path] = None,
    log_fn: LogFn = None,
) -> TrainingResult:
    """Train in this process.

    artifacts_dir: folder to write model.pt, scaler.pkl and metadata.json to. log_fn: called with a line an epoch.
    Raises BitcornError (a ValueError) for missing columns, too few rows, and impossible values.
    """

    def log(result: EpochResult, _: Callable[[], dict[str, Any]]) -> None:
        if log_fn:
            log_fn(epoch_line(result, request.epochs))

    def train(data: TrainingData, model: ModelConfig, training: TrainingConfig) -> FitResult:
        return fit(data, model, training, device=request.device, report=log)

    return _trained(request, train, artifacts_dir, log_fn)


def train_on_ray(
    request: MultiHorizonTrainingRequest,
    *,
    artifacts_dir: Path,
    workers: int = 1,
    gpus: float = 0,
    max_failures: int = 3,
    on_epoch: Callable[[EpochResult], None] | None = None,
    log_fn: LogFn = None,
) -> TrainingResult:
    """Train by Ray Train on ``workers`` processes, each with ``gpus`` GPUs.

    It runs on the Ray that this process is connected to, else on a private one that ends with the call.

    A worker that dies is replaced up to ``max_failures`` times, and goes on from the last epoch's checkpoint.
    Checkpoints lie beside ``artifacts_dir`` until the run is saved. With one worker and as many threads the losses
    equal those of `train_multihorizon_model` to the bit. on_epoch: called in this process with each epoch's result.
    Raises BitcornError as `train_multihorizon_model` does, and for more workers or GPUs than Ray has.
    """
    from bitcorn_ray.on_ray.session import ray_session

    def train(data: TrainingData, model: ModelConfig, training: TrainingConfig) -> FitResult:
        from bitcorn_ray.on_ray.training import fit_on_ray

        return fit_on_ray(
            data,
            model,
            training,
            workers=workers,
            gpus=gpus,
            artifacts_dir=Path(artifacts_dir),
            max_failures=max_failures,
            on_epoch=on_epoch,
        )

    with ray_session():
        return _trained(request, train, artifacts_dir, log_fn)


def request_from_config(
    config: RunConfig, *, cache_dir: str | Path | None = None, log_fn: LogFn = None
) -> MultiHorizonTrainingRequest:
    """Load the bars of a configuration, prepare their features through the cache, and make the request.

    Raises BitcornError as `load_market_data` and `prepare_features` do.
    """
    market = load_market_data(config.db, config.symbol, config.timeframe, log_fn=log_fn)
    features = prepare_features(
        market.dataframe,
        config.features,
        cache_dir=cache_dir or FEATURE_CACHE_DIR,  # type: ignore[arg-type]  # a URI stays text
        db_path=config.db,
        log_fn=log_fn,
    )
    return MultiHorizonTrainingRequest(
        df=features.dataframe,
        feature_cols=features.feature_cols,
        symbol=market.quality_report["symbol"],
        timeframe=market.quality_report["timeframe"],
        **{**asdict(config.model), "horizons": list(config.model.horizons)},
        **asdict(config.training),
    )


def epoch_line(result: EpochResult, epochs: int) -> str:
    """One line about an epoch."""
    mark = " *" if result.best else ""
    return (
        f"epoch {result.epoch}/{epochs}: training loss {result.train_loss:.4f}, validation loss {result.val_loss:.4f}, "
        f"{result.samples_per_second:,.0f} samples/s{mark}"
    )


def _trained(
    request: MultiHorizonTrainingRequest,
    train: Callable[[TrainingData, ModelConfig, TrainingConfig], FitResult],
    artifacts_dir: Path | None,
    log_fn: LogFn,
) -> TrainingResult:
    model_config, training_config = request.model_config(), request.training_config()
    df, columns = request.df, list(request.feature_cols)
    if artifacts_dir is not None:
        require_writable(artifacts_dir)
    absent = [name for name in [*columns, "close"] if name not in df.columns]
    if absent or not columns:
        raise BitcornError(f"the frame has no column {', '.join(absent) or '(no feature named)'}")
    timestamp = frame_times(df)
    data, scaler, facts = training_data(
        np.column_stack([df[name].to_numpy(dtype=np.float32) for name in columns]),
        df["close"].to_numpy(dtype=np.float64),
        timestamp,
        timeframe_ms(request.timeframe),
        model_config,
        training_config,
    )
    if log_fn:
        log_fn(
            f"{facts['train_windows']:,} windows train, {facts['validation_windows']:,} validate, "
            f"{facts['purged_windows']} purged between them, {sum(facts['left_out'].values()):,} left out"
        )
    fitted = train(data, model_config, training_config)
    if timestamp is not None:
        facts |= {"first_timestamp": show_time(int(timestamp[0])), "last_timestamp": show_time(int(timestamp[-1]))}
    about = {
        "symbol": request.symbol,
        "timeframe": request.timeframe,
        "feature_system": request.feature_system or df.attrs.get("feature_system"),
        "feature_version": df.attrs.get("feature_version"),
        "cache_key": df.attrs.get("cache_key"),
        "data": facts,
    }
    run = assemble_run(fitted, data, scaler, model_config, training_config, columns, about)
    if artifacts_dir is not None:
        save_run(run, artifacts_dir)
        if log_fn:
            log_fn(f"run saved to {artifacts_dir}")
    return TrainingResult(run.model, run.scaler, run.metadata)
