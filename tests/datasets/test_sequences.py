import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.datasets.sequences import fill_gaps, gap_before, make_sequences
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


@given(present=st.lists(st.booleans(), min_size=3, max_size=50), longest=st.none() | st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_filling_equals_a_loop_over_the_grid(present, longest):
    present[0] = present[-1] = True
    grid = np.flatnonzero(present)
    values = np.random.default_rng(0).normal(size=(len(grid), 2))
    times = 1_000 + 10 * grid
    for strategy in ("forward", "linear"):
        expected_times, expected_values = [], []
        for row in range(len(grid)):
            expected_times.append(times[row])
            expected_values.append(values[row])
            missing = grid[row + 1] - grid[row] - 1 if row + 1 < len(grid) else 0
            if longest is None or missing <= longest:
                for k in range(1, missing + 1):
                    share = k / (missing + 1) if strategy == "linear" else 0.0
                    expected_times.append(times[row] + 10 * k)
                    expected_values.append(values[row] * (1 - share) + values[min(row + 1, len(grid) - 1)] * share)
        rows = fill_gaps(times, values, 10, strategy, longest)
        assert rows.timestamp.tolist() == expected_times
        np.testing.assert_allclose(rows.values, expected_values, atol=1e-12)
        assert rows.filled.sum() == len(expected_times) - len(grid)
        np.testing.assert_array_equal(rows.timestamp[~rows.filled], times)


def test_rows_off_the_grid_are_left_unchanged():
    times = np.array([0, 10, 35, 45, 50, 60])
    rows = fill_gaps(times, np.zeros((6, 1)), 10, "forward")
    assert rows.timestamp.tolist() == times.tolist()
    # Four bars after one of these are not four bars later.
    assert gap_before(times, 10).tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("strategy", "longest", "message"), [("cubic", None, "'cubic'"), ("linear", 0, "max_gap_size is 0")]
)
def test_bad_arguments_are_refused(strategy, longest, message):
    with pytest.raises(BitcornError, match=message):
        fill_gaps(np.arange(3), np.zeros((3, 1)), 1, strategy, longest)
