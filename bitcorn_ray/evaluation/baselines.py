"""The baselines of an evaluation: models like all others, fitted on the rows before the evaluated ones.

    return      random walk (0) · ridge
    variance    constant variance · EWMA · GARCH(1,1) · log-HAR · strong HAR · ridge

A new baseline is a model (`models.baselines`), a row in `models.registry`, and its kind in `BASELINES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import Dataset, PartitionBars
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import Shape, WindowSet
from bitcorn_ray.models.baselines.history import PartitionModel
from bitcorn_ray.models.registry import config_class, model_class

Float = NDArray[np.float64]
Rows = NDArray[np.int64]

BASELINES = ("random_walk", "constant", "ewma", "garch", "har", "strong_har", "ridge")
FEATURE_BASELINES = ("ridge",)
"""The baselines that need features."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Baselines:
    """Forecasts at N test rows by the baseline's title; each array is (N, H).

    returns: log returns. variances: over the whole horizon; NaN if a row has too few earlier bars.
    remarks: by title, a fit that failed or did not converge.
    """

    returns: dict[str, Float]
    variances: dict[str, Float]
    remarks: dict[str, str]


def baseline_forecasts(
    bars: PartitionBars,
    outcome: Float,
    realised: Float,
    horizons: Sequence[int],
    fit: Rows | slice,
    test: Rows | slice,
    features: NDArray[np.floating] | None = None,
    kinds: Sequence[str] = BASELINES,
) -> Baselines:
    """Return the forecasts of baselines at the test rows of one partition.

    outcome, realised: (T, H) log returns and realised variances after each row, NaN if unknown. fit, test: rows of T,
    ascending, or slices. Only labels that end within the fitting rows are used. features: (T, F) for the ridge
    regression, which is left out without them. kinds: of the baselines.
    A baseline that cannot be fitted is left out, with the reason in `remarks`. Raises BitcornError if shapes differ or
    too few rows are left for any fit.
    """
    shape = (len(bars), len(horizons))
    if outcome.shape != shape or realised.shape != shape:
        raise BitcornError(f"outcome {outcome.shape} and realised {realised.shape} must be {shape}: bars x horizons")
    fitted_on, tested = (np.arange(shape[0])[rows] for rows in (fit, test))
    matrix = np.empty((shape[0], 0), np.float32) if features is None else features
    data = _dataset(bars, matrix, outcome, realised, fitted_on)
    forecasts = Baselines(returns={}, variances={}, remarks={})
    for kind in kinds:
        if features is None and kind in FEATURE_BASELINES:
            continue
        baseline = model_class(kind)
        assert issubclass(baseline, PartitionModel)
        config = config_class(kind)(kind=kind, horizons=tuple(horizons), seq_len=1, reference_span=0)
        model = baseline.create(config, Shape(matrix.shape[1], 1, bars.step))
        try:
            notes = model.fit_partitions(data)
        except BitcornError as error:
            if kind == "constant":  # too few rows for any baseline
                raise
            forecasts.remarks[baseline.title] = f"left out: {error}"
            continue
        if note := notes.get(bars.name):
            forecasts.remarks[baseline.title] = note
        forecast = model.predict(WindowSet.of_dataset(data, tested, config))
        if "returns" in baseline.compared_on:
            forecasts.returns[baseline.title] = forecast.returns.astype(np.float64)
        if "variances" in baseline.compared_on:
            forecasts.variances[baseline.title] = np.square(forecast.volatilities, dtype=np.float64)
    return forecasts


def _dataset(bars: PartitionBars, matrix: NDArray[np.floating], outcome: Float, realised: Float, fit: Rows) -> Dataset:
    """Return the dataset of one partition whose training windows end at the fitting rows."""
    none = np.empty(0, np.int64)
    return Dataset(
        matrix=matrix,
        reference=np.ones(len(bars)),
        partition_starts=np.array([0, len(bars)]),
        names=(bars.name,),
        timestamp=bars.timestamp,
        returns=outcome,
        volatilities=np.sqrt(realised),
        output_scale=np.ones(outcome.shape[1]),
        typical_reference=1.0,
        train_ends=fit,
        validation_ends=none,
        test_ends=none,
        bars=(bars,),
    )
