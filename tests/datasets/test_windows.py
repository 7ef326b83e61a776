import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.datasets.windows import gather_windows, require_lengths, require_rows, window_index
from bitcorn_ray.errors import BitcornError


def slow_ends(finite, usable_close, gap_before, seq_len, horizon, excluded, filled):
    """The definition, row by row."""
    ends = []
    for end in range(seq_len - 1, len(finite) - horizon):
        rows, future = range(end - seq_len + 1, end + 1), range(end, end + horizon + 1)
        whole = not any(gap_before[row] for row in range(end - seq_len + 2, end + horizon + 1))
        traded = not any(filled[end + 1 : end + horizon + 1])
        if (
            whole
            and traded
            and not excluded[end]
            and all(finite[r] for r in rows)
            and all(usable_close[r] for r in future)
        ):
            ends.append(end)
    return ends


@given(
    rows=st.lists(st.tuples(*[st.sampled_from([True] * 12 + [False])] * 5), min_size=1, max_size=60),
    seq_len=st.integers(1, 8),
    horizon=st.integers(1, 6),
)
@settings(max_examples=300, deadline=None)
def test_the_index_equals_the_slow_definition(rows, seq_len, horizon):
    finite, usable, no_gap, free, traded = (np.array(column) for column in zip(*rows, strict=True))
    gap, excluded, filled = ~no_gap, ~free, ~traded
    index = window_index(
        rows=len(rows),
        seq_len=seq_len,
        horizon=horizon,
        gaps=gap,
        excluded=excluded,
        filled=filled,
        finite=finite,
        usable_close=usable,
    )
    assert index.ends.tolist() == slow_ends(finite, usable, gap, seq_len, horizon, excluded, filled)
    assert len(index.ends) + sum(index.left_out.values()) == max(len(rows) - seq_len - horizon + 1, 0)


@pytest.mark.parametrize("ends", [np.arange(4, 20), np.array([4, 5, 9, 19])])
def test_gathering_equals_slicing(ends):
    matrix = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    windows = gather_windows(matrix, ends, 5)
    assert windows.shape == (len(ends), 5, 3)
    for window, end in zip(windows, ends, strict=True):
        np.testing.assert_array_equal(window, matrix[end - 4 : end + 1])


def test_consecutive_windows_are_a_read_only_view():
    matrix = np.zeros((20, 3), np.float32)
    windows = gather_windows(matrix, np.arange(4, 20), 5)
    assert np.shares_memory(windows, matrix)
    assert not windows.flags.writeable


@pytest.mark.parametrize(
    ("horizons", "seq_len", "message"),
    [
        ([1], 0, "seq_len is 0"),
        ([], 5, "horizons are"),
        ([0], 5, "at least 1"),
        ([4, 4], 5, "distinct whole numbers"),
    ],
)
def test_impossible_lengths_are_refused(horizons, seq_len, message):
    with pytest.raises(BitcornError, match=message):
        require_lengths(horizons, seq_len)


def test_too_few_rows_are_refused():
    with pytest.raises(BitcornError, match=r"75 rows .* seq_len 64 and horizon 12 need at least 76"):
        require_rows([1, 12], 64, 75)


def test_the_minimum_of_rows_gives_one_window():
    require_rows([12], 64, 76)
    all_true = np.ones(76, dtype=bool)
    index = window_index(rows=76, seq_len=64, horizon=12, finite=all_true, usable_close=all_true)
    assert index.ends.tolist() == [63]


def test_the_reasons_are_named_if_no_window_is_valid():
    index = window_index(rows=9, seq_len=2, horizon=1, finite=np.zeros(9, bool), usable_close=np.ones(9, bool))
    with pytest.raises(BitcornError, match="7 for non_finite_features"):
        index.require_any()
