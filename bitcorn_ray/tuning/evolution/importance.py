"""Permutation importance out of sample: what the forecasts of a fold's test windows lose without a feature's order.

1. Train the fold as the sweep does, and take the loss of its test windows. 2. For a feature, cut the rows that these
windows see, in each partition, into blocks of rows that follow one another, and put the blocks in another order, in
that feature's column alone: what it says of a time is lost, its own distribution and most of its course are not.
3. The loss increase, of each of several orders, is the importance: near zero, or below, the model makes nothing of it.

Correlated features stand in for one another, so that each can look unimportant while all of them together are not.
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
    """How features are shuffled. count: of orders. block: rows kept together. seed: of the orders."""

    count: int
    block: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Of one feature: mean loss increase over folds and orders, and its standard error over these."""

    feature: str
    increase: float
    standard_error: float | None


def shuffled_rows(data: Dataset, seq_len: int, block: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows (M,) that test windows see, ascending, and from which row each takes its value: blocks change places.

    Rows stay in their partition. Raises BitcornError where a partition's rows are too few for two blocks.
    """
    seen, source = list[Rows](), list[Rows]()
    starts = data.partition_starts
    for first, stop in pairwise(starts):
        ends = data.test_ends[(data.test_ends >= first) & (data.test_ends < stop)]
        if len(ends):
            rows = np.unique(ends[:, None] - np.arange(seq_len))
            blocks = np.split(rows, range(block, len(rows), block))
            if len(blocks) < 2:
                raise BitcornError(
                    f"test windows see {len(rows)} rows, which make no two blocks of {block}: give a smaller "
                    "evolve.block, or longer test ranges"
                )
            order = rng.permutation(len(blocks))
            if (order == np.arange(len(blocks))).all():  # likely of two or three
                order = np.roll(order, 1)
            seen.append(rows)
            source.append(np.concatenate([blocks[place] for place in order]))
    if not seen:
        raise BitcornError("a fold has no test window: give longer test ranges")
    return np.concatenate(seen), np.concatenate(source)


def fold_importance(
    bars: Sequence[PartitionBars],
    variant: FeatureMatrix,
    setting: TrialConfig,
    fold: Sequence[FoldRows],
    objective: str,
    shuffles: Shuffles,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train a fold; `loss` of its test windows, and `shuffled`: losses, one an order, by feature.

    Raises BitcornError as `fit` and `shuffled_rows` do.
    """
    data, _, _ = fold_dataset(bars, variant, setting, fold)
    model, _ = fitted_model(data, setting, device)
    names = variant.features if setting.features is None else setting.features
    matrix, found = data.matrix.copy(), dict[str, list[float]]()
    whole = _test_loss(model, data, matrix, setting, objective)
    for column, name in enumerate(names):
        losses = []
        for number in range(shuffles.count):
            # Every feature is shuffled by the same orders.
            rows, source = shuffled_rows(
                data, setting.model.seq_len, shuffles.block, np.random.default_rng([shuffles.seed, number])
            )
            matrix[rows, column] = data.matrix[source, column]
            losses.append(_test_loss(model, data, matrix, setting, objective))
        matrix[:, column] = data.matrix[:, column]
        found[name] = losses
    return {"loss": whole, "shuffled": found}


def importance_trial(
    plan: TrialPlan,
    shuffles: Shuffles,
    folder: SweepFolder,
    fetch: Callable[[str], Any],
    configuration: Mapping[str, Any],
    report: Callable[[Mapping[str, Any]], None],
) -> None:
    """The importance in each fold of a plan, as a trial; what is in the folder already is not done again."""
    setting = TrialConfig.from_json(configuration)
    for done, fold in enumerate(plan.folds, start=1):
        name = _file(plan, shuffles, setting, done - 1)
        if not folder.storage.has(name):
            found = fold_importance(
                fetch("bars"), fetch(setting.system), setting, fold.rows, plan.objective, shuffles, plan.device
            )
            folder.storage.publish(name, json.dumps(found).encode())
        loss = json.loads(bytes(folder.storage.read(name)))["loss"]
        report({"fold": done, "fold_loss": loss, "loss": loss, "seconds": 0.0, "reused": False})


def is_known(plan: TrialPlan, shuffles: Shuffles, folder: SweepFolder, setting: TrialConfig) -> bool:
    """Tell whether `importance_trial` is done with all folds."""
    names = [_file(plan, shuffles, setting, place) for place in range(len(plan.folds))]
    return len(folder.storage.existing(names)) == len(names)


def read_importance(plan: TrialPlan, shuffles: Shuffles, folder: SweepFolder, setting: TrialConfig) -> list[Importance]:
    """What `importance_trial` found, the most important feature first; nothing where a fold is missing."""
    if not is_known(plan, shuffles, folder, setting):
        return []
    increases = dict[str, list[float]]()
    for place in range(len(plan.folds)):
        found = json.loads(bytes(folder.storage.read(_file(plan, shuffles, setting, place))))
        for feature, losses in found["shuffled"].items():
            increases.setdefault(feature, []).extend(loss - found["loss"] for loss in losses)
    made = [
        Importance(
            feature=feature,
            increase=float(np.mean(each)),
            standard_error=float(np.std(each, ddof=1) / np.sqrt(len(each))) if len(each) > 1 else None,
        )
        for feature, each in increases.items()
    ]
    return sorted(made, key=lambda each: -each.increase)


def _file(plan: TrialPlan, shuffles: Shuffles, setting: TrialConfig, place: int) -> str:
    return f"importance-{record_key(fold_keys(plan, setting, plan.folds[place]), asdict(shuffles))}.json"


def _test_loss(model: Model, data: Dataset, matrix: NDArray[np.float32], setting: TrialConfig, objective: str) -> float:
    forecasts = forecast_rows(model, data, matrix, data.test_ends)
    return mean_loss(data, data.test_ends, *forecasts, objective)
