"""The simplest models: a random walk, a constant variance, and an exponentially weighted variance.

Parameters are fitted on the fitting rows alone, with labels that end within them. A forecast at a row depends on no
later row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from bitcorn_ray.datasets.dataset import PartitionBars
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.baselines.history import (
    BaselineConfig,
    Features,
    FitSample,
    Float,
    Forecast,
    History,
    Parameters,
    PartitionModel,
    Rows,
    fitting_rows,
)


@dataclass(frozen=True, kw_only=True)
class RandomWalkConfig(BaselineConfig):
    """A random walk with the mean variance of the training windows."""

    kind: Literal["random_walk"] = "random_walk"


@dataclass(frozen=True, kw_only=True)
class ConstantConfig(BaselineConfig):
    """The mean variance of the training windows."""

    kind: Literal["constant"] = "constant"


@dataclass(frozen=True, kw_only=True)
class EWMAConfig(BaselineConfig):
    """An exponentially weighted variance.

    alpha: weight of the newest bar; RiskMetrics' 0.06 (J. P. Morgan 1996), which is not fitted.
    """

    kind: Literal["ewma"] = "ewma"
    alpha: float = 0.06

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < 1:
            raise BitcornError(f"alpha is {self.alpha}: it must lie between 0 and 1")


def constant_variance(realised: Float, horizons: Sequence[int], fit: Rows) -> Float:
    """Return the mean realised variance of the fitting rows: (H,)."""
    return np.array([realised[fitting_rows(fit, h, realised[:, j]), j].mean() for j, h in enumerate(horizons)])


def ewma_variance(history: History, horizons: Sequence[int], rows: Rows, alpha: float = 0.06) -> Float:
    """Return the exponentially weighted mean of the squared returns up to each row, times the horizon: (N, H)."""
    mean = pd.Series(history.returns**2).ewm(alpha=alpha).mean().to_numpy()
    return mean[rows, None] * np.asarray(horizons, np.float64)


class Constant(PartitionModel):
    """Returns of zero, and the mean variance of the training windows."""

    Config: ClassVar[Any] = ConstantConfig
    title: ClassVar[str] = "constant variance"

    def fit_partition(self, sample: FitSample) -> tuple[Parameters, str | None]:
        """Return the mean variance of each horizon."""
        return {"variance": constant_variance(sample.variances, self.config.horizons, sample.rows)}, None

    def predict_partition(self, bars: PartitionBars, features: Features, rows: Rows, fitted: Parameters) -> Forecast:
        """Return the same forecast at every row."""
        return 0.0, np.tile(fitted["variance"], (len(rows), 1))


class RandomWalk(Constant):
    """The same forecast, as the reference of returns."""

    Config = RandomWalkConfig
    title: ClassVar[str] = "random walk"
    compared_on: ClassVar[tuple[str, ...]] = ("returns",)


class EWMA(PartitionModel):
    """Returns of zero, and an exponentially weighted variance."""

    Config = EWMAConfig
    title: ClassVar[str] = "EWMA"

    @property
    def needs_known_partition(self) -> bool:
        """Return False: nothing is fitted."""
        return False

    def predict_partition(self, bars: PartitionBars, features: Features, rows: Rows, fitted: Parameters) -> Forecast:
        """Return the weighted variance up to each row, at least that of a price that moves by 1e-6."""
        return 0.0, np.maximum(ewma_variance(History.of(bars), self.config.horizons, rows, self.config.alpha), 1e-12)
