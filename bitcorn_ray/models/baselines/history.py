"""Base of the baselines: the bars of one partition, and models with one set of parameters a partition."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import Dataset, PartitionBars
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import (
    FitContext,
    FitResult,
    ModelConfig,
    Prediction,
    Shape,
    Traits,
    WindowSet,
    single_result,
)
from bitcorn_ray.storage.arrays import pack_arrays, unpack_arrays

Float = NDArray[np.float64]
Rows = NDArray[np.int64]
Features = NDArray[np.floating]
Forecast = tuple[Float | float, Float]
Parameters = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(ModelConfig):
    """The options of a baseline, which looks at single bars rather than windows of features."""

    seq_len: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """Bars of one partition, T rows in time order.

    timestamps: int64 ms at which each bar opens. high, low, close: prices above 0. timeframe_ms: length of a bar.
    Raises BitcornError if lengths differ, times do not ascend, or prices are not above 0.
    """

    timestamps: Rows
    high: Float
    low: Float
    close: Float
    timeframe_ms: int

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.timestamps, self.high, self.low, self.close)}
        if len(lengths) != 1 or lengths == {0}:
            raise BitcornError(f"timestamps, high, low and close have {sorted(lengths)} rows: give one value a bar")
        if self.timeframe_ms <= 0 or (np.diff(self.timestamps) <= 0).any():
            raise BitcornError(f"bars of {self.timeframe_ms} ms must have a length, and times that ascend")
        if not (np.isfinite(self.low) & (self.low > 0) & (self.high >= self.low) & (self.close > 0)).all():
            raise BitcornError("some prices are missing, not above 0, or lows above highs: clean the bars first")

    @classmethod
    def of(cls, bars: PartitionBars) -> Self:
        """Return the history of a partition's bars. Raises BitcornError without high and low."""
        if bars.high is None or bars.low is None:
            raise BitcornError(f"{bars.name} has no high and low, which this model needs: give bars with these columns")
        return cls(timestamps=bars.timestamp, high=bars.high, low=bars.low, close=bars.close, timeframe_ms=bars.step)

    @property
    def returns(self) -> Float:
        """Return the one-bar log returns (T,), the first 0. The return after a gap spans the gap."""
        log_close = np.log(self.close)
        return np.diff(log_close, prepend=log_close[0])

    @property
    def parkinson(self) -> Float:
        """Return the variance (T,) of each bar by its range, ln(high / low)^2 / (4 ln 2) (Parkinson 1980)."""
        result: Float = np.log(self.high / self.low) ** 2 / (4 * np.log(2))
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class FitSample:
    """The data that one partition is fitted on.

    features: (T, F). returns, variances: (T, H) log returns and realised variances after each row, NaN where they are
    not known. rows: to fit on, ascending.
    """

    bars: PartitionBars
    features: Features
    returns: Float
    variances: Float
    rows: Rows


def fitting_rows(fit: Rows, horizon: int, *known: NDArray[np.floating]) -> Rows:
    """Return the rows of ``fit``, ascending, whose labels end within them and whose inputs and outcomes are known.

    known: arrays (T,) or (T, K) that must be finite at a row. A label ends h rows after its row, and counts if that is
    no later than the last row of ``fit``. Raises BitcornError if fewer than two rows are left.
    """
    rows = fit[fit + horizon <= fit[-1]] if len(fit) else fit
    for column in known:
        finite = np.isfinite(column[rows])
        rows = rows[finite if finite.ndim == 1 else finite.all(1)]
    if len(rows) < 2:
        raise BitcornError(
            f"{len(fit)} rows to fit on leave {len(rows)} whose horizon of {horizon} bars ends within them and whose "
            "inputs and outcome are known: give more bars"
        )
    return rows


