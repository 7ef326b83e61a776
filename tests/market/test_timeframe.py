import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.timeframe import (
    choose_step,
    numeric_steps,
    same_timeframe,
    timeframe_ms,
    timeframe_of_ms,
    timeframe_word,
)


@pytest.mark.parametrize(
    ("timeframe", "ms"),
    [
        ("1m", 60_000),
        ("15m", 900_000),
        ("1h", 3_600_000),
        ("4H", 14_400_000),
        (" 1d ", 86_400_000),
        ("1w", 604_800_000),
        ("99999m", 99_999 * 60_000),
    ],
)
def test_a_timeframe_has_a_length(timeframe, ms):
    assert timeframe_ms(timeframe) == ms


@pytest.mark.parametrize("timeframe", ["", "h", "1", "0h", "-1h", "1.5h", "1y", "1 h", "hourly", "100000m", "1h\n1h"])
def test_an_invalid_timeframe_is_refused(timeframe):
    with pytest.raises(BitcornError, match="unknown timeframe"):
        timeframe_ms(timeframe)


def test_a_month_is_refused_as_a_month():
    with pytest.raises(BitcornError, match="'1M' is a month"):
        timeframe_ms("1M")


@settings(deadline=None)
@given(st.integers(1, 99_999))
def test_the_name_of_a_step_reads_back_as_the_step(minutes):
    assert timeframe_ms(timeframe_of_ms(minutes * 60_000)) == minutes * 60_000


@pytest.mark.parametrize(
    ("minutes", "name"),
    [(1, "1m"), (59, "59m"), (60, "1h"), (90, "90m"), (1_440, "1d"), (10_080, "1w"), (14_400, "10d")],
)
def test_a_step_is_named_in_the_longest_unit_that_fits(minutes, name):
    assert timeframe_of_ms(minutes * 60_000) == name


@pytest.mark.parametrize("step", [-3_600_000, 0, 1_000, 59_999, 61_001])
def test_a_step_of_no_whole_minutes_has_no_name(step):
    with pytest.raises(BitcornError, match=f"{step} ms apart"):
        timeframe_of_ms(step)


@pytest.mark.parametrize(
    ("stored", "asked", "same"),
    [
        *[("1h", "1h", True), ("1H", "60m", True), ("24h", "1d", True), ("1h", "4h", False), ("1M", "1m", False)],
        *[("60min", "1h", True), ("D", "1d", True), ("1Week", "7d", True), ("hourly-ish", "1h", False)],
    ],
)
def test_timeframes_are_the_same_by_length(stored, asked, same):
    assert same_timeframe(stored, asked) is same


def test_asking_for_a_month_is_refused_even_where_one_is_stored():
    with pytest.raises(BitcornError, match="month"):
        same_timeframe("1M", "1M")


@pytest.mark.parametrize(
    ("text", "timeframe"),
    [
        *[
            ("1h", "1h"),
            ("4H", "4h"),
            ("15min", "15m"),
            ("1T", "1m"),
            ("1 hour", "1h"),
            ("2days", "2d"),
            ("1Week", "1w"),
        ],
        *[("D", "1d"), ("w", "1w"), ("hour", "1h"), (" 30m ", "30m"), ("hourly", "1h")],
        *[("H4", "4h"), ("M15", "15m"), ("PERIOD_D1", "1d"), ("MN1", None), ("h4", None)],
        *[("ONE_HOUR", "1h"), ("FIFTEEN_MINUTE", "15m"), ("ONE_MONTH", None)],
        *[
            ("1M", None),
            ("M", None),
            ("m", None),
            ("1mo", None),
            ("60", None),
            ("0h", None),
            ("", None),
            ("tick", None),
        ],
    ],
)
def test_a_timeframe_is_known_in_the_spellings_of_exchanges(text, timeframe):
    assert timeframe_word(text) == timeframe


@pytest.mark.parametrize("value", [60, "60", 3600, 3_600_000, 1440])
def test_bare_numbers_may_be_timeframes(value):
    assert {60: 3_600_000, 3600: 3_600_000, 3_600_000: 3_600_000, 1440: 86_400_000}[int(value)] in numeric_steps(value)


@pytest.mark.parametrize("value", [7, 0, -60, "x", None, 1.5, b"60"])
def test_other_values_are_no_timeframes(value):
    assert numeric_steps(value) == []


@pytest.mark.parametrize(
    ("number", "distance", "step"), [(60, 60_000, 60_000), (60, 3_600_000, 3_600_000), (60, 0, 3_600_000)]
)
def test_the_distance_of_the_bars_says_the_unit_of_a_bare_number(number, distance, step):
    assert choose_step(numeric_steps(number), distance) == step
