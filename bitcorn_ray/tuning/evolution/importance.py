"""Permutation importance out of sample: the loss increase on test windows after a feature is shuffled.

1. Train the fold as the sweep does, and take the loss of its test windows. 2. For a feature, cut the rows that these
windows read, in each partition, into blocks of consecutive rows, and permute the blocks in that feature's column alone:
the feature no longer matches the time, but keeps its distribution and most of its autocorrelation. 3. The loss increase
over several permutations is the importance. Near zero or below, the model does not use the feature.

Correlated features replace one another, so that each can look unimportant although they are important together.
Shapes: T rows, F features, N windows, H horizons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.datasets.dataset import Dataset, PartitionBars
from bitcorn_ray.datasets.folds import FoldRows
from bitcorn_ray.datasets.load import FeatureMatrix
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.base import Model
from bitcorn_ray.tuning.config import TrialConfig
from bitcorn_ray.tuning.folder import SweepFolder
from bitcorn_ray.tuning.records import record_key
from bitcorn_ray.tuning.trial import (
    TrialPlan,
    fitted_model,
    fold_dataset,
    fold_keys,
    forecast_rows,
    mean_loss,
)

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Shuffles:
    """How features are shuffled. count: of permutations. block: rows that stay together. seed: of the permutations."""

    count: int
    block: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importance of a feature: mean loss increase over folds and permutations, and its standard error."""

    feature: str
    increase: float
    standard_error: float | None


def shuffled_rows(data: Dataset, seq_len: int, block: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return the rows (M,) that test windows read, ascending, and the rows whose values they get.

    Blocks are permuted within their partition. Raises BitcornError if a partition has too few rows for two blocks.
    """
    read, source = list[Rows](), list[Rows]()
    starts = data.partition_starts
    for first, stop in pairwise(starts):
        ends = data.test_ends[(data.test_ends >= first) & (data.test_ends < stop)]
        if len(ends):
            rows = np.unique(ends[:, None] - np.arange(seq_len))
            blocks = np.split(rows, range(block, len(rows), block))
            if len(blocks) < 2:
                raise BitcornError(
                    f"test windows read {len(rows)} rows, too few for two blocks of {block}: give a smaller "
                    "evolve.block, or longer test ranges"
                )
            order = rng.permutation(len(blocks))
            if (order == np.arange(len(blocks))).all():  # likely of two or three
                order = np.roll(order, 1)
            read.append(rows)
            source.append(np.concatenate([blocks[block_index] for block_index in order]))
    if not read:
        raise BitcornError("a fold has no test window: give longer test ranges")
    return np.concatenate(read), np.concatenate(source)


def fold_importance(
    bars: Sequence[PartitionBars],
    variant: FeatureMatrix,
    setting: TrialConfig,
    fold: Sequence[FoldRows],
    objective: str,
    shuffles: Shuffles,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train a fold and return `loss`, of its test windows, and `shuffled`: losses by feature, one per permutation.

    Raises BitcornError as `fit` and `shuffled_rows` do.
    """
    data, _, _ = fold_dataset(bars, variant, setting, fold)
    model, _ = fitted_model(data, setting, device)
    names = variant.features if setting.features is None else setting.features
    matrix, shuffled = data.matrix.copy(), dict[str, list[float]]()
    loss = _test_loss(model, data, matrix, setting, objective)
    for column, name in enumerate(names):
        losses = []
        for number in range(shuffles.count):
            # The permutations are the same for every feature.
            rows, source = shuffled_rows(
                data, setting.model.seq_len, shuffles.block, np.random.default_rng([shuffles.seed, number])
            )
            matrix[rows, column] = data.matrix[source, column]
            losses.append(_test_loss(model, data, matrix, setting, objective))
        matrix[:, column] = data.matrix[:, column]
        shuffled[name] = losses
    return {"loss": loss, "shuffled": shuffled}


def importance_trial(
    plan: TrialPlan,
    shuffles: Shuffles,
    folder: SweepFolder,
    fetch: Callable[[str], Any],
    configuration: Mapping[str, Any],
    report: Callable[[Mapping[str, Any]], None],
) -> None:
    """Compute the importance in each fold of a plan, as a trial, unless the folder has it."""
    setting = TrialConfig.from_json(configuration)
    for number, (fold, name) in enumerate(zip(plan.folds, _files(plan, shuffles, setting), strict=True), start=1):
        if not folder.storage.has(name):
            found = fold_importance(
                fetch("bars"), fetch(setting.system), setting, fold.rows, plan.objective, shuffles, plan.device
            )
            folder.storage.publish(name, json.dumps(found).encode())
        loss = json.loads(bytes(folder.storage.read(name)))["loss"]
        report({"fold": number, "fold_loss": loss, "loss": loss, "seconds": 0.0, "reused": False})


def is_known(plan: TrialPlan, shuffles: Shuffles, folder: SweepFolder, setting: TrialConfig) -> bool:
    """Return True if the folder has the importance in all folds."""
    names = _files(plan, shuffles, setting)
    return len(folder.storage.existing(names)) == len(names)


def read_importance(plan: TrialPlan, shuffles: Shuffles, folder: SweepFolder, setting: TrialConfig) -> list[Importance]:
    """Return the importance of each feature, the most important first; empty if a fold is missing."""
    if not is_known(plan, shuffles, folder, setting):
        return []
    increases = dict[str, list[float]]()
    for name in _files(plan, shuffles, setting):
        found = json.loads(bytes(folder.storage.read(name)))
        for feature, losses in found["shuffled"].items():
            increases.setdefault(feature, []).extend(loss - found["loss"] for loss in losses)
    importance = [
        Importance(
            feature=feature,
            increase=float(np.mean(own)),
            standard_error=float(np.std(own, ddof=1) / np.sqrt(len(own))) if len(own) > 1 else None,
        )
        for feature, own in increases.items()
    ]
    return sorted(importance, key=lambda feature: -feature.increase)


def _files(plan: TrialPlan, shuffles: Shuffles, setting: TrialConfig) -> list[str]:
    """Return the name of the file of each fold."""
    keys = (record_key(fold_keys(plan, setting, fold), asdict(shuffles)) for fold in plan.folds)
    return [f"importance-{key}.json" for key in keys]


def _test_loss(model: Model, data: Dataset, matrix: NDArray[np.float32], setting: TrialConfig, objective: str) -> float:
    forecasts = forecast_rows(model, data, matrix, data.test_ends)
    return mean_loss(data, data.test_ends, *forecasts, objective)
