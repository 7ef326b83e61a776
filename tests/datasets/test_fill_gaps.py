import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.datasets.sequences import fill_gaps, gap_before
from bitcorn_ray.errors import BitcornError


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
