from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars, frame_times, modal_step, require_chronology, show_time

HOUR = 3_600_000
START = 1_502_942_400_000


def some_bars(n=5):
    close = np.arange(1.0, n + 1)
    return Bars(
        timestamp=START + HOUR * np.arange(n), open=close, high=close + 1, low=close / 2, close=close, volume=close * 10
    )


def same(a, b):
    return list(a.columns()) == list(b.columns()) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in zip(a.columns().values(), b.columns().values(), strict=True)
    )


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(220_000_000_000, 10**13 - 1), *[st.floats(allow_nan=False)] * 5), max_size=20), st.booleans()
)
def test_a_frame_and_back_is_the_same_bit_by_bit(rows, with_times):
    values = np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, 5)
    bars = Bars(
        timestamp=np.array([row[0] for row in rows], dtype=np.int64) if with_times else None,
        **{name: values[:, i].copy() for i, name in enumerate(["open", "high", "low", "close", "volume"])},
    )
    assert same(Bars.from_frame(bars.to_frame()), bars)


def test_a_frame_of_bars_has_utc_times():
    frame = some_bars().to_frame()
    assert str(frame["timestamp"].dtype) == "datetime64[ms, UTC]"
    assert frame["timestamp"].iloc[0] == pd.Timestamp("2017-08-17 04:00", tz="UTC")


@pytest.mark.parametrize(
    "times",
    [
        pd.Series([START, START + HOUR]),
        pd.Series([START // 1000, START // 1000 + 3600]),
        pd.Series([START // 1000, START // 1000 + 3600], dtype="int32"),
        pd.Series([START, START + HOUR], dtype="Int64"),
        pd.Series(pd.to_datetime([START, START + HOUR], unit="ms")),
        pd.Series(pd.to_datetime([START, START + HOUR], unit="ms", utc=True)),
        pd.Series(pd.to_datetime([START, START + HOUR], unit="ms", utc=True).tz_convert("Asia/Kolkata")),
        pd.Series(pd.to_datetime([START, START + HOUR], unit="ms", utc=True).as_unit("ns")),
        pd.Series(pd.to_datetime([START, START + HOUR], unit="ms", utc=True)).convert_dtypes(dtype_backend="pyarrow"),
    ],
    ids=["ms", "s", "int32 s", "Int64", "naive", "utc", "another zone", "ns", "arrow"],
)
@pytest.mark.parametrize("name", ["ts", "Timestamp"])
def test_times_of_a_column_are_milliseconds_utc(times, name):
    assert frame_times(pd.DataFrame({name: times, "close": 1.0})).tolist() == [START, START + HOUR]


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_of_an_index_are_milliseconds_utc(zone):
    index = pd.to_datetime([START, START + HOUR], unit="ms", utc=True).tz_convert(zone)
    assert frame_times(pd.DataFrame({"close": 1.0}, index=index)).tolist() == [START, START + HOUR]


def test_a_frame_without_times_makes_bars_without_times():
    bars = Bars.from_frame(some_bars().to_frame().drop(columns="timestamp"))
    assert bars.timestamp is None
    assert "timestamp" not in bars.columns()
    assert "timestamp" not in bars.to_frame()
    assert bars.describe(3) == "row 3"


@pytest.mark.parametrize("missing", [pd.NaT, None])
def test_a_frame_with_a_missing_time_is_refused(missing):
    frame = some_bars().to_frame()
    frame.loc[2, "timestamp"] = missing
    with pytest.raises(BitcornError, match="1 rows have no timestamp"):
        Bars.from_frame(frame)


def test_columns_of_a_frame_are_found_in_any_order_and_case_and_may_be_integers():
    frame = some_bars().to_frame()
    turned = frame[frame.columns[::-1]].rename(columns=str.upper).assign(TRADES=7)
    turned["VOLUME"] = turned["VOLUME"].astype("Int64")
    assert same(Bars.from_frame(turned), some_bars())


def test_a_missing_integer_of_a_frame_is_nan():
    frame = some_bars().to_frame().astype({"volume": "Int64"})
    frame.loc[1, "volume"] = pd.NA
    assert np.isnan(Bars.from_frame(frame).volume).tolist() == [False, True, False, False, False]


def test_a_frame_without_a_column_is_refused_by_name():
    with pytest.raises(BitcornError, match="no column high, volume: it has timestamp, open, low, close"):
        Bars.from_frame(some_bars().to_frame().drop(columns=["high", "volume"]))


@pytest.mark.parametrize("dtype", ["str", "object"])
def test_a_frame_with_text_for_a_price_is_refused_by_column_and_value(dtype):
    frame = some_bars().to_frame()
    frame["low"] = pd.Series(["1.0", "2.0", "n.a.", "4.0", "5.0"], dtype=dtype)
    with pytest.raises(BitcornError, match=r"'low'.*'n\.a\.'"):
        Bars.from_frame(frame)


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
        ([0, 1, 1, 2, 1], r"2017-08-17T05:00:00Z stands twice \(row 2\D+2 such"),
        ([0, 2, 1], r"2017-08-17T05:00:00Z stands after a later one \(row 2\D+1 such"),
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


def with_extra():
    return replace(some_bars(), extra={"trades": np.arange(5.0), "oi": np.ones(5)})


def test_further_columns_go_the_way_of_the_bars():
    bars = with_extra()
    assert bars.take(slice(1, 3)).extra["trades"].tolist() == [1.0, 2.0]
    assert not bars.read_only().extra["trades"].flags.writeable
    assert list(bars.to_frame().columns)[-2:] == ["trades", "oi"]
    assert "trades" not in bars.columns()
    assert Bars.from_frame(bars.to_frame(), ["trades"]).extra["trades"].tolist() == list(range(5))
    assert Bars.from_frame(bars.to_frame()).extra == {}


def test_further_columns_are_chosen_by_name():
    bars = with_extra()
    assert list(bars.with_extra(["oi"]).extra) == ["oi"]
    assert bars.with_extra(["oi", "trades"]) is bars
    with pytest.raises(BitcornError, match=r"no further column funding \(they have trades, oi\)"):
        bars.with_extra(["funding"])


@pytest.mark.parametrize(
    ("extra", "message"), [({"close": np.ones(5)}, "names of bars' own"), ({"x": np.ones(4)}, "'x': 4")]
)
def test_further_columns_that_do_not_fit_are_refused(extra, message):
    with pytest.raises(BitcornError, match=message):
        replace(some_bars(), extra=extra)


@pytest.mark.parametrize("texts", [["2017-08-17 04:00", "2017-08-17 05:00"], ["2017-08-17T06:00+02:00", "1502946000"]])
def test_times_of_a_frame_may_be_text(texts):
    frame = pd.DataFrame({"date": texts, "close": 1.0})
    assert frame_times(frame).tolist() == [START, START + HOUR]
