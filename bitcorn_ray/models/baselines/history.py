"""What baselines are fitted on: the bars of one partition, and models with one set of parameters a partition."""

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
Parameters = Mapping[str, NDArray[Any]]


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
            raise BitcornError(f"timestamps, high, low and close have {sorted(lengths)} rows: give one of each a bar")
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

    A subclass defines `fit_partition` and `predict_partition`. title: name in tables. judged_on: what its forecasts are
    compared on as a baseline, "returns", "variances" or both.
    """

    Config: ClassVar[Any] = ModelConfig
    traits: ClassVar[Traits] = Traits(uses_bars=True)
    title: ClassVar[str] = ""
    judged_on: ClassVar[tuple[str, ...]] = ("variances",)

    def __init__(self, config: Any, shape: Shape, parameters: Sequence[Parameters] = ()) -> None:
        self.config, self.shape, self.parameters = config, shape, list(parameters)

    @classmethod
    def create(cls, config: Any, shape: Shape) -> Self:
        """Return an unfitted model."""
        return cls(config, shape)

    def fit(self, data: Dataset, training: Any, context: FitContext) -> FitResult:
        """Fit each partition on its training windows, and return the losses."""
        started = time.perf_counter()
        notes = self.fit_partitions(data)
        result = single_result(self, data, time.perf_counter() - started)
        if context.report:
            context.report(result)
        return FitResult([result], notes=notes)

    def fit_partitions(self, data: Dataset) -> list[str]:
        """Fit each partition on its training windows whose labels end within them, and return notes for the user."""
        notes = list[str]()
        self.parameters = []
        for index, bars in enumerate(data.bars):
            start, stop = data.partition_starts[index : index + 2]
            ends = data.train_ends[(data.train_ends >= start) & (data.train_ends < stop)]
            known = np.full((stop - start, len(self.config.horizons), 2), np.nan)
            known[ends - start, :, 0] = data.returns[ends]
            known[ends - start, :, 1] = np.square(data.volatilities[ends], dtype=np.float64)
            fitted, note = self.fit_partition(
                bars, data.matrix[start:stop], known[:, :, 0], known[:, :, 1], ends - start
            )
            self.parameters.append(fitted)
            notes += [f"{bars.name}: {note}"] if note else []
        return notes

    def predict(self, windows: WindowSet) -> Prediction:
        """Return the forecasts of some windows; NaN where there are too few bars before."""
        returns, variances = np.full((2, len(windows), len(self.config.horizons)), np.nan)
        for bars, index, rows, mask in windows.by_partition():
            parameters = self.parameters[index] if self.needs_known_partition else {}
            returns[mask], variances[mask] = self.predict_partition(
                bars, windows.matrix[windows.ends[mask]], parameters, rows
            )
        return Prediction(returns, np.sqrt(variances))

    def fit_partition(
        self, bars: PartitionBars, features: NDArray[np.floating], outcome: Float, realised: Float, rows: Rows
    ) -> tuple[Parameters, str | None]:
        """Return the parameters of a partition, and a note for the user or None.

        features: (T, F). outcome, realised: log returns and realised variances (T, H), NaN where they are not known.
        rows: to fit on, ascending.
        """
        return {}, None

    def predict_partition(
        self, bars: PartitionBars, features: NDArray[np.floating], parameters: Parameters, rows: Rows
    ) -> tuple[Float, Float]:
        """Return the log returns and variances (N, H) at some rows (N,) of a partition.

        features: (N, F) of the rows.
        """
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
        arrays: dict[str, Any] = {
            f"{index}/{name}": value for index, own in enumerate(self.parameters) for name, value in own.items()
        }
        return {"parameters.npz": pack_arrays({"partitions": np.array(len(self.parameters)), **arrays})}

    @classmethod
    def restore(cls, config: Any, shape: Shape, artifacts: Mapping[str, bytes]) -> Self:
        """Return the model of `artifacts`."""
        arrays = unpack_arrays(artifacts["parameters.npz"])
        parameters: list[dict[str, NDArray[Any]]] = [{} for _ in range(int(arrays.pop("partitions")))]
        for key, values in arrays.items():
            index, _, name = key.partition("/")
            parameters[int(index)][name] = values
        return cls(config, shape, parameters)
