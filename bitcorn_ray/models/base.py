"""The interface of a model: created from its configuration, fitted on a dataset, asked for forecasts of windows.

A model is a class with these parts:

- `Config`: a frozen dataclass derived from `ModelConfig`, whose `kind` names the model.
- `traits`: properties that training and forecasting depend on.
- `create(config, shape)`: an unfitted model.
- `fit(data, training, context)`: fit on the training windows of a dataset. What is selected (an epoch, a number of
  trees) is selected on its validation windows. The test windows are never read.
- `predict(windows)`: returns and volatilities of windows.
- `artifacts()` and `restore(config, shape, artifacts)`: to files and back, without pickles.

Networks, boosting and baselines are models alike. Bands, calibration, lineage and the refusal of other features are
outside and serve all of them. `registry` finds a model by its kind.

Shapes: T rows, N windows, L seq_len, F features, H horizons, P partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import Dataset, PartitionBars
from bitcorn_ray.datasets.windows import gather_windows, require_lengths
from bitcorn_ray.errors import BitcornError

Floats = NDArray[np.floating]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The options that every model has.

    kind: name of the model. horizons: bars ahead that are forecast. seq_len: bars of a window. reference_span: bars
    over which the reference volatility decays that targets are relative to (`market.reference_volatility`); 0 for
    targets that are relative to nothing.
    Raises BitcornError for impossible values.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: str
    horizons: tuple[int, ...] = (1, 4, 12)
    seq_len: int = 64
    reference_span: int = 168

    def __post_init__(self) -> None:
        require_lengths(self.horizons, self.seq_len)
        require_at_least(self, 0, "reference_span")

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return {**asdict(self), "horizons": list(self.horizons)}


@dataclass(frozen=True, kw_only=True)
class Traits:
    """The properties of a model that training and forecasting depend on.

    distributed: `fit` shares the work among the processes of torch.distributed. gpu: `fit` and `predict` use a GPU.
    uses_bars: `fit` and `predict` read prices, not only features. iterative: `fit` runs epochs.
    """

    distributed: bool = False
    gpu: bool = False
    uses_bars: bool = False
    iterative: bool = False


@dataclass(frozen=True)
class Shape:
    """The sizes that a model is created for: F features and P partitions. step: timeframe of the bars in ms."""

    features: int
    partitions: int
    step: int


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowSet:
    """N windows as an index into matrices.

    matrix: (T, F) scaled features. ends: (N,) rows of the matrix at which windows end. seq_len: rows of a window.
    reference: (T,) volatility of one bar, None for forecasts that are relative to nothing. partitions: (N,) index of
    each window's partition among those of the fit, -1 for another one. bars: the bars of one or more partitions.
    bar_rows: (N,) row of each window's last bar in its partition's bars. bar_indexes: (N,) index of its partition in
    `bars`.
    """

    matrix: Floats
    ends: Rows
    seq_len: int
    reference: Floats | None
    partitions: Rows
    bars: tuple[PartitionBars, ...]
    bar_rows: Rows
    bar_indexes: Rows

    def __len__(self) -> int:
        return len(self.ends)

    @classmethod
    def of_dataset(cls, data: Dataset, ends: Rows, config: ModelConfig, matrix: Floats | None = None) -> Self:
        """Return the windows of a dataset that end at some rows (N,). matrix: in place of the dataset's."""
        partitions = data.partition_of(ends)
        return cls(
            matrix=data.matrix if matrix is None else matrix,
            ends=ends,
            seq_len=config.seq_len,
            reference=data.reference if config.reference_span else None,
            partitions=partitions,
            bars=data.bars,
            bar_rows=ends - data.partition_starts[partitions],
            bar_indexes=partitions,
        )

    def sequences(self) -> Floats:
        """Return the features of all bars of each window: (N, L, F)."""
        return gather_windows(self.matrix, self.ends, self.seq_len)

    def table(self, lags: Sequence[int] = (0,)) -> Floats:
        """Return the features at the end of each window and some bars earlier: (N, F x len(lags)).

        lags: bars before the end, below seq_len.
        """
        return np.concatenate([self.matrix[self.ends - lag] for lag in lags], axis=1)

    def by_partition(self) -> Iterator[tuple[PartitionBars, int, Rows, NDArray[np.bool_]]]:
        """Yield for each partition with windows: its bars, its index in the fit, bar rows, and mask of its windows."""
        for index in np.unique(self.bar_indexes):
            mask = self.bar_indexes == index
            yield self.bars[index], int(self.partitions[mask][0]), self.bar_rows[mask], mask


@dataclass(frozen=True, eq=False)
class Prediction:
    """Forecast log returns and their standard deviations, (N, H) each; NaN where there are too few bars before."""

    returns: Floats
    volatilities: Floats


