from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bars import some_bars, with_extra

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, grid_phase, joined, modal_step, require_chronology, show_time

HOUR = 3_600_000


def test_a_frame_of_bars_has_utc_times():
    frame = some_bars().to_frame()
    assert str(frame["timestamp"].dtype) == "datetime64[ms, UTC]"
    assert frame["timestamp"].iloc[0] == pd.Timestamp("2017-08-17 04:00", tz="UTC")


def test_columns_of_different_length_are_refused():
    columns = some_bars().columns() | {"low": np.ones(4)}
    with pytest.raises(BitcornError, match=r"differ in length.*'low': 4"):
        Bars(**columns)


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([4, 0, 0]), np.array([True, False, False, True, False])])
def test_taking_rows_takes_them_of_every_column(rows):
    bars = some_bars()
    taken = bars.take(rows)
    assert {name: column.tolist() for name, column in taken.columns().items()} == {
        name: column[rows].tolist() for name, column in bars.columns().items()
    }


def test_a_slice_of_bars_copies_nothing():
    bars = some_bars()
    taken = bars.take(slice(1, 4))
    assert all(np.shares_memory(a, b) for a, b in zip(taken.columns().values(), bars.columns().values(), strict=True))


def test_clean_bars_are_usable(random_bars):
    random_bars(300, seed=3, gaps=2).require_usable()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -1.0])
@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_price_that_is_no_positive_number_is_refused_with_its_time(name, value):
    bars = some_bars()
    getattr(bars, name)[[2, 4]] = value
    with pytest.raises(BitcornError, match=rf"{value} in 2 of 5 bars, first at 2017-08-17T06:00:00Z"):
        bars.require_usable()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_volume_that_is_not_finite_or_negative_is_refused(value):
    bars = some_bars()
    bars.volume[3] = value
    with pytest.raises(BitcornError, match=rf"volume must be a finite number of at least 0, but is {value} in 1 of 5"):
        bars.require_usable()


def test_a_volume_of_zero_is_usable():
    bars = some_bars()
    bars.volume[:] = 0.0
    bars.require_usable()


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 1, 1, 2, 1], r"2017-08-17T05:00:00Z is repeated \(row 2\D+2 such"),
        ([0, 2, 1], r"2017-08-17T05:00:00Z follows a later one \(row 2\D+1 such"),
    ],
)
def test_times_that_do_not_rise_are_refused_with_the_first_place(order, message):
    bars = some_bars().take(np.array(order))
    with pytest.raises(BitcornError, match=message):
        bars.require_usable()


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=6))
def test_chronology_holds_exactly_where_a_sorted_set_of_times_is_the_times(times):
    array = np.array(times, dtype=np.int64)
    if sorted(set(times)) == times:
        require_chronology(array)
    else:
        with pytest.raises(BitcornError):
            require_chronology(array)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 60, 60, 120, 300]), max_size=30))
def test_the_modal_step_is_the_most_frequent_positive_distance(steps):
    times = np.concatenate(([0], np.cumsum(np.array(steps, dtype=np.int64))))
    counts = Counter(step for step in steps if step > 0)
    expected = min(counts, key=lambda step: (-counts[step], step)) if counts else 0
    assert modal_step(times) == expected


def test_no_times_have_no_step():
    assert modal_step(np.array([], dtype=np.int64)) == 0


@settings(deadline=None)
@given(st.integers(0, 10**13))
def test_a_time_is_shown_as_datetime_shows_it(ms):
    expected = datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert show_time(ms) == expected


# Further columns


def test_further_columns_are_chosen_by_name():
    bars = with_extra()
    assert list(bars.with_extra(["oi"]).extra) == ["oi"]
    assert bars.with_extra(["oi", "trades"]) is bars
    with pytest.raises(BitcornError, match=r"no further column funding \(they have trades, oi\)"):
        bars.with_extra(["funding"])


@pytest.mark.parametrize(
    ("extra", "message"), [({"close": np.ones(5)}, "names of bar columns"), ({"x": np.ones(4)}, "'x': 4")]
)
def test_further_columns_that_do_not_fit_are_refused(extra, message):
    with pytest.raises(BitcornError, match=message):
        replace(some_bars(), extra=extra)


def test_bars_that_follow_each_other_are_one_with_their_further_columns():
    bars = with_extra()
    parts = [bars.take(slice(1)), bars.take(slice(1, None))]
    assert joined(parts).to_frame().equals(bars.to_frame())
    assert joined(parts).extra.keys() == bars.extra.keys() != set()
    assert joined([bars]) is bars


@given(st.integers(0, HOUR - 1), st.lists(st.integers(0, HOUR - 1), max_size=5))
def test_the_phase_is_where_most_times_lie(phase, strays):
    times = np.concatenate([phase + HOUR * np.arange(20), np.array(strays, dtype=np.int64)])
    assert grid_phase(times, HOUR) == phase


def test_the_phase_of_nothing_is_the_epoch():
    assert grid_phase(np.array([], dtype=np.int64), HOUR) == 0
    assert grid_phase(np.array([5, 6]), 0) == 0
