from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.times import milliseconds, parse_times, read_times

SECONDS = 1_502_942_400
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
MINUTES = st.integers(3_700_000, 68_000_000).map(lambda minute: minute * 60)  # 1977 to 2099, in seconds


@settings(deadline=None)
@given(st.lists(st.tuples(MINUTES, st.sampled_from(list(PER_SECOND))), min_size=1))
def test_each_number_has_the_unit_of_its_magnitude(rows):
    parsed = parse_times(pa.array([seconds * PER_SECOND[unit] for seconds, unit in rows]), "times")
    assert parsed.ms.tolist() == [seconds * 1000 for seconds, _ in rows]
    assert parsed.units == {unit: n for unit in PER_SECOND if (n := sum(unit == other for _, other in rows))}


@settings(deadline=None)
@given(st.lists(MINUTES, min_size=1), st.sampled_from(list(PER_SECOND)))
def test_real_numbers_and_numbers_as_text_are_read_alike(seconds, unit):
    numbers = [value * PER_SECOND[unit] for value in seconds]
    as_text = [pa.array([str(number) for number in numbers]), pa.array([f"{number}.0" for number in numbers])]
    for column in (pa.array([float(number) for number in numbers]), *as_text):
        assert parse_times(column, "times").ms.tolist() == [value * 1000 for value in seconds]


FORMS = [
    ("%Y-%m-%d %H:%M:%S", "YYYY-MM-DD HH:MM:SS"),
    ("%Y-%m-%d %H:%M:%S.%f", "YYYY-MM-DD HH:MM:SS.ffffff"),
    ("%Y-%m-%dT%H:%M:%S", "YYYY-MM-DDTHH:MM:SS"),
    ("%Y-%m-%dT%H:%M:%SZ", "YYYY-MM-DDTHH:MM:SSZ"),
    ("%Y-%m-%dT%H:%M:%S.%fZ", "YYYY-MM-DDTHH:MM:SS.ffffffZ"),
    ("%Y-%m-%d %H:%M:%S+00:00", "YYYY-MM-DD HH:MM:SS+HH:MM"),
    ("%Y-%m-%d %H:%M:%S UTC", "YYYY-MM-DD HH:MM:SS UTC"),
    ("%Y-%m-%d %H:%M", "YYYY-MM-DD HH:MM"),
    ("%Y/%m/%d %H:%M:%S", "YYYY/MM/DD HH:MM:SS"),
    ("%Y-%m-%d %I:%M %p", "YYYY-MM-DD HH:MM AM"),
    ("%Y%m%d%H%M", "YYYYMMDDHHMM"),
    ("%Y%m%d%H%M%S", "YYYYMMDDHHMMSS"),
    ("%Y%m%d %H:%M:%S", "YYYYMMDD HH:MM:SS"),
    ("%Y%m%dT%H%M%SZ", "YYYYMMDDTHHMMSSZ"),
]


@settings(deadline=None, max_examples=60)
@given(st.lists(MINUTES, min_size=1, max_size=20), st.sampled_from(FORMS))
def test_text_is_read_as_datetime_writes_it(seconds, form):
    written, name = form
    texts = [datetime.fromtimestamp(value, UTC).strftime(written) for value in seconds]
    parsed = parse_times(pa.array(texts), "times")
    assert parsed.ms.tolist() == [value * 1000 for value in seconds]
    assert parsed.units == {name: len(seconds)}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-25_000, 47_000), min_size=1), st.sampled_from(["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d"]))
def test_days_are_their_midnight(days, form):
    texts = [(datetime(1970, 1, 1) + timedelta(days=day)).strftime(form) for day in days]
    assert parse_times(pa.array([text.zfill(len(texts[0])) for text in texts]), "t").ms.tolist() == [
        day * 86_400_000 for day in days
    ]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40_000), st.integers(0, 23))
