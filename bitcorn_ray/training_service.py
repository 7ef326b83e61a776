"""Compatibility with the older system: training from a frame of features.

`MultiHorizonTrainingRequest`, `train_multihorizon_model` and `TrainingResult` have the names, parameters and results of
its `data_pipeline.training_service`. `train_on_ray` does the same on Ray workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Tuple

from bitcorn_ray.datasets.folds import Shares
from bitcorn_ray.datasets.load import TrainingInputs, inputs_from_frame
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.models.base import EpochResult
from bitcorn_ray.models.neural.config import GRUConfig, LSTMConfig, RecurrentConfig, TrainingConfig
from bitcorn_ray.sources.frames import key_of_frame
from bitcorn_ray.training.job import OnEpoch, OnProgress, RayWorkers, TrainingJob
from bitcorn_ray.training.train import TrainingResult, epoch_line, result_of

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["MultiHorizonTrainingRequest", "TrainingResult", "train_multihorizon_model", "train_on_ray"]

LogFn = Optional[Callable[[str], None]]


@dataclass
class MultiHorizonTrainingRequest:
    """The data and the configuration of a training.

    df: features beside `close` and `timestamp` (`FeaturePrepResult.dataframe`); without times, rows count as
    consecutive bars. horizons, seq_len: in bars. val_frac: share of the windows, the last, that validate; between
    them and the training windows lies a purge of the longest horizon. symbol, timeframe: recorded in the run; at the
    default those in the frame's attributes, which `load_market_data` sets. The timeframe is the grid on which missing
    bars are found. The fields after these: see `ModelConfig` and `TrainingConfig`. device: "cpu" or "cuda".
    feature_system: recorded in the run, so that a forecaster can compute the features; by default the one in the
    frame's attributes, which `prepare_features` sets. resume: continue from the checkpoints of an interrupted training.
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
    cell: str = "lstm"
    input_norm: bool = False
    layer_norm: bool = False
    symbol_embedding: int = 0
    reference_span: int = 168
    skip: bool = False
    volatility_link: str = "exp"
    test_frac: float = 0.0
    degrees_of_freedom: float = 0.0
    directional_penalty: float = 0.0
    horizon_weights: str | Tuple[float, ...] = "uniform"
    warmup: float = 0.1
    schedule: str = "constant"
    ema: float = 0.0
    precision: str = "auto"
    deterministic: bool = False
    checkpoint_epochs: int = 1
    checkpoint_minutes: Optional[float] = None
    resume: bool = False

    def model_config(self) -> RecurrentConfig:
        """Return the configuration of the model. Raises BitcornError for impossible values."""
        kinds: dict[str, type[RecurrentConfig]] = {"lstm": LSTMConfig, "gru": GRUConfig}
        if self.cell not in kinds:
            raise BitcornError(f"cell is {self.cell!r}: use one of {', '.join(kinds)}")
        made = kinds[self.cell]
        names = {item.name for item in fields(made)} - {"kind", "horizons"}
        return made(horizons=tuple(self.horizons), **{name: getattr(self, name) for name in names})

    def training_config(self) -> TrainingConfig:
        """Return the configuration of the training. Raises BitcornError for impossible values."""
        return TrainingConfig(**{item.name: getattr(self, item.name) for item in fields(TrainingConfig)})


def train_multihorizon_model(
    request: MultiHorizonTrainingRequest,
    *,
    artifacts_dir: Optional[str | Path] = None,
    log_fn: LogFn = None,
) -> TrainingResult:
    """Train in this process.

    artifacts_dir: folder or URI to write the run to (model.pt, scaler.pkl, metadata.json and more). log_fn: called with
    a line an epoch. Raises BitcornError (a ValueError) for missing columns, too few rows, and impossible values.
    """

    def log(result: EpochResult) -> None:
        if log_fn:
            log_fn(epoch_line(result, request.epochs))

    job = _job_of(request, artifacts_dir, log_fn)
    return result_of(job.run(lambda: _inputs_of(request), resume=request.resume, on_epoch=log))


def train_on_ray(
    request: MultiHorizonTrainingRequest,
    *,
    artifacts_dir: str | Path,
    workers: int | Tuple[int, int] = 1,
    gpus: float = 0,
    max_failures: int = 3,
    on_epoch: Optional[OnEpoch] = None,
    on_progress: Optional[OnProgress] = None,
    log_fn: LogFn = None,
) -> TrainingResult:
    """Train by Ray Train on ``workers`` processes, each with ``gpus`` GPUs; (least, most) takes what Ray has room for.

    It runs on the Ray that this process is connected to, else on a private one that ends with the call.
    A worker that dies is replaced up to ``max_failures`` times and resumes from the last checkpoint in
    ``artifacts_dir``, which all nodes must share. In deterministic mode the weights equal those of an undisturbed
    training to the bit on up to two workers, and with one worker and as many threads those of
    `train_multihorizon_model`. on_epoch, on_progress: called in this process during the training.
    Raises BitcornError as `train_multihorizon_model` does, and for more workers or GPUs than Ray has.
    """
    job = _job_of(request, artifacts_dir, log_fn, RayWorkers(workers, gpus, max_failures))
    return result_of(
        job.run(lambda: _inputs_of(request), resume=request.resume, on_epoch=on_epoch, on_progress=on_progress)
    )


def _job_of(
    request: MultiHorizonTrainingRequest, out: str | Path | None, log_fn: LogFn, ray: RayWorkers | None = None
) -> TrainingJob:
    return TrainingJob(
        model=request.model_config(),
        training=request.training_config(),
        out=out,
        device=request.device,
        ray=ray,
        log_fn=log_fn,
    )


def _partition_of(request: MultiHorizonTrainingRequest) -> Partition:
    """Return the partition of the request; at a default value, that of the frame if it has one."""
    named = {}
    for name in ("symbol", "timeframe"):
        value, default = getattr(request, name), getattr(MultiHorizonTrainingRequest, name)
        named[name] = (key_of_frame(request.df, name) or value) if value == default else value
    return Partition(**named)


def _inputs_of(request: MultiHorizonTrainingRequest) -> TrainingInputs:
    return inputs_from_frame(
        request.df,
        request.feature_cols,
        _partition_of(request),
        request.feature_system,
        request.model_config(),
        Shares(validation=request.val_frac, test=request.test_frac),
    )
