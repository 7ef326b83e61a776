"""Front door to training: from a frame of features, or a configuration, to a run, in this process or on Ray.

`MultiHorizonTrainingRequest` and `train_multihorizon_model` have the names, parameters and results of the older
`data_pipeline.training_service`; `train_on_ray` does the same on any number of Ray workers, and `train_from_config`
trains what a `RunConfig` says, on one or several symbols. While a training runs its folder holds

    checkpoints/    what it goes on from after an interruption; gone when the run is saved
    tensorboard/    event files: loss by horizon, learning rate, samples per second
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional, Tuple

from bitcorn_ray.datasets.folds import Shares
from bitcorn_ray.datasets.load import TrainingInputs, inputs_from_frame, inputs_from_source
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.models.base import EpochResult, Progress
from bitcorn_ray.models.neural.checkpoint import CheckpointFolder
from bitcorn_ray.models.neural.config import GRUConfig, LSTMConfig, RecurrentConfig, TrainingConfig
from bitcorn_ray.sources.frames import key_of_frame
from bitcorn_ray.storage.location import shown_uri
from bitcorn_ray.training.job import TrainingJob, checkpoint_folder
from bitcorn_ray.training.run import Run, is_run, run_storage

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.preprocessing import StandardScaler

    from bitcorn_ray.training.config import RunConfig

__all__ = [
    "MultiHorizonTrainingRequest",
    "TrainingResult",
    "epoch_line",
    "require_free",
    "train_from_config",
    "train_multihorizon_model",
    "train_on_ray",
]

LogFn = Optional[Callable[[str], None]]
OnEpoch = Callable[[EpochResult], None]
OnProgress = Callable[[Progress], None]

_OF_A_TRAINING = frozenset({"checkpoints", "tensorboard"})  # what its folder holds until it is a run


@dataclass
class MultiHorizonTrainingRequest:
    """What to train on and how.

    df: features beside `close` and `timestamp` (`FeaturePrepResult.dataframe`); without times, rows count as
    neighbouring bars. horizons, seq_len: in bars. val_frac: share of the windows, the last, that validate; between
    them and the training windows lies a purge of the longest horizon. symbol, timeframe: recorded in the run; at the
    default what the frame says counts (`load_market_data` notes it). The timeframe is the grid on which missing bars
    are found. The fields after these: see `ModelConfig` and `TrainingConfig`. device: "cpu" or "cuda". feature_system:
    recorded in the run, so that a forecaster can compute the features; by default as `prepare_features` noted it in the
    frame. resume: go on from the checkpoints that a training which was cut short left in its folder.
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
        """Return the model's part. Raises BitcornError for impossible values."""
        kinds: dict[str, type[RecurrentConfig]] = {"lstm": LSTMConfig, "gru": GRUConfig}
        if self.cell not in kinds:
            raise BitcornError(f"cell is {self.cell!r}: use one of {', '.join(kinds)}")
        made = kinds[self.cell]
        names = {item.name for item in fields(made)} - {"kind", "horizons"}
        return made(horizons=tuple(self.horizons), **{name: getattr(self, name) for name in names})

    def training_config(self) -> TrainingConfig:
        """Return the training's part. Raises BitcornError for impossible values."""
        return TrainingConfig(**{item.name: getattr(self, item.name) for item in fields(TrainingConfig)})


