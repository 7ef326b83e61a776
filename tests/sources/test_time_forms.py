"""Times in the forms and zones of people, against Python's own datetime and zoneinfo."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.sources.times import TimeForm, read_times

FORMS = {
    "%d.%m.%Y %H:%M:%S.%f": "dots",
    "%d/%m/%Y %H:%M": "day",
    "%m/%d/%Y": "month",
    "%m/%d/%Y %I:%M %p": "month",
    "%b %d, %Y": "letters",
    "%d %b %Y %H:%M": "letters",
    "%d-%b-%Y": "letters",
    "%a %b %d %Y": "letters",
    "%B %d, %Y": "letters",
}


def ms(time):
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.datetimes(datetime(1980, 1, 1), datetime(2090, 1, 1)), min_size=1, max_size=20),
)
def test_the_forms_of_people_are_read_or_refused_but_never_as_another_day(form, times):
    texts = [time.strftime(form) for time in times]
    expected = [ms(datetime.strptime(text, form).replace(tzinfo=UTC)) for text in texts]
    parsed, bad = read_times(pa.array(texts))
    told = FORMS[form] in ("dots", "letters") or any(time.day > 12 for time in times)
    if FORMS[form] in ("day", "month") and not told:
        assert bad.all()
        return
    assert not bad.any()
    assert parsed.ms.tolist() == expected


@settings(deadline=None)
@given(
    st.sampled_from(["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%y%m%d-%H%M", "%H:%M %d.%m.%y"]),
    st.lists(st.datetimes(datetime(1980, 1, 1), datetime(2060, 1, 1)), min_size=1, max_size=20),
)
def test_a_given_format_decides(form, times):
    texts = [time.strftime(form) for time in times]
    parsed, bad = read_times(pa.array(texts), TimeForm(form))
    assert not bad.any()
    assert parsed.ms.tolist() == [ms(datetime.strptime(text, form).replace(tzinfo=UTC)) for text in texts]


@pytest.mark.parametrize(
    "text", ["31.12.2020 00:00:00.000 GMT+0900", "2020-12-31 00:00:00 UTC+09:00", "2020-12-31T00:00:00+0900"]
)
def test_offsets_after_gmt_are_applied(text):
    parsed, bad = read_times(pa.array([text]), TimeForm(zone="America/New_York"))
    assert (bad.any(), parsed.ms[0]) == (False, ms(datetime(2020, 12, 30, 15, tzinfo=UTC)))


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Australia/Sydney", "EST", "Asia/Kolkata"])
@pytest.mark.parametrize("minutes", [15, 30, 60, 1440])
@pytest.mark.parametrize("falling", [False, True])
def test_local_times_of_a_year_are_the_instants_that_they_were(zone, minutes, falling):
    start, step = datetime(2024, 1, 1, tzinfo=UTC), timedelta(minutes=minutes)
    instants = [start + number * step for number in range(366 * 24 * 60 // minutes)]
    if falling:
        instants.reverse()
    texts = [instant.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M") for instant in instants]
    parsed, bad = read_times(pa.array(texts), TimeForm(zone=zone))
    assert not bad.any()
    np.testing.assert_array_equal(parsed.ms, [ms(instant) for instant in instants])
    naive = pa.array(texts).cast(pa.timestamp("ms"))
    np.testing.assert_array_equal(read_times(naive, TimeForm(zone=zone))[0].ms, parsed.ms)


def test_times_that_say_their_zone_are_left_alone():
    numbers, zoned = pa.array([1_704_067_200_000]), pa.array([1_704_067_200_000], pa.timestamp("ms", "UTC"))
    for column in (numbers, zoned, pa.array(["2024-01-01T00:00:00Z"])):
        assert read_times(column, TimeForm(zone="Asia/Tokyo"))[0].ms[0] == 1_704_067_200_000


@pytest.mark.parametrize("text", ["1.70407E+12", "1.7E+9", "1.70407e+18"])
def test_numbers_whose_digits_are_cut_are_no_times(text):
    assert read_times(pa.array([text]))[1].all()
    assert not read_times(pa.array(["1.7040672E+12"]))[1].any()


def test_bad_zones_and_formats_are_told():
    with pytest.raises(BitcornError, match="no time zone 'Mars/Olympus': give a name such as America/New_York"):
        TimeForm(zone="Mars/Olympus")
    with pytest.raises(BitcornError, match="%Q"):
        read_times(pa.array(["2024"]), TimeForm("%Q"))