def test_hours_of_half_days(day, hour):
    time = datetime(1970, 1, 1) + timedelta(days=day, hours=hour)
    for text in (time.strftime("%Y-%m-%d %I-%p"), time.strftime("%Y-%m-%d %I%p").lower()):
        assert parse_times(pa.array([text]), "t").ms.tolist() == [(day * 24 + hour) * 3_600_000]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 4 * 10**9), st.integers(-14 * 4, 14 * 4), st.sampled_from(["%z", " %z", "%:z"]))
def test_an_offset_is_taken_off(seconds, quarters, written):
    zone = timezone(timedelta(minutes=15 * quarters))
    local = datetime.fromtimestamp(seconds, zone)
    text = local.isoformat(sep=" ") if written == "%:z" else local.strftime(f"%Y-%m-%dT%H:%M:%S{written}")
    assert parse_times(pa.array([text]), "t").ms.tolist() == [seconds * 1000]


def test_forms_may_be_mixed_and_are_counted():
    texts = [
        "2017-08-17 04-AM",
        "2017-08-17 05:00:00",
        "1502949600",
        "1502953200000",
        " 2017-08-17T08:00Z ",
        "20170817",
    ]
    parsed = parse_times(pa.array(texts), "t")
    assert parsed.ms.tolist() == [SECONDS * 1000 + 3_600_000 * i for i in range(5)] + [SECONDS * 1000 - 4 * 3_600_000]
    assert sorted(parsed.units.values()) == [1] * 6
    assert {"s", "ms", "YYYYMMDD"} < set(parsed.units)


@pytest.mark.parametrize(
    ("numbers", "ms"),
    [
        ([20170817, 20170818], 1_502_928_000_000),
        ([201708170400, 201708170500], SECONDS * 1000),
        ([20170817040000, 20170817050000], SECONDS * 1000),
    ],
)
def test_dates_as_numbers_are_dates_where_all_are(numbers, ms):
    assert parse_times(pa.array(numbers), "t").ms[0] == ms
    assert parse_times(pa.array([float(number) for number in numbers]), "t").ms[0] == ms
    mixed, bad = read_times(pa.array([*numbers[:1], SECONDS, SECONDS * 1000]))
    assert mixed.ms.tolist() == [ms, SECONDS * 1000, SECONDS * 1000]
    assert not bad.any()


def test_numbers_of_12_digits_are_epochs_where_one_of_them_is_no_date():
    parsed = parse_times(pa.array([201_708_170_400, 190_199_000_000]), "t")
    assert parsed.units == {"ms": 2}


@pytest.mark.parametrize("number", [0, 153_000, 20_170_832, 45_292, 2_460_310.5, 10**8 - 1])
def test_small_numbers_are_no_epochs(number):
    for column in (pa.array([20_170_817.0, number]), pa.array(["20170817", str(number)])):
        parsed, bad = read_times(column)
        assert (parsed.ms[0], parsed.units, bad.tolist()) == (1_502_928_000_000, {"YYYYMMDD": 1}, [False, True])
    assert parse_times(pa.array([10**8]), "t").ms.tolist() == [10**11]


def test_milliseconds_of_any_year_are_milliseconds():
    numbers = [SECONDS * 1000, 9_300_000_000_000, 99_999_999_999_999]
    assert parse_times(pa.array(numbers), "t").ms.tolist() == numbers


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ms", "Europe/Paris"), pa.timestamp("us"), pa.timestamp("ns", "UTC")]
)
def test_timestamps_are_taken_as_they_are(kind):
    column = pa.chunked_array([pa.array([SECONDS], pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp(kind.unit))])
    column = pa.chunked_array([column.chunk(0).view(kind)])
    assert parse_times(column, "t").ms.tolist() == [SECONDS * 1000]


def test_dates_dictionaries_decimals_and_chunks_are_read():
    day = datetime(2017, 8, 17).date()
    assert parse_times(pa.array([day]), "t").ms.tolist() == [1_502_928_000_000]
    assert parse_times(pa.array([day], pa.date64()), "t").ms.tolist() == [1_502_928_000_000]
    assert parse_times(pa.array(["2017-08-17"] * 3).dictionary_encode(), "t").ms.tolist() == [1_502_928_000_000] * 3
    assert parse_times(pa.array([SECONDS]).cast(pa.decimal128(30, 2)), "t").ms.tolist() == [SECONDS * 1000]
    chunks = pa.chunked_array([[SECONDS], [SECONDS * 1000]])
    assert parse_times(chunks, "t").ms.tolist() == [SECONDS * 1000] * 2
    assert len(parse_times(pa.chunked_array([], pa.int64()), "t").ms) == 0