@dataclass(frozen=True)
class EpochResult:
    """One epoch of a fit, or the only result of a fit without epochs.

    Losses are means over windows and horizons, in units of each horizon's typical volatility. best: no earlier epoch
    had a lower validation loss. learning_rate: of the last step. samples_per_second: training windows, validation left
    out. warnings: for the user.
    """

    epoch: int
    train_loss: float
    val_loss: float
    train_loss_by_horizon: list[float]
    val_loss_by_horizon: list[float]
    best: bool
    learning_rate: float
    seconds: float
    samples_per_second: float
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """Progress within an epoch: windows done, of all, their mean loss, and windows a second."""

    epoch: int
    done: int
    windows: int
    loss: float
    samples_per_second: float


@dataclass(frozen=True)
class FitResult:
    """The results of a fit, besides the fitted model.

    history: every epoch. learned: parameters of the loss by name, a number a horizon. precision: of the arithmetic.
    machines: what each process ran on. notes: for the user, such as a fit that did not converge.
    """

    history: list[EpochResult]
    learned: dict[str, list[float]] = field(default_factory=dict)
    precision: str = "float32"
    machines: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def best_epoch(self) -> EpochResult:
        """Return the epoch whose weights were kept."""
        return [result for result in self.history if result.best][-1]


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """The surroundings of a fit.

    device: "cpu" or "cuda". report: called after each epoch. progress: called about twice a second. checkpoints: where
    the state is saved and resumed from, a `neural.checkpoint.CheckpointFolder`.
    """

    device: str = "cpu"
    report: Callable[[EpochResult], None] | None = None
    progress: Callable[[Progress], None] | None = None
    checkpoints: Any = None


class Model(Protocol):
    """A model of returns and volatilities."""

    Config: ClassVar[Any]
    traits: ClassVar[Traits]
    config: Any

    @classmethod
    def create(cls, config: Any, shape: Shape) -> Self:
        """Return an unfitted model."""

    def fit(self, data: Dataset, training: Any, context: FitContext) -> FitResult:
        """Fit on the training windows of a dataset. training: a `training.config.TrainingConfig`."""

    def predict(self, windows: WindowSet) -> Prediction:
        """Return the forecasts of some windows."""

    @property
    def needs_known_partition(self) -> bool:
        """Return True if only the partitions of the fit can be forecast."""

    def history_needed(self, step: int) -> int:
        """Return the number of bars before a forecast, its own included, that it needs. step: timeframe in ms."""

    def artifacts(self) -> dict[str, bytes]:
        """Return the fitted model as files by name."""

    @classmethod
    def restore(cls, config: Any, shape: Shape, artifacts: Mapping[str, bytes]) -> Self:
        """Return the model of some files. Raises ValueError, KeyError or RuntimeError if they do not fit."""


def single_result(model: Model, data: Dataset, seconds: float) -> EpochResult:
    """Return the result of a fit without epochs, with its losses on the training and validation windows.

    The loss is the Gaussian negative log likelihood with the realised variance, as in `neural.losses`, so that models
    can be compared by it. Windows without a forecast do not count.
    """
    losses = [_mean_loss(model, data, ends) for ends in (data.train_ends, data.validation_ends)]
    (train_loss, train_H), (val_loss, val_H) = losses
    rate = len(data.train_ends) / max(seconds, 1e-9)
    return EpochResult(1, train_loss, val_loss, train_H, val_H, True, 0.0, seconds, rate)


def require_at_least(config: object, least: float, *names: str) -> None:
    """Raise BitcornError if a field is below a value."""
    for name in names:
        if not getattr(config, name) >= least:
            raise BitcornError(f"{name} is {getattr(config, name)}: it must be at least {least}")


def require_one_of(config: object, name: str, choices: Sequence[str]) -> None:
    """Raise BitcornError if a field is none of the choices."""
    if getattr(config, name) not in choices:
        raise BitcornError(f"{name} is {getattr(config, name)!r}: use one of {', '.join(choices)}")


def _mean_loss(model: Model, data: Dataset, ends: Rows) -> tuple[float, list[float]]:
    config = model.config
    if len(ends) == 0:
        return float("nan"), [float("nan")] * len(config.horizons)
    forecast = model.predict(WindowSet.of_dataset(data, ends, config))
    unit = data.output_scale * data.reference[ends, None]
    mu, sigma = forecast.returns / unit, np.maximum(forecast.volatilities / unit, 1e-3)
    outcome, realised = data.returns[ends] / unit, data.volatilities[ends] / unit
    square = np.maximum(realised**2 - 2 * outcome * mu + mu**2, 0)
    losses = np.log(sigma) + 0.5 * square / sigma**2
    counted = np.isfinite(losses)
    counts = np.where(counted.any(0), counted.sum(0), np.nan)  # a horizon without any forecast has no loss
    by_horizon: list[float] = (np.where(counted, losses, 0.0).sum(0, dtype=np.float64) / counts).tolist()
    return float(np.mean(by_horizon)), by_horizon
