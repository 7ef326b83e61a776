import numpy as np
import pytest

from bitcorn_ray.datasets.sequences import make_sequences
from bitcorn_ray.errors import BitcornError

ARGUMENTS = {
    "feature_cols": ["a", "b"],
    "seq_len": 5,
    "horizon": 2,
    "step": None,
    "fill_strategy": None,
    "max_gap_size": None,
    "validate": True,
    "dtype": np.float32,
    "fit": False,
    "scaler": None,
}


def rows(n, missing=()):
    keep = np.setdiff1d(np.arange(n), missing)
    matrix = np.column_stack([keep, keep**2]).astype(np.float64)
    return {"matrix": matrix, "close": 100.0 + keep, "timestamp": keep * 60_000}


def test_the_step_defaults_to_the_most_frequent_distance():
    found = make_sequences(**rows(40, missing=[20]), **ARGUMENTS)
    given = make_sequences(**rows(40, missing=[20]), **{**ARGUMENTS, "step": 60_000})
    assert found.metadata["left_out"] == given.metadata["left_out"]
    assert found.metadata["left_out"]["gap"] == 5 + 2 - 1


def test_a_linear_fill_restores_a_straight_line_and_ends_no_window_on_it():
    whole, holed = (make_sequences(**rows(40, m), **{**ARGUMENTS, "fill_strategy": "linear"}) for m in ([], [20, 21]))
    assert holed.metadata["filled_bars"] == 2
    assert holed.metadata["left_out"]["end_in_interpolated_gap"] == 2
    at = ~np.isin(whole.metadata["end_timestamps"], np.array([20, 21]) * 60_000)
    np.testing.assert_array_equal(holed.metadata["end_timestamps"], whole.metadata["end_timestamps"][at])
    np.testing.assert_allclose(holed.x[:, :, 0], whole.x[at][:, :, 0], rtol=1e-6)
    np.testing.assert_allclose(holed.y_ret, whole.y_ret[at], rtol=1e-4)


def test_windows_may_end_on_forward_filled_bars():
    result = make_sequences(**rows(40, missing=[20]), **{**ARGUMENTS, "fill_strategy": "forward"})
    at = int(np.flatnonzero(result.metadata["end_timestamps"] == 20 * 60_000)[0])
    assert result.metadata["end_filled"].sum() == 1
    assert result.metadata["end_filled"][at]
    assert result.metadata["end_rows"][at] == 19
    np.testing.assert_array_equal(result.x[at, -1], result.x[at, -2])


def test_rows_without_times_need_validation_off():
    plain = {**rows(40), "timestamp": None}
    with pytest.raises(BitcornError, match="validate_chronology=False"):
        make_sequences(**plain, **ARGUMENTS)
    assert make_sequences(**plain, **{**ARGUMENTS, "validate": False}).metadata["end_timestamps"] is None