@pytest.mark.parametrize(
    "value",
    [
        *["2024-02-30", "2023-02-29", "2024-13-01", "2024-00-01", "2024-01-31 24:00:00", "2024-01-31 00:60:00"],
        *["2024-01-31 00:00:61", "2024-01-31 13-PM", "2024-01-31 00-AM", "2024/01-31", "31.01.2024", "01/31/2024"],
        *["soon", "", "-5", "nan", "2024-01-31x", "2024-01-31 00:00:00+99:00", "1e30", "１２３４"],
    ],
)
def test_text_that_is_no_time_is_refused_with_its_place(value):
    with pytest.raises(BitcornError, match=r"column 't' of x holds .* in 2 of 3 rows") as error:
        parse_times(pa.array(["2024-01-31", value, value]), "column 't' of x")
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [-1, 2**63, np.nan, np.inf, SECONDS * 1000 + 0.5])
def test_numbers_that_are_no_times_are_refused(value):
    kind = pa.uint64() if value == 2**63 else None
    numbers = [SECONDS * 1000, value] if kind is None else [SECONDS, value]
    with pytest.raises(BitcornError, match=r"t holds .* in 1 of 2 rows"):
        parse_times(pa.array(numbers, kind), "t")


@pytest.mark.parametrize("column", [pa.array([True]), pa.array([b"x"]), pa.array([[1]]), pa.array([1], pa.time32("s"))])
def test_other_types_are_no_times(column):
    with pytest.raises(BitcornError, match="which is not a time"):
        parse_times(column, "t")


def test_missing_times_are_refused_or_told_apart():
    column = pa.array(["2017-08-17 04:00", None, "soon"])
    with pytest.raises(BitcornError, match="1 rows of t have no time"):
        parse_times(column, "t")
    parsed, bad = read_times(column)
    assert parsed.ms.tolist() == [SECONDS * 1000, 0, 0]
    assert bad.tolist() == [False, True, True]
    assert read_times(pa.nulls(3))[1].all()


def test_parts_of_a_millisecond_are_cut_off_text_and_microseconds():
    texts = pa.array(["2017-08-17 04:00:00.000999", "2017-08-17 04:00:00,5", "2017-08-17 04:00:00.123456789"])
    assert (parse_times(texts, "t").ms - SECONDS * 1000).tolist() == [0, 500, 123]
    assert milliseconds(np.array([SECONDS * 10**6 + 999]), "t").tolist() == [SECONDS * 1000]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(100_000_000, 99_999_999_999), st.booleans()), min_size=1),
    st.sampled_from([np.int64, np.uint64, np.float64]),
)
def test_seconds_and_milliseconds_are_told_apart_row_by_row(rows, dtype):
    rows = [(min(seconds, 9_000_000_000), in_seconds) for seconds, in_seconds in rows]
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


def test_no_times_are_no_times():
    assert milliseconds(np.array([], dtype=np.float64), "times").dtype == np.int64


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        (np.array(["2024-01-01"], dtype=object), "'2024-01-01'"),
        (np.array([True]), "True"),
        (np.array([SECONDS, -1]), "-1"),
        (np.array([SECONDS, np.nan]), "not finite"),
        (np.array([SECONDS, np.inf]), "not finite"),
        (np.array([SECONDS * 1000 + 0.5]), "whole milliseconds"),
    ],
    ids=["text", "truth", "negative", "nan", "infinite", "fraction"],
)
def test_what_is_no_time_is_refused_with_column_and_value(times, shown):
    with pytest.raises(BitcornError, match="column ts of x") as error:
        milliseconds(times, "column ts of x")
    assert shown in str(error.value)
