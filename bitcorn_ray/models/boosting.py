"""Gradient-boosted trees: scikit-learn's histogram boosting (after LightGBM, Ke et al. 2017) on a table of features.

1. The table has the features at the end of each window, and at some bars before (`lags`).
2. One ensemble a horizon for the return, by squared error, and one for the realised variance, by the gamma deviance,
   which is QLIKE up to a constant and whose mean is unbiased. Both are in units of the reference volatility, so that
   one model serves all partitions.
3. The number of trees of each ensemble is the one with the least loss on the validation windows; it may be zero, which
   leaves the mean of the training windows.

A fitted model is arrays of tree nodes, from which numpy predicts. Nothing is pickled.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import Dataset
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import (
    FitContext,
    FitResult,
    ModelConfig,
    Prediction,
    Shape,
    Traits,
    WindowSet,
    require_at_least,
    single_result,
)
from bitcorn_ray.storage.arrays import pack_arrays, unpack_arrays

Float = NDArray[np.float64]

_NODE_FIELDS = ("value", "feature_idx", "num_threshold", "missing_go_to_left", "left", "right", "is_leaf")
_VARIANCE_FLOOR = 1e-6  # of a realised variance in units of the reference variance: the gamma deviance needs y > 0


@dataclass(frozen=True, kw_only=True)
class BoostingConfig(ModelConfig):
    """The options of boosting.

    lags: bars before a window's end whose features are inputs, below seq_len; 0 is its last bar. trees: the most trees
    of an ensemble. learning_rate: weight of a tree. leaves: the most of a tree. min_leaf_windows: the fewest windows in
    a leaf. l2: regularisation of a leaf's value.
    """

    kind: Literal["boosting"] = "boosting"
    seq_len: int = 1
    lags: tuple[int, ...] = (0,)
    trees: int = 200
    learning_rate: float = 0.05
    leaves: int = 15
    min_leaf_windows: int = 100
    l2: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "trees", "min_leaf_windows")
        require_at_least(self, 2, "leaves")
        require_at_least(self, 0, "l2")
        if not 0 < self.learning_rate <= 1:
            raise BitcornError(f"learning_rate is {self.learning_rate}: it must lie between 0 and 1")
        if not self.lags or min(self.lags) < 0 or len(set(self.lags)) != len(self.lags):
            raise BitcornError(f"lags are {list(self.lags)}: give distinct whole numbers, each at least 0")
        if max(self.lags) >= self.seq_len:
            raise BitcornError(
                f"lags reach back {max(self.lags)} bars, but seq_len is {self.seq_len}: give a longer seq_len"
            )


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Fitted trees as flat arrays. base: prediction without trees. starts: first node of each tree, then their number.

    nodes: arrays of all nodes by name, those of one tree after another; children are indexes within a tree.
    """

    base: float
    starts: NDArray[np.int64]
    nodes: Mapping[str, NDArray[Any]]

    def predict(self, x: Float) -> Float:
        """Return the sum of the base and all trees for inputs (N, K): (N,)."""
        total = np.full(len(x), self.base)
        rows = np.arange(len(x))
        for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            node = {name: values[start:stop] for name, values in self.nodes.items()}
            at = np.zeros(len(x), np.int64)
            while not (leaf := node["is_leaf"][at].astype(bool)).all():
                value = x[rows, node["feature_idx"][at]]
                left = np.where(
                    np.isnan(value), node["missing_go_to_left"][at].astype(bool), value <= node["num_threshold"][at]
                )
                at = np.where(leaf, at, np.where(left, node["left"][at], node["right"][at]).astype(np.int64))
            total += node["value"][at]
        return total


