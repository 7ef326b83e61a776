import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.validation.splits import holdout


@given(
    ends=st.sets(st.integers(0, 3_000), min_size=150, max_size=300).map(lambda rows: np.array(sorted(rows))),
    val_frac=st.floats(0.05, 0.5),
    purge=st.integers(1, 48),
)
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


@pytest.mark.parametrize(("count", "purge"), [(3, 1), (20, 19)])
def test_a_part_without_windows_is_refused(count, purge):
    with pytest.raises(BitcornError, match="give more bars"):
        holdout(np.arange(count), 0.1, purge)
