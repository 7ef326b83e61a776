import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.clean import drop_duplicates

PRICES = ("open", "high", "low", "close", "volume")


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30))
def test_the_last_stored_row_of_each_time_is_kept(steps):
    times = np.cumsum(np.array(steps, dtype=np.int64))
    row = np.arange(len(times), dtype=np.float64)
    kept = drop_duplicates(Bars(timestamp=times, **{name: row + i for i, name in enumerate(PRICES)}))
    last = {time: n for n, time in enumerate(times.tolist())}
    assert kept.timestamp.tolist() == list(last)
    for i, name in enumerate(PRICES):
        assert getattr(kept, name).tolist() == [n + i for n in last.values()]


def test_bars_without_duplicates_are_not_copied(random_bars):
    bars = random_bars(100)
    assert drop_duplicates(bars) is bars


def test_bars_without_times_are_left_as_they_are():
    bars = Bars(timestamp=None, **{name: np.ones(3) for name in PRICES})
    assert drop_duplicates(bars) is bars


def test_missing_prices_are_not_repaired(random_bars):
    bars = random_bars(50)
    bars.close[7] = np.nan
    assert np.isnan(drop_duplicates(bars.take(np.repeat(np.arange(50), 2))).close).nonzero()[0].tolist() == [7]
