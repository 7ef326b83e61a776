import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.market.columns import BAR_COLUMNS, match_columns


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
