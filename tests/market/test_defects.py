import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitcorn_ray.market.bars import Bars
from bitcorn_ray.market.defects import Duplicates, find_duplicates, find_order, grid_phase, value_defects

HOUR = 3_600_000
PRICES = ("open", "high", "low", "close", "volume")


def two_rows(first, second):
    columns = {name: np.array([a, b], dtype=np.float64) for name, a, b in zip(PRICES, first, second, strict=True)}
    return Bars(timestamp=np.array([HOUR, HOUR]), **columns)


FINE = (37_100.123456, 37_600.4, 37_000.25, 37_584.76, 798.276499)


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (FINE, "equal"),
        ((37_100.12, 37_600.4, 37_000.25, 37_584.76, 798.28), "rounding"),
        ((37_100.123456, 37_600.4, 37_000.25, 37_584.76, 798.0), "rounding"),
        ((37_100.123456, 37_500.0, 37_050.0, 37_200.0, 120.5), "unfinished"),
        ((37_100.123456, 37_600.4, 37_000.25, 37_584.77, 798.276499), "conflict"),
        ((37_100.123456, 37_700.0, 37_050.0, 37_200.0, 120.5), "conflict"),
        ((37_090.0, 37_500.0, 37_050.0, 37_200.0, 120.5), "conflict"),
        ((np.nan, 37_600.4, 37_000.25, 37_584.76, 798.276499), "conflict"),
    ],
)
def test_rows_of_one_time_are_compared_in_either_order(other, kind):
    for rows in ((FINE, other), (other, FINE)):
        assert find_duplicates(two_rows(*rows)).kind.tolist() == [kind]


def test_missing_values_are_equal_to_missing_values():
    nothing = (np.nan,) * 5
    assert find_duplicates(two_rows(nothing, nothing)).kind.tolist() == ["equal"]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1.0, 2.0])), max_size=40))
def test_each_row_but_the_last_of_its_time_is_a_duplicate(rows):
    times = np.cumsum(np.array([step for step, _ in rows], dtype=np.int64))
    value = np.array([v for _, v in rows])
    found = find_duplicates(Bars(timestamp=times, open=value, high=value, low=value, close=value, volume=value))
    frame = pd.DataFrame({"t": times, "v": value})
    again = frame[frame["t"].duplicated(keep="last")]
    assert found.times.tolist() == again["t"].tolist()
    last = frame.groupby("t")["v"].last()
    assert (found.kind == "equal").tolist() == (again["v"].to_numpy() == last[again["t"]].to_numpy()).tolist()
    assert sum(found.counts().values()) == len(again)
    assert list(found.counts()) == list(Duplicates.KINDS)


@given(st.lists(st.integers(0, 50), unique=True, min_size=2, max_size=30))
def test_sorted_rows_are_in_order_either_way(times):
    up = np.sort(np.array(times))
    assert find_order(up) == ("ascending", 0)
    assert find_order(up[::-1]) == ("descending", 0)


def test_rows_against_the_order_are_counted():
    assert find_order(np.array([1, 2, 9, 3, 4, 4, 5])) == ("ascending", 1)
    assert find_order(np.array([9, 7, 8, 5, 6, 1, 1])) == ("descending", 2)
    assert find_order(np.array([], dtype=np.int64)) == ("ascending", 0)


@given(st.integers(0, HOUR - 1), st.lists(st.integers(0, HOUR - 1), max_size=5))
def test_the_phase_is_where_most_times_lie(phase, strays):
    times = np.concatenate([phase + HOUR * np.arange(20), np.array(strays, dtype=np.int64)])
    assert grid_phase(times, HOUR) == phase


def test_the_phase_of_nothing_is_the_epoch():
    assert grid_phase(np.array([], dtype=np.int64), HOUR) == 0
    assert grid_phase(np.array([5, 6]), 0) == 0


value = st.sampled_from([1.0, 1.0, 2.0, 3.0, 0.0, -1.0, float("nan"), float("inf")])


@given(st.lists(st.tuples(value, value, value, value, value), max_size=30))
def test_impossible_values_are_those_of_a_slow_loop(rows):
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    bars = Bars(timestamp=HOUR * np.arange(len(rows)), **dict(zip(PRICES, columns, strict=True)))
    found = value_defects(bars)
    for n, (o, h, low, c, v) in enumerate(rows):
        assert found["missing_values"][n] == (not all(np.isfinite([o, h, low, c, v])))
        assert found["non_positive_prices"][n] == any(price <= 0 for price in (o, h, low, c))
        assert found["negative_volume"][n] == (v < 0)
        contradicts = any(h < each for each in (o, low, c)) or any(low > each for each in (o, h, c))
        assert found["ohlc_violations"][n] == contradicts