class PartitionModel:
    """A model with one set of parameters for each partition.

    A subclass defines `fit_partition` and `predict_partition`. title: name in tables. compared_on: the forecasts that
    it is a baseline of, "returns", "variances" or both.
    """

    Config: ClassVar[Any] = BaselineConfig
    traits: ClassVar[Traits] = Traits(uses_bars=True)
    title: ClassVar[str] = ""
    compared_on: ClassVar[tuple[str, ...]] = ("variances",)

    def __init__(self, config: Any, parameters: Sequence[Parameters] = ()) -> None:
        self.config, self.parameters = config, list(parameters)

    @classmethod
    def create(cls, config: Any, shape: Shape) -> Self:
        """Return an unfitted model."""
        return cls(config)

    def fit(self, data: Dataset, training: Any, context: FitContext) -> FitResult:
        """Fit each partition on its training windows, and return the losses."""
        started = time.perf_counter()
        notes = [f"{name}: {note}" for name, note in self.fit_partitions(data).items()]
        result = single_result(self, data, time.perf_counter() - started)
        if context.report:
            context.report(result)
        return FitResult([result], notes=notes)

    def fit_partitions(self, data: Dataset) -> dict[str, str]:
        """Fit each partition on its training windows whose labels end within them.

        Return the notes for the user by the partition's name.
        """
        notes = {}
        self.parameters = []
        for index, bars in enumerate(data.bars):
            start, stop = data.partition_starts[index : index + 2]
            ends = data.train_ends[(data.train_ends >= start) & (data.train_ends < stop)]
            returns, variances = np.full((2, stop - start, len(self.config.horizons)), np.nan)
            returns[ends - start] = data.returns[ends]
            variances[ends - start] = np.square(data.volatilities[ends], dtype=np.float64)
            sample = FitSample(
                bars=bars,
                features=data.matrix[start:stop],
                returns=returns,
                variances=variances,
                rows=ends - start,
            )
            parameters, note = self.fit_partition(sample)
            self.parameters.append(parameters)
            if note:
                notes[bars.name] = note
        return notes

    def predict(self, windows: WindowSet) -> Prediction:
        """Return the forecasts of some windows; NaN where there are too few bars before."""
        returns, variances = np.full((2, len(windows), len(self.config.horizons)), np.nan)
        for bars, index, rows, mask in windows.by_partition():
            parameters = self.parameters[index] if self.needs_known_partition else {}
            features = windows.matrix[windows.ends[mask]]
            returns[mask], variances[mask] = self.predict_partition(bars, features, rows, parameters)
        return Prediction(returns, np.sqrt(variances))

    def fit_partition(self, sample: FitSample) -> tuple[Parameters, str | None]:
        """Return the parameters of a partition, and a note for the user or None."""
        return {}, None

    def predict_partition(self, bars: PartitionBars, features: Features, rows: Rows, fitted: Parameters) -> Forecast:
        """Return the log returns and variances (N, H) at some rows (N,) of a partition. features: (N, F)."""
        raise NotImplementedError

    @property
    def needs_known_partition(self) -> bool:
        """Return True if parameters are fitted, since they belong to a partition."""
        return True

    def history_needed(self, step: int) -> int:
        """Return the number of bars before a forecast, its own included."""
        return 1

    def artifacts(self) -> dict[str, bytes]:
        """Return the parameters as arrays in one file."""
        arrays = {f"{index}/{name}": value for index, own in enumerate(self.parameters) for name, value in own.items()}
        return {"parameters.npz": pack_arrays({"partitions": np.array(len(self.parameters)), **arrays})}

    @classmethod
    def restore(cls, config: Any, shape: Shape, artifacts: Mapping[str, bytes]) -> Self:
        """Return the model of `artifacts`."""
        arrays = unpack_arrays(artifacts["parameters.npz"])
        parameters: list[dict[str, NDArray[Any]]] = [{} for _ in range(int(arrays.pop("partitions")))]
        for key, values in arrays.items():
            index, _, name = key.partition("/")
            parameters[int(index)][name] = values
        return cls(config, parameters)
