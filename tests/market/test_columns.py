import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.columns import BAR_COLUMNS, match_columns, milliseconds

SECONDS = 1_502_942_400


@settings(deadline=None)
@given(st.permutations([*BAR_COLUMNS, "symbol", "quote_volume", "trades"]), st.randoms(use_true_random=False))
def test_columns_match_in_any_order_and_case(names, random):
    stored = ["".join(random.choice((c.upper(), c.lower())) for c in name) for name in names]
    found, missing = match_columns(stored)
    assert missing == []
    assert found == {ours: stored[names.index(ours)] for ours in (*BAR_COLUMNS, "symbol")}


@pytest.mark.parametrize("names", [("timestamp", "ts"), ("ts", "timestamp"), ("Timestamp", "TS")])
def test_ts_is_the_time_where_there_is_timestamp_too(names):
    assert match_columns(names)[0]["timestamp"].lower() == "ts"


def test_spaces_around_a_name_do_not_matter_and_are_kept():
    assert match_columns([" Close "])[0]["close"] == " Close "


def test_the_first_of_two_columns_that_differ_in_case_is_taken():
    assert match_columns(["Close", "close"])[0]["close"] == "Close"


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ([], list(BAR_COLUMNS)),
        (["ts", "open", "high", "low", "close", "vol"], ["volume"]),
        (["date", "open", "high", "low", "adj close", "volume"], ["timestamp", "close"]),
        (["symbol", "timeframe", "timestamp", "open", "high", "low", "close", "volume"], []),
    ],
)
def test_missing_bar_columns_are_named_and_symbol_and_timeframe_are_not_required(names, missing):
    assert match_columns(names)[1] == missing


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(100_000_000, 99_999_999_999), st.booleans()), min_size=1),
    st.sampled_from([np.int64, np.uint64, np.float64]),
)
def test_seconds_and_milliseconds_are_told_apart_row_by_row(rows, dtype):
    times = np.array([seconds if in_seconds else seconds * 1000 for seconds, in_seconds in rows], dtype=dtype)
    result = milliseconds(times, "times")
    assert result.dtype == np.int64
    assert result.tolist() == [seconds * 1000 for seconds, _ in rows]


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_seconds_in_32_bits_do_not_overflow(dtype):
    assert milliseconds(np.array([SECONDS, SECONDS + 3600], dtype=dtype), "times").tolist() == [
        SECONDS * 1000,
        (SECONDS + 3600) * 1000,
    ]


def test_fractions_of_a_second_are_kept_as_milliseconds():
    assert milliseconds(np.array([SECONDS + 0.25]), "times").tolist() == [SECONDS * 1000 + 250]


def test_fractions_of_a_millisecond_are_refused():
    with pytest.raises(BitcornError, match="times"):
        milliseconds(np.array([SECONDS * 1000 + 0.5]), "times")


def test_no_times_are_no_times():
    assert milliseconds(np.array([], dtype=np.float64), "times").dtype == np.int64


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        (np.array(["2024-01-01"], dtype=object), "'2024-01-01'"),
        (np.array([True]), "True"),
        (np.array([SECONDS * 1_000_000]), str(SECONDS * 1_000_000)),
        (np.array([SECONDS, -1]), "-1"),
        (np.array([SECONDS, np.nan]), "not finite"),
        (np.array([SECONDS, np.inf]), "not finite"),
    ],
    ids=["text", "truth", "microseconds", "negative", "nan", "infinite"],
)
def test_what_is_no_time_is_refused_with_column_and_value(times, shown):
    with pytest.raises(BitcornError, match="column ts of x") as error:
        milliseconds(times, "column ts of x")
    assert shown in str(error.value)
