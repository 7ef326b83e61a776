"""Standardising features: (x - mean) / scale per column, with scikit-learn's StandardScaler as the users' object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

__all__ = ["finite_rows", "fit_scaler", "scale", "scaler_from_json", "scaler_to_json"]

Matrix = NDArray[np.floating]


def fit_scaler(matrix: Matrix) -> StandardScaler:
    """Fit a StandardScaler on the finite rows of (T, F). Raises BitcornError where no row is finite."""
    from sklearn.preprocessing import StandardScaler

    finite = finite_rows(matrix)
    if not finite.any():
        raise BitcornError("no row has finite features only: nothing to fit the scaler on")
    # Column by column in memory: scikit-learn sums along columns, three times faster so.
    return StandardScaler().fit(np.asfortranarray(matrix if finite.all() else matrix[finite]))


def finite_rows(matrix: Matrix) -> NDArray[np.bool_]:
    """Mark the rows of (T, F) in which every value is finite: (T,)."""
    finite = np.isfinite(matrix)
    # Whole matrices are the rule, and found out at a twentieth of the cost of looking row by row.
    return np.ones(len(matrix), dtype=bool) if finite.all() else np.all(finite, axis=1)


def scale(matrix: Matrix, scaler: StandardScaler, dtype: Any = np.float32) -> Matrix:
    """Scale (T, F); values that are not finite stay so. Raises BitcornError for another number of features."""
    expected = len(scaler.scale_)
    if matrix.shape[1] != expected:
        raise BitcornError(f"the scaler was fitted on {expected} features, the rows have {matrix.shape[1]}")
    scaled: Matrix = matrix - scaler.mean_  # in float64: a feature far from zero keeps its digits
    scaled /= scaler.scale_
    return scaled.astype(dtype, copy=False)


def scaler_to_json(scaler: StandardScaler) -> dict[str, Any]:
    """Return what rebuilds a fitted scaler, as plain values."""
    return {
        "mean": scaler.mean_.tolist(),
        "variance": scaler.var_.tolist(),
        "scale": scaler.scale_.tolist(),
        "rows": int(np.max(scaler.n_samples_seen_)),
    }


def scaler_from_json(values: dict[str, Any]) -> StandardScaler:
    """Rebuild a scaler from `scaler_to_json`."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_, scaler.var_, scaler.scale_ = (np.array(values[name]) for name in ("mean", "variance", "scale"))
    scaler.n_samples_seen_, scaler.n_features_in_ = values["rows"], len(values["mean"])
    return scaler
