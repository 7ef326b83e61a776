from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.datasets.folds import Shares, holdout, split_by_shares
from bitcorn_ray.errors import BitcornError

HOUR = 3_600_000


def some_rows(count, seed):
    return np.sort(np.random.default_rng(seed).choice(3_000, count, replace=False))


class Parts(NamedTuple):
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_windows(ends, times, reaches, val_frac, test_frac=0.0):
    """Return the end rows of the windows in each part, of each partition. times: instants at which the windows end."""
    instants = []
    for rows, when in zip(ends, times, strict=True):
        every = np.interp(np.arange(rows[-1] + 1), rows, when).astype(np.int64)
        every[: rows[0]] = when[0] - np.arange(rows[0], 0, -1)
        instants.append(every)
    split = split_by_shares(Shares(validation=val_frac, test=test_frac), instants, ends, reaches)
    return [
        Parts(*(rows[slice(*np.searchsorted(rows, span))] for span in (own.train, own.validation, own.test)))
        for own, rows in zip(split, ends, strict=True)
    ]


END_ROWS = st.builds(some_rows, count=st.integers(150, 300), seed=st.integers(0, 10_000))


@settings(deadline=None)
@given(ends=END_ROWS, val_frac=st.floats(0.05, 0.5), purge=st.integers(1, 48))
def test_parts_are_ordered_disjoint_and_no_label_crosses(ends, val_frac, purge):
    train, validation = holdout(ends, val_frac, purge)
    assert len(validation) == round(len(ends) * val_frac)
    assert set(train) | set(validation) <= set(ends)
    # A training label ends `purge` bars after its window: not after the bar that the first validation window ends on.
    assert train[-1] + purge <= validation[0]
    # and nothing is purged without need
    dropped = set(ends) - set(train) - set(validation)
    assert all(end + purge > validation[0] for end in dropped)


@pytest.mark.parametrize("val_frac", [0.0, 1.0, -0.1, 1.5])
def test_a_share_outside_0_to_1_is_refused(val_frac):
    with pytest.raises(BitcornError, match="between 0 and 1"):
        holdout(np.arange(100), val_frac, 1)


@pytest.mark.parametrize(("count", "purge"), [(0, 1), (3, 1), (20, 19)])
def test_a_part_without_windows_is_refused(count, purge):
    with pytest.raises(BitcornError, match="give more bars"):
        holdout(np.arange(count), 0.1, purge)


@st.composite
def partitions(draw):
    """One to three partitions that start at hours of their own, with holes, their timeframes 1 to 4 hours."""
    ends, times, bars = [], [], []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(END_ROWS)
        bar = draw(st.sampled_from([1, 2, 4])) * HOUR
        ends.append(rows)
        times.append(1_500_000_000_000 + draw(st.integers(0, 500)) * HOUR + rows * bar)
        bars.append(bar)
    return ends, times, bars


@settings(deadline=None)
@given(given_=partitions(), val_frac=st.floats(0.1, 0.4), test_frac=st.floats(0.1, 0.4), horizon=st.integers(1, 12))
def test_partitions_are_split_at_the_same_instants_and_no_label_crosses(given_, val_frac, test_frac, horizon):
    ends, times, bars = given_
    splits = split_windows(ends, times, [horizon * bar for bar in bars], val_frac, test_frac)
    instants = [dict(zip(rows, when, strict=True)) for rows, when in zip(ends, times, strict=True)]
    parts = [
        [np.array([when[row] for row in split[part]]) for split, when in zip(splits, instants, strict=True)]
        for part in range(3)
    ]
    starts = [min(when.min() for when in part if len(when)) for part in parts]
    for part in (0, 1):
        # Neither its windows nor its labels reach past the first instant of the next part, in any partition.
        for when, bar in zip(parts[part], bars, strict=True):
            assert (when + horizon * bar <= starts[part + 1]).all()
            assert (when < starts[part + 1]).all()
    every = np.concatenate(times)
    for part, share in ((1, val_frac + test_frac), (2, test_frac)):
        # As many windows as asked from the cut on: windows of one instant stay together, so up to one more a partition;
        # and the first window from the cut on is in the part, unless its label reached the part after it.
        reached = (every >= starts[part]).sum()
        purged_at_the_cut = horizon * 4 * len(ends) if part == 1 else 0
        assert share * len(every) - 2 - purged_at_the_cut <= reached <= share * len(every) + len(ends) + 1
    for split, rows, when, bar in zip(splits, ends, times, bars, strict=True):
        assert all((np.diff(part) > 0).all() for part in split)
        kept = np.concatenate(split)
        assert len(set(kept)) == len(kept)
        dropped = np.isin(rows, kept, invert=True)
        label = when + horizon * bar  # what was dropped had a label that crossed a cut
        crossed = [(when < start) & (label > start) for start in starts[1:]]
        # (a cut lies at or before the first window that was kept after it)
        assert (dropped <= (crossed[0] | crossed[1] | (when < starts[1]) & (label > starts[0]))).all()


@settings(deadline=None)
@given(ends=END_ROWS, val_frac=st.floats(0.05, 0.5), horizon=st.integers(1, 48), bar=st.sampled_from([1, HOUR]))
def test_one_partition_without_test_equals_holdout(ends, val_frac, horizon, bar):
    (split,) = split_windows([ends], [ends * bar], [horizon * bar], val_frac)
    train, validation = holdout(ends, val_frac, horizon)
    # The slow, obvious version.
    first = len(ends) - round(len(ends) * val_frac)
    assert validation.tolist() == ends[first:].tolist()
    assert train.tolist() == [end for end in ends if end + horizon <= ends[first]]
    assert [part.tolist() for part in split] == [train.tolist(), validation.tolist(), []]


def test_a_partition_that_starts_late_may_lack_a_part():
    long, late = np.arange(1_000), np.arange(50)
    splits = split_windows([long, late], [long, 950 + late], [5, 5], 0.1, 0.1)
    assert [len(part) for part in splits[1]] == [0, 0, 50]
    # 1,050 windows, 105 of them tested (55 and 50), so from instant 945 on; 105 validate, so from 840 on.
    assert (splits[0].test[0], splits[0].test[-1]) == (945, 999)
    assert (splits[0].validation[0], splits[0].validation[-1]) == (840, 940)
    assert (splits[0].train[0], splits[0].train[-1]) == (0, 835)


def test_a_share_that_leaves_no_training_is_refused():
    with pytest.raises(BitcornError, match=r"val_frac is 0\.5 and test_frac 0\.5"):
        Shares(validation=0.5, test=0.5)
    with pytest.raises(BitcornError, match="0 for testing: give more bars"):
        split_windows([np.arange(100)], [np.arange(100)], [1], 0.2, 0.001)