class Boosting:
    """Gradient-boosted trees. returns, variances: an ensemble for each horizon."""

    Config: ClassVar[Any] = BoostingConfig
    traits: ClassVar[Traits] = Traits()

    def __init__(
        self, config: BoostingConfig, returns: list[Ensemble] | None = None, variances: list[Ensemble] | None = None
    ) -> None:
        self.config, self.returns, self.variances = config, returns or [], variances or []

    @classmethod
    def create(cls, config: BoostingConfig, shape: Shape) -> Self:
        """Return an unfitted model."""
        return cls(config)

    def fit(self, data: Dataset, training: Any, context: FitContext) -> FitResult:
        """Fit the ensembles on the training windows, and select their sizes on the validation windows."""
        started = time.perf_counter()
        train, validation = (
            (self._table(WindowSet.of_dataset(data, ends, self.config)), data.reference[ends, None], ends)
            for ends in (data.train_ends, data.validation_ends)
        )
        self.returns, self.variances = [], []
        for j in range(len(self.config.horizons)):
            targets = [
                (
                    (data.returns[ends] / reference)[:, j].astype(np.float64),
                    np.maximum((data.volatilities[ends] / reference)[:, j].astype(np.float64) ** 2, _VARIANCE_FLOOR),
                )
                for _, reference, ends in (train, validation)
            ]
            for column, (loss, ensembles) in enumerate((("squared_error", self.returns), ("gamma", self.variances))):
                y, held_out = targets[0][column], targets[1][column]
                ensembles.append(self._fit_ensemble(loss, train[0], y, validation[0], held_out, training.seed))
        result = single_result(self, data, time.perf_counter() - started)
        if context.report:
            context.report(result)
        return FitResult([result])

    def predict(self, windows: WindowSet) -> Prediction:
        """Return the forecasts of some windows."""
        x = self._table(windows)
        unit = np.ones(len(windows)) if windows.reference is None else windows.reference[windows.ends]
        returns = np.column_stack([ensemble.predict(x) for ensemble in self.returns]) * unit[:, None]
        variances = np.exp(np.column_stack([ensemble.predict(x) for ensemble in self.variances]))
        return Prediction(returns, np.sqrt(variances) * unit[:, None])

    @property
    def needs_known_partition(self) -> bool:
        """Return False: one model serves all partitions."""
        return False

    def history_needed(self, step: int) -> int:
        """Return 1: only the features of a window are used."""
        return 1

    def artifacts(self) -> dict[str, bytes]:
        """Return the nodes of all trees in one file."""
        arrays: dict[str, Any] = {}
        for name, ensembles in (("returns", self.returns), ("variances", self.variances)):
            for j, ensemble in enumerate(ensembles):
                own = {"base": np.array(ensemble.base), "starts": ensemble.starts, **ensemble.nodes}
                arrays |= {f"{name}/{j}/{key}": value for key, value in own.items()}
        return {"trees.npz": pack_arrays(arrays, compress=True)}

    @classmethod
    def restore(cls, config: BoostingConfig, shape: Shape, artifacts: Mapping[str, bytes]) -> Self:
        """Return the model of `artifacts`."""
        arrays = unpack_arrays(artifacts["trees.npz"])

        def read(name: str, j: int) -> Ensemble:
            nodes = {key: arrays[f"{name}/{j}/{key}"] for key in _NODE_FIELDS}
            return Ensemble(float(arrays[f"{name}/{j}/base"]), arrays[f"{name}/{j}/starts"], nodes)

        count = range(len(config.horizons))
        return cls(config, [read("returns", j) for j in count], [read("variances", j) for j in count])

    def _table(self, windows: WindowSet) -> Float:
        return windows.table(self.config.lags).astype(np.float64)

    def _fit_ensemble(
        self, loss: str, x: Float, y: Float, x_validation: Float, y_validation: Float, seed: int
    ) -> Ensemble:
        """Fit one ensemble, and keep as many trees as do best on the validation windows."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        model = HistGradientBoostingRegressor(
            loss=loss,
            learning_rate=self.config.learning_rate,
            max_iter=self.config.trees,
            max_leaf_nodes=self.config.leaves,
            min_samples_leaf=self.config.min_leaf_windows,
            l2_regularization=self.config.l2,
            early_stopping=False,
            random_state=seed,
        ).fit(x, y)
        base = float(np.ravel(model._baseline_prediction)[0])
        deviance = _gamma_deviance if loss == "gamma" else _squared_error
        mean = np.exp(base) if loss == "gamma" else base
        losses = [deviance(y_validation, np.full(len(y_validation), mean))]
        losses += [deviance(y_validation, prediction) for prediction in model.staged_predict(x_validation)]
        kept = int(np.argmin(losses))
        trees = [predictors[0].nodes for predictors in model._predictors[:kept]]
        starts = np.cumsum([0, *(len(nodes) for nodes in trees)])
        empty = np.empty(0)
        nodes = {name: np.concatenate([tree[name] for tree in trees]) if trees else empty for name in _NODE_FIELDS}
        return Ensemble(base, starts, nodes)


def _squared_error(y: Float, prediction: Float) -> float:
    return float(np.square(y - prediction).mean())


def _gamma_deviance(y: Float, prediction: Float) -> float:
    return float((y / prediction - np.log(y / prediction)).mean())