@dataclass
class TrainingResult:
    """A trained model, its scaler, and everything else about the run in plain values (as in metadata.json)."""

    model: Any
    scaler: StandardScaler
    metadata: dict[str, Any]


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
    job = TrainingJob(request.model_config(), request.training_config(), request.device, artifacts_dir, log_fn)

    def log(result: EpochResult) -> None:
        if log_fn:
            log_fn(epoch_line(result, request.epochs))

    return _result_of(job.run(lambda: _inputs_of(request), resume=request.resume, on_epoch=log))


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

    A worker that dies is replaced up to ``max_failures`` times, and goes on from the last checkpoint; these lie in
    ``artifacts_dir``, which all nodes have to see. In deterministic mode the weights equal those of an undisturbed
    training to the bit on up to two workers, and with one worker and as many threads those of
    `train_multihorizon_model`. on_epoch, on_progress: called in this process as the training goes on.
    Raises BitcornError as `train_multihorizon_model` does, and for more workers or GPUs than Ray has.
    """
    job = TrainingJob(request.model_config(), request.training_config(), "", artifacts_dir, log_fn)
    job.on_ray = (workers, gpus, max_failures)
    return _result_of(
        job.run(lambda: _inputs_of(request), resume=request.resume, on_epoch=on_epoch, on_progress=on_progress)
    )


def train_from_config(
    config: RunConfig,
    *,
    cache_dir: Optional[str | Path] = None,
    resume: bool = False,
    max_failures: int = 3,
    until: Optional[Sequence[int]] = None,
    on_epoch: Optional[OnEpoch] = None,
    on_progress: Optional[OnProgress] = None,
    log_fn: LogFn = None,
) -> TrainingResult:
    """Load the bars of a configuration's symbols, prepare their features through the cache, train, and save the run.

    Several symbols train one model, their windows drawn across all. With workers the training runs on Ray as
    `train_on_ray` does, with 0 in this process. resume: go on from where a training into the same folder was cut short.
    until: for each symbol the opening of the last bar to train on, in ms, where the source has later ones.
    Raises BitcornError as `load_market_data`, `prepare_features` and `train_on_ray` do.
    """
    job = TrainingJob(
        config.model, config.training, "cuda" if config.gpus else "cpu", config.out, log_fn, config.mlflow
    )
    job.config = config.to_json()
    if config.workers:
        job.on_ray = (config.workers, config.gpus, max_failures)

    def inputs() -> TrainingInputs:
        return inputs_from_source(
            config.db,
            config.all_symbols,
            config.timeframe,
            config.features,
            config.model,
            Shares(validation=config.training.val_frac, test=config.training.test_frac),
            options=config.reading,
            cache_dir=cache_dir,
            until=until,
            log_fn=log_fn,
        )

    return _result_of(job.run(inputs, resume=resume, on_epoch=on_epoch, on_progress=on_progress))


def require_free(folder: str | Path, *, resume: bool, overwrite: bool) -> None:
    """Raise BitcornError where a training into a folder or URI would lose what is there.

    resume: a training that was cut short may be there. overwrite: anything may.
    """
    storage, shown = run_storage(folder), shown_uri(folder)
    storage.require_writable()
    held = storage.names()
    if overwrite or not held:
        return
    if is_run(folder):
        raise BitcornError(f"{shown} holds a finished run: give another --out, or --overwrite")
    if not CheckpointFolder(checkpoint_folder(storage)):
        if _OF_A_TRAINING.issuperset(held):
            return  # it was cut short before its first checkpoint
        raise BitcornError(f"{shown} holds something already: give another --out, or --overwrite")
    if not resume:
        raise BitcornError(f"{shown} holds a training that was cut short: --resume goes on, --overwrite starts anew")


def epoch_line(result: EpochResult, epochs: int) -> str:
    """One line about an epoch, and what it warns of."""
    mark = " *" if result.best else ""
    line = (
        f"epoch {result.epoch}/{epochs}: training loss {result.train_loss:.4f}, validation loss {result.val_loss:.4f}, "
        f"{result.samples_per_second:,.0f} samples/s{mark}"
    )
    return "\n".join([line, *result.warnings])


def _result_of(run: Run) -> TrainingResult:
    return TrainingResult(getattr(run.model, "network", run.model), run.scaler, run.metadata)


def _partition_of(request: MultiHorizonTrainingRequest) -> Partition:
    """The partition that the request names; where it leaves a default, as the frame says, if that does."""
    named = {}
    for name in ("symbol", "timeframe"):
        asked, default = getattr(request, name), getattr(MultiHorizonTrainingRequest, name)
        named[name] = (key_of_frame(request.df, name) or asked) if asked == default else asked
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
