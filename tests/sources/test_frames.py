import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bars import HOUR, START, some_bars, with_extra

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import Bars
from bitcorn_ray.sources.frames import frame_times, read_frame


def same(a, b):
    return list(a.columns()) == list(b.columns()) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in zip(a.columns().values(), b.columns().values(), strict=True)
    )


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(220_000_000_000, 10**13 - 1), *[st.floats(allow_nan=False)] * 5), max_size=20),
    st.booleans(),
)
def test_a_frame_and_back_is_the_same_bit_by_bit(rows, with_times):
    values = np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, 5)
    bars = Bars(
        timestamp=np.array([row[0] for row in rows], dtype=np.int64) if with_times else np.arange(len(rows)),
        timed=with_times,
        **{name: values[:, i].copy() for i, name in enumerate(["open", "high", "low", "close", "volume"])},
    )
    assert same(read_frame(bars.to_frame()), bars)


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
    bars = read_frame(some_bars().to_frame().drop(columns="timestamp"))
    assert not bars.timed
    assert "timestamp" not in bars.columns()
    assert "timestamp" not in bars.to_frame()
    assert bars.describe(3) == "row 3"


@pytest.mark.parametrize("missing", [pd.NaT, None])
def test_a_frame_with_a_missing_time_is_refused(missing):
    frame = some_bars().to_frame()
    frame.loc[2, "timestamp"] = missing
    with pytest.raises(BitcornError, match="1 rows have no timestamp"):
        read_frame(frame)


def test_columns_of_a_frame_are_found_in_any_order_and_case_and_may_be_integers():
    frame = some_bars().to_frame()
    turned = frame[frame.columns[::-1]].rename(columns=str.upper).assign(TRADES=7)
    turned["VOLUME"] = turned["VOLUME"].astype("Int64")
    assert same(read_frame(turned), some_bars())


def test_a_missing_integer_of_a_frame_is_nan():
    frame = some_bars().to_frame().astype({"volume": "Int64"})
    frame.loc[1, "volume"] = pd.NA
    assert np.isnan(read_frame(frame).volume).tolist() == [False, True, False, False, False]


def test_a_frame_without_a_column_is_refused_by_name():
    with pytest.raises(BitcornError, match="no column high, volume: it has timestamp, open, low, close"):
        read_frame(some_bars().to_frame().drop(columns=["high", "volume"]))


@pytest.mark.parametrize("dtype", ["str", "object"])
def test_a_frame_with_text_for_a_price_is_refused_by_column_and_value(dtype):
    frame = some_bars().to_frame()
    frame["low"] = pd.Series(["1.0", "2.0", "n.a.", "4.0", "5.0"], dtype=dtype)
    with pytest.raises(BitcornError, match=r"'low'.*'n\.a\.'"):
        read_frame(frame)


def test_further_columns_go_the_way_of_the_bars():
    bars = with_extra()
    assert bars.take(slice(1, 3)).extra["trades"].tolist() == [1.0, 2.0]
    assert not bars.read_only().extra["trades"].flags.writeable
    assert list(bars.to_frame().columns)[-2:] == ["trades", "oi"]
    assert "trades" not in bars.columns()
    assert read_frame(bars.to_frame(), ["trades"]).extra["trades"].tolist() == list(range(5))
    assert read_frame(bars.to_frame()).extra == {}


@pytest.mark.parametrize("texts", [["2017-08-17 04:00", "2017-08-17 05:00"], ["2017-08-17T06:00+02:00", "1502946000"]])
def test_times_of_a_frame_may_be_text(texts):
    frame = pd.DataFrame({"date": texts, "close": 1.0})
    assert frame_times(frame).tolist() == [START, START + HOUR]
