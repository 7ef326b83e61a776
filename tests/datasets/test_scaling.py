import json

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from bitcorn_ray.datasets.scaling import fit_scaler, scale, scaler_from_json, scaler_to_json
from bitcorn_ray.errors import BitcornError


@pytest.fixture
def matrix():
    matrix = np.random.default_rng(0).normal([0, 5, 1e5], [1, 2, 1e-2], (500, 3))
    return np.column_stack([matrix, np.full(500, 7.0)])


def test_scaling_equals_scikit_learn(matrix):
    scaler = fit_scaler(matrix)
    # A mean of 1e5 under a deviation of 0.01 is known to 1e-8 deviations, depending on the order of summation.
    np.testing.assert_allclose(scale(matrix, scaler, np.float64), StandardScaler().fit_transform(matrix), atol=1e-7)


def test_non_finite_rows_are_not_fitted_on_and_kept(matrix):
    spoilt = matrix.copy()
    spoilt[10, 1], spoilt[20, 2] = np.nan, np.inf
    keep = np.ones(500, bool)
    keep[[10, 20]] = False
    scaler = fit_scaler(spoilt)
    np.testing.assert_allclose(scaler.mean_, StandardScaler().fit(matrix[keep]).mean_, rtol=1e-13, atol=1e-15)
    assert np.isfinite(scale(spoilt, scaler)).all(1).tolist() == keep.tolist()


def test_json_rebuilds_the_scaler_to_the_bit(matrix):
    scaler = fit_scaler(matrix)
    rebuilt = scaler_from_json(json.loads(json.dumps(scaler_to_json(scaler))))
    np.testing.assert_array_equal(rebuilt.transform(matrix), scaler.transform(matrix))
    assert rebuilt.n_samples_seen_ == 500


def test_another_number_of_features_is_refused(matrix):
    with pytest.raises(BitcornError, match="fitted on 4 features, the rows have 2"):
        scale(matrix[:, :2], fit_scaler(matrix))


def test_a_matrix_without_finite_rows_is_refused():
    with pytest.raises(BitcornError, match="no row has only finite"):
        fit_scaler(np.full((5, 2), np.nan))


def test_blocks_give_the_result_of_the_whole_matrix(monkeypatch):
    from sklearn.preprocessing import StandardScaler

    from bitcorn_ray.datasets import scaling

    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(1_003, 5)) * [1, 10, 1e-3, 1, 1] + [0, 100, 0, 5, 0]).astype(np.float32)
    matrix[[3, 500], [1, 4]] = np.nan, np.inf
    finite = np.isfinite(matrix).all(1)
    monkeypatch.setattr(scaling, "_BLOCK", 5 * 64)
    scaler = scaling.fit_scaler(matrix[:400], matrix[400:])
    at_once = StandardScaler().fit(matrix[finite].astype(np.float64))
    np.testing.assert_allclose(scaler.mean_, at_once.mean_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaler.scale_, at_once.scale_, rtol=1e-6)
    np.testing.assert_array_equal(scaling.finite_rows(matrix), finite)
    expected = scaling.scale(matrix[finite], scaler)
    scaling.scale_in_place(matrix, scaler)
    np.testing.assert_array_equal(matrix[finite], expected)
    assert (matrix[~finite] == 0).all()
