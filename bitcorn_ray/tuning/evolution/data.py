"""The features of several systems side by side, each system's through the cache as anybody else's.

Where any feature of a row is missing the row is: all subsets are then judged on the same windows, and none gains by
leaving out the hard ones. Shapes: T rows of all partitions, F features of all systems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bitcorn_ray.datasets.load import FeatureMatrix
from bitcorn_ray.tuning.data import SweepData, sweep_data
from bitcorn_ray.tuning.evolution.config import EvolveConfig


def evolve_data(
    config: EvolveConfig, *, cache_dir: str | Path | None = None, log_fn: Callable[[str], None] | None = None
) -> SweepData:
    """Load the bars, cut them into folds, and put the features of all systems into one matrix.

    Raises BitcornError as `sweep_data` does.
    """
    spec = config.sweep.run.features
    data = sweep_data(config.sweep, cache_dir=cache_dir, systems=config.systems, log_fn=log_fn)
    variants = [data.variants[each] for each in config.systems]
    matrix = np.concatenate([each.matrix for each in variants], axis=1)
    missing = ~np.isfinite(matrix).all(1)
    matrix[missing] = np.nan
    if log_fn:
        log_fn(f"{matrix.shape[1]} features together, complete in {(~missing).sum():,} of {len(matrix):,} bars")
    whole = FeatureMatrix(
        spec=spec,
        version=1,
        features=config.features,
        matrix=matrix,
        keys=tuple(key for each in variants for key in each.keys),
    )
    return replace(data, variants={spec: whole})
