"""Standardise features: (x - mean) / scale per column, with scikit-learn's StandardScaler as the public object.

Fitting and scaling work block by block, so that they need no second matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler


Matrix = NDArray[np.floating]

_BLOCK = 1 << 20  # numbers worked on at once: 8 MB in float64


def fit_scaler(*matrices: Matrix) -> StandardScaler:
    """Return a StandardScaler fitted on the finite rows of one or more matrices (T, F).

    Raises BitcornError if no row is finite.
    """
    from sklearn.preprocessing import StandardScaler

    scaler, fitted = StandardScaler(), False
    for matrix in matrices:
        for block in _blocks(matrix):
            finite = finite_rows(block)
            if finite.any():
                # Fortran order: scikit-learn sums along columns, which is then three times faster.
                scaler.partial_fit(np.asfortranarray(block if finite.all() else block[finite]))
                fitted = True
    if not fitted:
        raise BitcornError("no row has only finite features: there is nothing to fit the scaler on")
    return scaler


def finite_rows(matrix: Matrix) -> NDArray[np.bool_]:
    """Return True for the rows of (T, F) in which every value is finite: (T,)."""
    marks = np.ones(len(matrix), dtype=bool)
    start = 0
    for block in _blocks(matrix):
        finite = np.isfinite(block)
        # Most blocks are finite throughout; checking them whole costs a twentieth of checking row by row.
        if not finite.all():
            marks[start : start + len(block)] = finite.all(axis=1)
        start += len(block)
    return marks


def scale(matrix: Matrix, scaler: StandardScaler, dtype: Any = np.float32) -> Matrix:
    """Return (T, F) scaled; values that are not finite stay so. Raises BitcornError for another number of features."""
    _require_features(matrix, scaler)
    scaled: Matrix = matrix - scaler.mean_  # in float64: a feature far from zero keeps its digits
    scaled /= scaler.scale_
    return scaled.astype(dtype, copy=False)


def scale_in_place(matrix: Matrix, scaler: StandardScaler) -> None:
    """Scale (T, F) in place, equal to `scale`; rows with a value that is not finite become zero.

    Raises BitcornError for another number of features.
    """
    _require_features(matrix, scaler)
    for block in _blocks(matrix):
        finite = finite_rows(block)
        with np.errstate(invalid="ignore"):
            block[:] = scale(block, scaler, block.dtype)
        if not finite.all():
            block[~finite] = 0.0


def scaler_to_json(scaler: StandardScaler) -> dict[str, Any]:
    """Return a fitted scaler as plain values, for `scaler_from_json`."""
    return {
        "mean": scaler.mean_.tolist(),
        "variance": scaler.var_.tolist(),
        "scale": scaler.scale_.tolist(),
        "rows": int(np.max(scaler.n_samples_seen_)),
    }


def scaler_from_json(values: dict[str, Any]) -> StandardScaler:
    """Return the scaler of the values of `scaler_to_json`."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaler.mean_, scaler.var_, scaler.scale_ = (np.array(values[name]) for name in ("mean", "variance", "scale"))
    scaler.n_samples_seen_, scaler.n_features_in_ = values["rows"], len(values["mean"])
    return scaler


def _blocks(matrix: Matrix) -> Iterator[Matrix]:
    """Yield successive views of (T, F), at least one, so that an empty matrix is visited too."""
    rows = max(_BLOCK // max(matrix.shape[1], 1), 1)
    for start in range(0, max(len(matrix), 1), rows):
        yield matrix[start : start + rows]


def _require_features(matrix: Matrix, scaler: StandardScaler) -> None:
    expected = len(scaler.scale_)
    if matrix.shape[1] != expected:
        raise BitcornError(f"the scaler was fitted on {expected} features, the rows have {matrix.shape[1]}")
